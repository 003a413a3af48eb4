"""Call tokens: short-lived EdDSA JWTs (RFC 7519, with the precautions of RFC 8725), and the ids of sessions.

`Tokens.mint` writes what a caller may do, `Tokens.verify` reads it back. Verification takes hostile
text and answers with `Claims` or `Unauthorized`, nothing else: length and alphabet are checked before
anything is parsed, the algorithm is pinned, the key comes from our own keys by `kid`, and times are
compared with the clock that was given. Single use is not decided here (`used_tokens.py`), since a
token is used up by the admission of a call and not by being read.
"""

from __future__ import annotations

import re
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from token_service.errors import Unauthorized
from token_service.keys import SigningKeys

ALGORITHM = "EdDSA"
MIN_TTL_SECONDS = 10
MAX_TTL_SECONDS = 3600
MAX_REUSABLE_TTL_SECONDS = 7200
"""OpenAI's client secrets may live this long."""
MAX_TOKEN_BYTES = 4096
"""A token of ours with every claim is under 3 kB; more is refused before it is parsed."""
LEEWAY_SECONDS = 5
"""Servers that share keys may differ this much in `nbf` and `iat`. `exp` is kept to the second."""
SECRET_PREFIX = "ek_"
"""How OpenAI's clients know a client secret; the JWT follows."""

ID_CHARS = 22
"""Letters and digits in an id's random part: 131 bits, more than a UUID, so ids cannot be guessed."""
_ALPHABET = string.ascii_letters + string.digits
_SESSION_PREFIX, _CALL_PREFIX = "sess_", "rtc_"
_SESSION_ID = re.compile(rf"sess_[A-Za-z0-9_-]{{{ID_CHARS}}}")
_ANY_ID = re.compile(rf"(sess|rtc)_([A-Za-z0-9_-]{{{ID_CHARS}}})")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_JTI = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""Ours have 22 characters; the bound keeps any that we take fit to be a key in the store."""
_REQUIRED = ("iss", "aud", "sub", "iat", "nbf", "exp", "jti", "session_id", "agent")
_MAX_CLAIM_CHARS = 1024


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token allows. Times are unix seconds; `origins`: pages that may use it, () for any caller;
    `reusable`: opens sessions until it expires (OpenAI's client secrets), else one call uses it up."""

    session_id: str
    jti: str
    subject: str
    agent: str
    issued_at: int
    expires_at: int
    model: str | None = None
    voice: str | None = None
    origins: tuple[str, ...] = ()
    reusable: bool = False


class Tokens:
    """Mints and verifies for one issuer and one audience."""

    def __init__(
        self, keys: SigningKeys, issuer: str, audience: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def mint(
        self,
        *,
        subject: str,
        agent: str,
        ttl_seconds: int,
        model: str | None = None,
        voice: str | None = None,
        origins: Sequence[str] = (),
        reusable: bool = False,
        session_id: str | None = None,
    ) -> tuple[str, Claims]:
        """A signed token and what it says. ValueError when the claims cannot be put in a token of ours."""
        longest = MAX_REUSABLE_TTL_SECONDS if reusable else MAX_TTL_SECONDS
        if not MIN_TTL_SECONDS <= ttl_seconds <= longest:
            raise ValueError(f"ttl_seconds must be {MIN_TTL_SECONDS} to {longest}, not {ttl_seconds}")
        now = int(self._clock())
        claims = Claims(
            session_id=session_id or new_session_id(),
            jti=secrets.token_urlsafe(16),
            subject=subject,
            agent=agent,
            issued_at=now,
            expires_at=now + ttl_seconds,
            model=model,
            voice=voice,
            origins=tuple(origins),
            reusable=reusable,
        )
        payload = {"iss": self._issuer, "aud": self._audience, **_payload(claims)}
        _parse_claims(payload)
        key = self._keys.signing
        token = jwt.encode(payload, key.private, algorithm=ALGORITHM, headers={"typ": "JWT", "kid": key.kid})
        if len(token) > MAX_TOKEN_BYTES:
            raise ValueError(f"the claims make a token of {len(token)} bytes; at most {MAX_TOKEN_BYTES} are taken")
        return token, claims

    def verify(self, token: str, *, allow_expired: bool = False) -> Claims:
        """What `token` allows; a leading `ek_` is stripped. Raises `Unauthorized` (invalid_token, token_expired)."""
        payload = self._payload_of(token.removeprefix(SECRET_PREFIX))
        try:
            claims, not_before = _parse_claims(payload), _integer(payload, "nbf")
        except ValueError as error:
            raise Unauthorized(reason=str(error)) from None
        now = self._clock()
        if max(claims.issued_at, not_before) > now + LEEWAY_SECONDS:
            raise Unauthorized("The token is not valid yet.", reason="nbf or iat lies ahead")
        if claims.expires_at <= now and not allow_expired:
            raise Unauthorized("The token has expired.", code="token_expired")
        return claims

    def _payload_of(self, token: str) -> Mapping[str, Any]:
        """The signed payload with issuer and audience checked, its other claims not yet."""
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthorized(reason="token too long")
        if not _TOKEN.fullmatch(token):
            raise Unauthorized(reason="not a JWT")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != ALGORITHM or header.get("typ") != "JWT" or "crit" in header:
                raise Unauthorized(reason="alg or typ is not ours")
            kid = header.get("kid")
            key = self._keys.verifying(kid) if isinstance(kid, str) else None
            if key is None:
                raise Unauthorized(reason="unknown kid")
            return jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                # Times are compared below with our own clock, and stricter: PyJWT takes "12" and 12.5 for a time.
                options={
                    "require": list(_REQUIRED),
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthorized(reason=f"{type(error).__name__}: {error}") from None


def _payload(claims: Claims) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "sub": claims.subject,
        "iat": claims.issued_at,
        "nbf": claims.issued_at,
        "exp": claims.expires_at,
        "jti": claims.jti,
        "session_id": claims.session_id,
        "agent": claims.agent,
    }
    optional = {"model": claims.model, "voice": claims.voice, "origins": list(claims.origins)}
    payload.update({name: value for name, value in optional.items() if value})
    if claims.reusable:
        payload["reusable"] = True
    return payload


def _parse_claims(payload: Mapping[str, Any]) -> Claims:
    """The inverse of `_payload`; ValueError when a claim has the wrong shape."""
    origins = payload.get("origins", [])
    if not isinstance(origins, list) or not all(isinstance(item, str) for item in origins):
        raise ValueError("origins is not a list of text")
    reusable = payload.get("reusable", False)
    if not isinstance(reusable, bool):
        raise ValueError("reusable is not a boolean")
    claims = Claims(
        session_id=_text(payload, "session_id"),
        jti=_text(payload, "jti"),
        subject=_text(payload, "sub"),
        agent=_text(payload, "agent"),
        issued_at=_integer(payload, "iat"),
        expires_at=_integer(payload, "exp"),
        model=_text(payload, "model") if "model" in payload else None,
        voice=_text(payload, "voice") if "voice" in payload else None,
        origins=tuple(origins),
        reusable=reusable,
    )
    if not _SESSION_ID.fullmatch(claims.session_id):
        raise ValueError("session_id is not a session id")
    if not _JTI.fullmatch(claims.jti):
        raise ValueError("jti is not one of ours")
    if claims.expires_at <= claims.issued_at:
        raise ValueError("exp is not after iat")
    return claims


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_CLAIM_CHARS:
        raise ValueError(f"{name} is not text of 1 to {_MAX_CLAIM_CHARS} characters")
    return value


def _integer(payload: Mapping[str, Any], name: str) -> int:
    value = payload.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is not a whole number")
    return value


# --- ids --------------------------------------------------------------------------------------


def new_session_id() -> str:
    return _SESSION_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARS))


def call_id(any_id: str) -> str:
    """The call's id for a session's or a call's id. Text that is neither comes back as it is: nothing has that id."""
    return _with_prefix(any_id, _CALL_PREFIX)


def session_id(any_id: str) -> str:
    """The session's id for a session's or a call's id. Text that is neither comes back as it is."""
    return _with_prefix(any_id, _SESSION_PREFIX)


def is_session_id(text: str) -> bool:
    """Whether it has the form of one; only then may it become part of a store's key."""
    return _SESSION_ID.fullmatch(text) is not None


def _with_prefix(any_id: str, prefix: str) -> str:
    match = _ANY_ID.fullmatch(any_id)
    return prefix + match[2] if match else any_id
