"""The `sessions` routes: list, look at, read, and end calls with an API key of scope `calls`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from realtime.live.sessions import Call, Sessions
from token_service.api_keys import ApiKey
from token_service.auth import Authenticator
from token_service.tokens import session_id
from token_service.used_tokens import UsedTokens

PREFIX = "/v1/ai/realtime/sessions"


def session_routes(sessions: Sessions, authenticator: Authenticator, used_tokens: UsedTokens) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["sessions"])

    async def authorise(request: Request) -> ApiKey:
        return await authenticator.api_key(request.headers.get("authorization"), "calls")

    @router.get("")
    async def list_sessions(request: Request) -> dict[str, Any]:
        """Calls under way, oldest first."""
        await authorise(request)
        return {"object": "list", "data": [_shown(call) for call in sessions]}

    @router.get("/{id}")
    async def get_session(id: str, request: Request) -> dict[str, Any]:
        """One call under way, by session or call id."""
        await authorise(request)
        call = sessions.find(id)
        if call is None:
            raise HTTPException(404, "There is no such call under way.")
        return _shown(call)

    @router.get("/{id}/transcript")
    async def get_transcript(id: str, request: Request) -> dict[str, Any]:
        """What was said and heard, during the call and while it is retained afterwards."""
        await authorise(request)
        found = await sessions.transcript(id)
        if found is None:
            raise HTTPException(404, "There is no transcript of such a call.")
        return found

    @router.delete("/{id}/transcript")
    async def delete_transcript(id: str, request: Request) -> Response:
        """Delete what is kept of a call that is over. 204 either way."""
        await authorise(request)
        await sessions.forget(id)
        return Response(status_code=204)

    @router.delete("/{id}")
    async def delete_session(id: str, request: Request) -> Response:
        """End the call, if there is one, and revoke the session's token. 204 either way."""
        await authorise(request)
        await used_tokens.revoke(session_id(id))
        await sessions.close(id, "ended_by_api")
        return Response(status_code=204)

    return router


def _shown(call: Call) -> dict[str, Any]:
    config = call.session.config
    return {
        "object": "realtime.call",
        "session_id": call.session_id,
        "call_id": call.id,
        "agent": config.agent,
        "model": config.data["model"],
        "voice": config.voice,
        "subject": call.claims.subject,
        "caller": asdict(call.caller),
        "opened_at": round(call.opened_at, 3),
        "seconds": round(time.time() - call.opened_at, 1),
        "items": len(call.session.conversation.history),
        "media": dict(call.leg.stats()),
    }
