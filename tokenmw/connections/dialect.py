"""How the endpoints of one platform differ from those of OAuth 2.0: names of fields, codes, and where they stand.

Platforms that follow the standard need nothing of this. For the others it is data, in `known_apps`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003  pydantic reads the fields' types
from dataclasses import dataclass, field
from typing import Any, Final, cast

from tokenmw.providers.answer import Answer

__all__ = ["GRANT_REFUSED", "STANDARD", "Dialect"]

GRANT_REFUSED: Final = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})
"""The codes by which a server refuses a code or refresh token: RFC 6749 §5.2, and those of OpenID Connect Core 3.1.2.6
that Microsoft's token endpoint sends too. The user has to connect again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one platform does otherwise.

    Attributes:
        request_names: The platform's names of the fields of a token request, by their standard names.
        answer_names: The standard names of the fields of an answer, by the platform's names.
        inside: The field of the answer in which the user's tokens stand, if they are not at the top.
        error_code: The field with a code of the platform's own; zero, "" and none mean success.
        grant_refused: Codes that refuse the code or refresh token itself, besides the standard ones.
        grant_refused_prefixes: The beginnings of such codes.
        client_refused: Codes that refuse the client.
        transient: Codes that mean "not now".
        code_parameter: The name of the code in the redirect back.
        scope_parameter: The name of the scope in the authorization request.
        client_parameter: The name of the client's id in the authorization request.
        answer_separator: What stands between the scopes of an answer, besides spaces.
        has_id_token: Whether the scope `openid` gives an ID token.
        pkce: Whether its endpoints take the fields of PKCE.
        revoke_client: Whether the client authenticates to revoke a token.
        openid_issuer: The `iss` of its ID tokens, if it is not the issuer; names in braces stand for other claims.
        header: The header in which its API takes the token; "": `Authorization`.
        rejected_field: The field of its API's answers with a code; "": a 401 says that a token is not valid.
        rejected: The codes of its API that say that a token is not valid.
        rejected_statuses: The statuses that come with those.
    """

    request_names: Mapping[str, str] = field(default_factory=dict[str, str])
    answer_names: Mapping[str, str] = field(default_factory=dict[str, str])
    inside: str = ""
    error_code: str = ""
    grant_refused: frozenset[str] = frozenset()
    grant_refused_prefixes: tuple[str, ...] = ()
    client_refused: frozenset[str] = frozenset()
    transient: frozenset[str] = frozenset()
    code_parameter: str = "code"
    scope_parameter: str = "scope"
    client_parameter: str = "client_id"
    answer_separator: str = ""
    has_id_token: bool = True
    pkce: bool = True
    revoke_client: bool = True
    openid_issuer: str = ""
    header: str = ""
    rejected_field: str = ""
    rejected: frozenset[str] = frozenset()
    rejected_statuses: frozenset[int] = frozenset({200})

    def fields(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Return the fields of a token request in the platform's names."""
        return {self.request_names.get(name, name): value for name, value in fields.items()}

    def standard(self, answer: Answer) -> Answer:
        """Return an answer of the token endpoint with the names and places of OAuth 2.0.

        A code of the platform's own becomes the `error`, in the standard's words if this dialect knows it.
        """
        fields = answer.fields
        if fields is None or self is STANDARD:
            return answer
        code = self._code(fields)
        inner = fields.get(self.inside) if self.inside and not code else None
        if isinstance(inner, dict):
            # The standard's names count first; what is not inside, such as the scopes of a refresh, stands at the top.
            fields = {**fields, **cast("dict[str, Any]", inner)}
        fields = {self.answer_names.get(name, name): value for name, value in fields.items()}
        if code:
            fields = {**fields, "error": self._standard_code(code)}
        else:
            fields.pop("error", None)
        return Answer(
            answer.status,
            headers=answer.headers,
            body=json.dumps(fields).encode(),
            retry_after=answer.retry_after,
            endpoint=answer.endpoint,
        )

    def refuses_grant(self, code: str) -> bool:
        """Return whether an error code refuses the code or refresh token itself."""
        return code in GRANT_REFUSED or code in self.grant_refused or code.startswith(self.grant_refused_prefixes)

    def _code(self, fields: Mapping[str, Any]) -> str:
        own = fields.get(self.error_code) if self.error_code else None
        code = "" if isinstance(own, bool) or not isinstance(own, (str, int)) or own in (0, "0") else str(own)[:64]
        error = fields.get("error")
        # Of a code that this dialect does not know, the standard's word beside it says more.
        known = self.grant_refused | self.client_refused | self.transient
        return error[:64] if isinstance(error, str) and error and code not in known else code

    def _standard_code(self, code: str) -> str:
        if code in self.client_refused:
            return "invalid_client"
        return "temporarily_unavailable" if code in self.transient else code


STANDARD: Final = Dialect()
"""OAuth 2.0 as written."""
