"""`POST /v1/ai/realtime/token`: the HTTP face of minting, with its CORS rules.

The order is fixed: credentials and scope, then origin, then limits, and only then is the body read, at
most 64 kB of it. Errors are raised typed and rendered elsewhere; they carry the CORS headers that let
a page see why it was refused. A token is never logged and never cached.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError

from token_service.api_keys import ApiKey, normalise_origin
from token_service.auth import Authenticator
from token_service.errors import AuthError, Forbidden, InvalidRequest, RequestTooLarge
from token_service.minting import Minted, Minter, MintWish
from token_service.tokens import MAX_TTL_SECONDS, MIN_TTL_SECONDS

TOKEN_PATH = "/v1/ai/realtime/token"
MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
"""A body of 64 kB takes a second on a poor line; who takes longer holds a connection for nothing."""
PREFLIGHT_SECONDS = 7200
"""How long a browser may remember a preflight; Chromium remembers two hours at most."""
_EXPOSED = "X-Request-Id, Retry-After"


def _whole(value: object) -> object:
    """JSON has one kind of number: 300.0 is 300."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Name = Annotated[str, Field(min_length=1, max_length=128)]
_Ttl = Annotated[StrictInt, Field(ge=MIN_TTL_SECONDS, le=MAX_TTL_SECONDS), BeforeValidator(_whole)]


class TokenRequest(BaseModel):
    """The body of a token request; every field may be left out, and so may the body."""

    model_config = ConfigDict(extra="forbid")

    model: _Name | None = Field(None, description="A chat model to use instead of the agent's, where it allows that.")
    voice: _Name | None = Field(None, description="A voice to use instead of the agent's, where it allows that.")
    ttl_seconds: _Ttl | None = Field(
        None, description="How long the token can open a call; a call that is open outlives it."
    )
    agent: _Name | None = Field(None, description="Who answers; without it, `default`.")
    session: dict[str, Any] | None = Field(
        None, description="Instructions, tools and turn detection of this session, within what key and agent allow."
    )


class IceServerModel(BaseModel):
    urls: list[str]
    username: str | None = None
    credential: str | None = None


class TokenResponse(BaseModel):
    """`ice_servers` goes into `RTCPeerConnection` as it is; `expires_at` is unix seconds."""

    session_id: str
    token: str
    ice_servers: list[IceServerModel]
    expires_at: int
    agent: str
    model: str | None
    voice: str | None


def token_routes(auth: Authenticator, minter: Minter, *, path: str = TOKEN_PATH) -> APIRouter:
    """The router; the app that includes it renders `AuthError`s, their `headers` included."""
    router = APIRouter(tags=["realtime"])

    async def mint_token(request: Request) -> Response:
        cors = cors_headers(request)
        try:
            key = await auth.api_key(request.headers.get("authorization"), "mint")
            check_origin(key, request)
            await minter.check_rate(key, request.client.host if request.client else "")
            minted = await minter.mint(key, parse_body(await read_body(request)))
        except AuthError as error:
            if error.code != "origin_not_allowed":
                error.with_headers(cors)
            error.with_headers({"Cache-Control": "no-store", "Vary": "Origin"})
            raise
        return Response(
            orjson.dumps(token_answer(minted)),
            media_type="application/json",
            headers={**cors, "Cache-Control": "no-store", "Vary": "Origin"},
        )

    router.add_api_route(
        path,
        mint_token,
        methods=["POST"],
        response_model=TokenResponse,
        operation_id="mint_realtime_token",
        summary="Mint a short-lived token for a live session",
        openapi_extra={
            "requestBody": {
                "required": False,
                "content": {"application/json": {"schema": TokenRequest.model_json_schema()}},
            }
        },
    )
    router.add_api_route(path, preflight, methods=["OPTIONS"], include_in_schema=False)
    return router


async def preflight(request: Request) -> Response:
    """A preflight carries no key, so it answers any origin; the request itself is checked."""
    headers = {
        "Access-Control-Allow-Origin": request.headers.get("origin", "*"),
        "Access-Control-Allow-Methods": "POST, OPTIONS",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        "Allow": "POST, OPTIONS",
        "Vary": "Origin",
    }
    return Response(status_code=204, headers=headers)


def cors_headers(request: Request) -> dict[str, str]:
    """What lets the page that asked read the answer; {} when no page asked."""
    origin = request.headers.get("origin")
    if origin is None:
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED}


def check_origin(key: ApiKey, request: Request) -> None:
    """A page key works from its own pages only, and not without an Origin, which every browser sends here."""
    if not key.in_page:
        return
    origin = request.headers.get("origin")
    if origin is None or normalise_origin(origin) not in key.origins:
        raise Forbidden(
            "This key does not work from this origin.", code="origin_not_allowed", reason=f"origin {origin!r}"
        )


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """The body; `RequestTooLarge` once it is known to be over `limit` bytes, `InvalidRequest` when it does not come."""
    too_large = RequestTooLarge("", f"The body is over {limit} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:12]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise InvalidRequest("", "The body did not arrive in time.", code="request_timeout") from None
    return bytes(body)


def parse_body(body: bytes) -> MintWish:
    """The wish in a request's body; an empty body wishes nothing. `InvalidRequest` names the field."""
    if not body.strip():
        return MintWish()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("", f"The body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(document, dict):
        raise InvalidRequest("", "The body is not a JSON object.", code="invalid_json")
    unknown = [name for name in document if name not in TokenRequest.model_fields]
    if unknown:
        names = ", ".join(f"'{name[:64]}'" for name in unknown[:8])
        known = ", ".join(TokenRequest.model_fields)
        raise InvalidRequest(unknown[0][:64], f"Unknown: {names}. Known are {known}.", code="unknown_field")
    try:
        parsed = TokenRequest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        raise InvalidRequest(field, f"{field}: {first['msg']}.") from None
    return MintWish(parsed.agent, parsed.model, parsed.voice, parsed.session, parsed.ttl_seconds)


def token_answer(minted: Minted) -> dict[str, Any]:
    return {
        "session_id": minted.claims.session_id,
        "token": minted.token,
        "ice_servers": minted.ice_servers,
        "expires_at": minted.claims.expires_at,
        "agent": minted.effective.agent,
        "model": minted.effective.model,
        "voice": minted.effective.voice,
    }
