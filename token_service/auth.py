"""Who is calling: reads an `Authorization` header and answers with a key or with a token's claims.

Missing or bad credentials are `Unauthorized`, valid ones that do not allow the thing are `Forbidden`,
and nothing else is ever raised for what a caller sent. It reads nothing of the request but the header,
so it runs before any body is looked at and before any upgrade.
"""

from __future__ import annotations

import re

from token_service.api_keys import ApiKey, ApiKeys
from token_service.errors import Forbidden, Unauthorized
from token_service.tokens import SECRET_PREFIX, Claims, Tokens
from token_service.used_tokens import UsedTokens

MAX_HEADER_CHARS = 8192
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+)")
_LIKE_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


class Authenticator:
    """`used`: when given, tokens of revoked sessions are refused too."""

    def __init__(self, tokens: Tokens, api_keys: ApiKeys, used: UsedTokens | None = None) -> None:
        self._tokens = tokens
        self._api_keys = api_keys
        self._used = used

    async def api_key(self, authorization: str | None, scope: str) -> ApiKey:
        """The key in the header, which must carry `scope`."""
        presented = bearer(authorization)
        key = await self._api_keys.check(presented)
        if key is None:
            if _is_like_token(presented):
                self._tokens.verify(presented)
                raise Forbidden("This needs an API key; a call's token does not do.", code="api_key_required")
            raise Unauthorized("The API key is not valid.", code="invalid_api_key", reason="unknown or revoked key")
        if not key.allows(scope):
            raise Forbidden(f"This needs a key with the scope '{scope}'.", code="missing_scope")
        return key

    async def caller(self, authorization: str | None, *, allow_expired: bool = False) -> ApiKey | Claims:
        """The key, or the token's claims. Scopes and single use are the caller's business.

        `allow_expired`: also a token that has run out or was revoked, for hanging up the call it opened.
        """
        presented = bearer(authorization)
        key = await self._api_keys.check(presented)
        if key is not None:
            return key
        if not _is_like_token(presented):
            raise Unauthorized("The API key is not valid.", code="invalid_api_key", reason="unknown or revoked key")
        claims = self._tokens.verify(presented, allow_expired=allow_expired)
        if self._used is not None and not allow_expired and await self._used.is_revoked(claims.session_id):
            raise Unauthorized("The token has been revoked.", code="token_revoked")
        return claims


def bearer(authorization: str | None) -> str:
    """The credentials of a Bearer header (RFC 6750); the scheme's name in any case."""
    if authorization is None or not authorization.strip():
        raise Unauthorized(
            "Send an API key or a token in the header 'Authorization: Bearer ...'.", code="missing_credentials"
        )
    match = _BEARER.fullmatch(authorization.strip(" \t")) if len(authorization) <= MAX_HEADER_CHARS else None
    if match is None:
        raise Unauthorized(
            "The Authorization header is not 'Bearer', one space and a key or token.", code="malformed_credentials"
        )
    return match[1]


def _is_like_token(presented: str) -> bool:
    return presented.startswith(SECRET_PREFIX) or _LIKE_TOKEN.fullmatch(presented) is not None
