"""The token server django-oauth-toolkit, on a free port of this machine. Prints its issuer.

The argument is JSON: the `secret` of the client `client`, and the `scopes` that there are.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import include, path

OPTIONS = json.loads(sys.argv[1])

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    # In memory, for one connection: the server has one thread.
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": 1200,
        "SCOPES": {name: name for name in OPTIONS["scopes"]},
        "DEFAULT_SCOPES": OPTIONS["scopes"][:1],
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
    USE_TZ=True,
)
django.setup()

from oauth2_provider import models, urls


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Log nothing: a line per request hides what a failed test says."""


urlpatterns = [
    path("", include((urls.metadata_urlpatterns, "metadata"))),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]
call_command("migrate", verbosity=0)
models.Application.objects.create(
    client_id=OPTIONS["client"],
    client_secret=OPTIONS["secret"],
    hash_client_secret=False,  # hashing takes most of a second for each request
    client_type=models.Application.CLIENT_CONFIDENTIAL,
    authorization_grant_type=models.Application.GRANT_CLIENT_CREDENTIALS,
)
with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet) as http:
    print(f"http://127.0.0.1:{http.server_port}/o", flush=True)
    http.serve_forever()
