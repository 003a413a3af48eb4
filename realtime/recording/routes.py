"""The recording of a call over HTTP, with an API key of scope `calls`: look, pause, resume, delete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from realtime.recording.recordings import Recording, Recordings, State
from token_service.auth import Authenticator
from token_service.tokens import session_id

PREFIX = "/v1/ai/realtime/sessions/{id}/recording"


def recording_routes(recordings: Recordings, authenticator: Authenticator) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["sessions"])

    async def authorise(request: Request) -> None:
        await authenticator.api_key(request.headers.get("authorization"), "calls")

    def under_way(id: str) -> Recording:
        recording = recordings.under_way(session_id(id))
        if recording is None or recording.state is not State.WRITING:
            raise HTTPException(404, "No such call is being recorded.")
        return recording

    @router.get("")
    async def get_recording(id: str, request: Request) -> dict[str, Any]:
        """During the call its state; afterwards, while it is kept, a link that expires."""
        await authorise(request)
        recording = recordings.under_way(session_id(id))
        found = _shown(recording) if recording is not None else await recordings.find(session_id(id))
        if found is None:
            raise HTTPException(404, "There is no recording of such a call.")
        return {"object": "realtime.recording", "session_id": session_id(id), **found}

    @router.post("/pause")
    async def pause_recording(id: str, request: Request) -> dict[str, Any]:
        """From now on both tracks are silent; time goes on."""
        await authorise(request)
        recording = under_way(id)
        recording.pause()
        return {"object": "realtime.recording", "session_id": session_id(id), **_shown(recording)}

    @router.post("/resume")
    async def resume_recording(id: str, request: Request) -> dict[str, Any]:
        """Record again."""
        await authorise(request)
        recording = under_way(id)
        recording.resume()
        return {"object": "realtime.recording", "session_id": session_id(id), **_shown(recording)}

    @router.delete("")
    async def delete_recording(id: str, request: Request) -> Response:
        """For good. Of a call under way, what was recorded is deleted and nothing more is. 204 either way."""
        await authorise(request)
        await recordings.delete(session_id(id))
        return Response(status_code=204)

    return router


def _shown(recording: Recording) -> dict[str, Any]:
    status = recording.state.value
    if recording.state is State.WRITING:
        status = "paused" if recording.is_paused else "recording"
    return {"status": status, **recording.facts()}
