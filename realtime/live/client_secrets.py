"""`POST /v1/realtime/client_secrets`: OpenAI's way to a token for a browser.

The same minting as `/v1/ai/realtime/token`, in OpenAI's shape: `ek_` and a JWT, reusable until it
expires, with the session it will start. The beta had two routes for it, `/v1/realtime/sessions` and
`/v1/realtime/transcription_sessions`, which take and give its flat session.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from realtime.live.beta import session_to_beta, session_to_ga
from realtime.live.policy import Policy
from realtime.live.wire import Json, field_path
from token_service.api_keys import ApiKey
from token_service.auth import Authenticator
from token_service.errors import InvalidRequest
from token_service.minting import Minter, MintWish
from token_service.routes import check_origin, read_body

PREFIX = "ek_"
DEFAULT_SECONDS = 600


class ExpiresAfter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=10, le=7200)] = DEFAULT_SECONDS


class SecretRequest(BaseModel):
    """As `openai` sends it; `session` is a realtime or a transcription session."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: Json | None = None


def client_secret_routes(authenticator: Authenticator, minter: Minter, policy: Policy) -> APIRouter:
    router = APIRouter(tags=["realtime"])

    async def admit(request: Request) -> ApiKey:
        key = await authenticator.api_key(request.headers.get("authorization"), "mint")
        check_origin(key, request)
        await minter.check_rate(key, request.client.host if request.client else "")
        return key

    async def secret(key: ApiKey, wish: SecretRequest) -> tuple[str, int, Json]:
        agent = policy.named_agent((wish.session or {}).get("model"))
        model = policy.known_model((wish.session or {}).get("model"))
        minted = await minter.mint(
            key,
            MintWish(agent=agent, model=model, session=wish.session, ttl_seconds=wish.expires_after.seconds),
            reusable=True,
        )
        config = policy.config(
            minted.claims.session_id,
            minted.effective.agent,
            model=policy.known_model(minted.effective.model),
            session=minted.effective.session,
        )
        config.expires_at = 0
        return PREFIX + minted.token, minted.claims.expires_at, config.to_wire()

    async def create(request: Request) -> dict[str, Any]:
        """A secret that starts calls with this session until it expires."""
        key = await admit(request)
        value, expires_at, session = await secret(key, _parse(await read_body(request)))
        return {"value": value, "expires_at": expires_at, "session": session}

    async def create_beta(request: Request) -> dict[str, Any]:
        """The beta's form: its flat session, with the secret inside."""
        key = await admit(request)
        given = session_to_ga(_parse_beta(await read_body(request)))
        if request.url.path.endswith("/transcription_sessions"):
            given["type"] = "transcription"
        value, expires_at, session = await secret(key, SecretRequest(session=given))
        return session_to_beta(session) | {"client_secret": {"value": value, "expires_at": expires_at}}

    router.add_api_route("/v1/realtime/client_secrets", create, methods=["POST"])
    router.add_api_route("/v1/realtime/sessions", create_beta, methods=["POST"])
    router.add_api_route("/v1/realtime/transcription_sessions", create_beta, methods=["POST"])
    return router


def _parse_beta(body: bytes) -> Json:
    try:
        session = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        session = None
    if not isinstance(session, dict):
        raise InvalidRequest("body", "The body is not a JSON object.")
    return session


def _parse(body: bytes) -> SecretRequest:
    try:
        return SecretRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = field_path(first["loc"]) if first["loc"] else "body"
        raise InvalidRequest(param, f"{param}: {first['msg']}") from None
