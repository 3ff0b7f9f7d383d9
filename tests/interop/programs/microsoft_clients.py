"""Microsoft's libraries msal and azure-identity, as a service uses them: only the login's address is another one.

The argument is JSON: the `login` and the `tenant`, the `client`, its `secret`, and its private `key` and `certificate`
in PEM, and the token of a `user`. The managed identity's address is in `AZURE_POD_IDENTITY_AUTHORITY_HOST`. Prints, for
each library, the tokens and the errors of wrong secrets.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msal
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    OnBehalfOfCredential,
)

OPTIONS = json.loads(sys.argv[1])
LOGIN, TENANT, CLIENT, SECRET = (OPTIONS[name] for name in ("login", "tenant", "client", "secret"))
KEY, CERTIFICATE, USER = (OPTIONS[name] for name in ("key", "certificate", "user"))
RESOURCE = "https://graph.microsoft.com"
SCOPE = f"{RESOURCE}/.default"


def with_msal() -> dict[str, Any]:
    def application(credential: Any) -> Any:
        # Without the question to login.microsoftonline.com whether it knows this login.
        return msal.ConfidentialClientApplication(
            CLIENT, authority=f"{LOGIN}/{TENANT}", client_credential=credential, instance_discovery=False
        )

    managed = msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), http_client=requests.Session())
    answers = {
        "secret": application(SECRET).acquire_token_for_client(scopes=[SCOPE]),
        "certificate": application({"private_key": KEY, "public_certificate": CERTIFICATE}).acquire_token_for_client(
            scopes=[SCOPE]
        ),
        "user": application(SECRET).acquire_token_on_behalf_of(USER, scopes=[SCOPE]),
        "managed identity": managed.acquire_token_for_client(resource=RESOURCE),
    }
    refused = application("wrong").acquire_token_for_client(scopes=[SCOPE])
    return {"tokens": {name: answer["access_token"] for name, answer in answers.items()}, "refused": refused}


def with_azure_identity() -> dict[str, Any]:
    login = {"authority": LOGIN, "disable_instance_discovery": True}
    credentials = {
        "secret": ClientSecretCredential(TENANT, CLIENT, SECRET, **login),
        "certificate": CertificateCredential(TENANT, CLIENT, certificate_data=f"{KEY}{CERTIFICATE}".encode(), **login),
        "assertion": ClientAssertionCredential(TENANT, CLIENT, lambda: "signed elsewhere", **login),
        "user": OnBehalfOfCredential(TENANT, CLIENT, client_secret=SECRET, user_assertion=USER, **login),
        "managed identity": ManagedIdentityCredential(),
    }
    try:
        ClientSecretCredential(TENANT, CLIENT, "wrong", **login).get_token(SCOPE)
        refused = ""
    except ClientAuthenticationError as error:
        refused = error.message
    return {"tokens": {name: one.get_token(SCOPE).token for name, one in credentials.items()}, "refused": refused}


print(json.dumps({"msal": with_msal(), "azure-identity": with_azure_identity()}))
