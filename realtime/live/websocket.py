"""A call over a WebSocket, and sidebands to any call: OpenAI Realtime's `WS /v1/realtime`.

    wss://host/v1/realtime?model=NAME      a call of its own; NAME may be an agent or a chat model
    wss://host/v1/realtime?call_id=rtc_X   a sideband: the events of a call under way, and control over it

Who may is settled before the upgrade: the key or token comes in `Authorization: Bearer` or, from
browsers, as the sub-protocol `openai-insecure-api-key.KEY` beside `realtime`. Audio may come faster
than it could be spoken, up to `limits.audio_ahead_seconds`; a client that does not read what it is sent is hung up on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from realtime.live import beta, wire
from realtime.live.sessions import Call, Sessions
from realtime.live.socket_leg import MAX_UNSENT_BYTES, AudioError, SocketLeg
from signaling.caller import Caller
from signaling.calls import check_origin, claims_of
from signaling.errors import CallError
from token_service.api_keys import ApiKey
from token_service.auth import Authenticator
from token_service.errors import Forbidden, Unauthorized
from token_service.tokens import Claims, new_session_id
from token_service.used_tokens import ClaimState, UsedTokens

log = logging.getLogger("realtime.live")

KEY_PROTOCOL = "openai-insecure-api-key."
CLOSE_CODES: Mapping[str, int] = {"server_shutdown": 1012, "max_duration": 1001, "slow_reader": 4408}
"""Everything else ends with 1000: openai-python would reconnect after most others."""


class WebSocketRoutes:
    """`load_session`: what was stored with a token when it was minted.

    `audio_ahead_s`: seconds that a client's audio may be ahead of the clock.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticator: Authenticator,
        used_tokens: UsedTokens,
        load_session: Callable[[str], Awaitable[Mapping[str, Any]]],
        *,
        audio_ahead_s: float,
    ) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._used = used_tokens
        self._load_session = load_session
        self._audio_ahead_s = audio_ahead_s

    async def handle(self, socket: WebSocket) -> None:
        caller = await self._authenticator.caller(_credential(socket))
        number = socket.query_params.get("call_id")
        if number is not None:
            await self._sideband(socket, caller, number)
        else:
            await self._call(socket, caller)

    # --- a call of its own --------------------------------------------------------------------

    async def _call(self, socket: WebSocket, caller: ApiKey | Claims) -> None:
        claims = claims_of(caller, socket)
        check_origin(claims, socket)
        model, intent = socket.query_params.get("model"), socket.query_params.get("intent")
        wanted: dict[str, Any] = {"model": model} if model else {}
        wanted |= {"type": "transcription"} if intent == "transcription" else {}
        session = wanted | dict(await self._load_session(claims.session_id))
        with self._sessions.reserve() as place:
            claims = await self._admit(claims)
            leg = SocketLeg()
            call = await self._sessions.open(leg, claims, session, Caller("websocket"), place=place)
            try:
                await socket.accept(_protocol(socket))
            except BaseException:
                await leg.close("failed")
                raise
        leg.open()
        channel = _Channel(socket, old=_is_beta(socket))
        writing = asyncio.create_task(_write_call(channel, leg))
        try:
            await self._read_call(channel, leg, call)
        finally:
            await leg.close("remote_closed")
            await asyncio.gather(writing, return_exceptions=True)

    async def _admit(self, claims: Claims) -> Claims:
        """Use the token up; a reusable one gives each call a session of its own."""
        if claims.reusable:
            return replace(claims, session_id=new_session_id())
        state = await self._used.claim(claims.jti, secrets.token_hex(16), claims.expires_at)
        if state is not ClaimState.FRESH:
            raise Unauthorized("The token has been used.", code="token_used")
        return claims

    async def _read_call(self, channel: _Channel, leg: SocketLeg, call: Call) -> None:
        session, begun = call.session, time.monotonic()
        while leg.closed is None:
            event = await channel.receive(leg)
            if event is None:
                return
            if not isinstance(event, wire.InputAudioBufferAppend):
                session.obey(event)
            elif session.hearing.position_ms / 1000 - (time.monotonic() - begun) > self._audio_ahead_s:
                message = f"The audio is more than {self._audio_ahead_s:g} s ahead of the clock."
                session.obey(wire.WireError(message, code="audio_too_far_ahead", event_id=event.event_id))
            else:
                try:
                    await leg.hear(event.audio)
                except AudioError as error:
                    session.obey(
                        wire.WireError(str(error), code="invalid_value", param="audio", event_id=event.event_id)
                    )

    # --- a sideband ---------------------------------------------------------------------------

    async def _sideband(self, socket: WebSocket, caller: ApiKey | Claims, number: str) -> None:
        call = self._sessions.find(number)
        if isinstance(caller, ApiKey):
            if not caller.allows("calls"):
                raise Forbidden("This needs a key with the scope 'calls'.", code="missing_scope")
        elif call is not None and caller.session_id != call.session_id and caller.jti != call.claims.jti:
            call = None  # to other tokens the call does not exist
        if call is None:
            raise CallError(404, "call_not_found", "There is no such call.")
        await socket.accept(_protocol(socket))
        channel = _Channel(socket, old=_is_beta(socket))
        unsent = _Unsent()
        unsent.put(wire.SessionCreated(session=call.session.config.to_wire()).serialise())
        unwatch = call.session.watch(unsent.put)
        ending = asyncio.create_task(call.session.ended())
        ending.add_done_callback(lambda done: None if done.cancelled() else unsent.close(_for_sideband(done.result())))
        writing = asyncio.create_task(_write_sideband(channel, unsent))
        try:
            await _read_sideband(channel, call, trusted=isinstance(caller, ApiKey))
        finally:
            unwatch()
            ending.cancel()
            unsent.close()
            await asyncio.gather(writing, return_exceptions=True)


def _for_sideband(reason: str) -> str:
    """Why the call ended; that its own client did not read is no fault of the sideband's."""
    return "hangup" if reason == "slow_reader" else reason


def websocket_routes(handlers: WebSocketRoutes) -> APIRouter:
    router = APIRouter()
    for path in ("/v1/realtime", "/v1/ai/realtime"):
        router.add_api_websocket_route(path, handlers.handle)
    return router


class _Channel:
    """The socket as events; `old`: the other side speaks the beta's names."""

    def __init__(self, socket: WebSocket, *, old: bool) -> None:
        self._socket = socket
        self._beta = beta.Beta() if old else None

    async def receive(self, leg: SocketLeg | None = None) -> wire.AnyClientEvent | wire.WireError | None:
        """The next event, or why it is none; None when the other side is gone or `leg` was closed."""
        try:
            message = await self._socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            return None
        if message["type"] != "websocket.receive":
            return None
        text = message.get("text")
        if text is None:
            return wire.WireError("Events are text messages.", code="not_text")
        try:
            return wire.parse(self._beta.to_ga(text) if self._beta else text)
        except wire.WireError as error:
            return error

    async def send(self, text: str) -> None:
        for message in self._beta.from_ga(text) if self._beta else (text,):
            await self._socket.send_text(message)

    async def close(self, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            try:
                await self._socket.close(CLOSE_CODES.get(reason, 1000), reason)
            except RuntimeError:
                log.debug("the socket was closed already")


async def _write_call(channel: _Channel, leg: SocketLeg) -> None:
    try:
        while batch := await leg.unsent():
            for text in batch:
                await channel.send(text)
                leg.written(text)
    except (WebSocketDisconnect, RuntimeError):
        await leg.close("remote_closed")
    finally:
        await channel.close(leg.closed or "hangup")


class _Unsent:
    """Events on their way to a sideband. Bounded: one that does not read is let go."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self.reason: str | None = None

    def put(self, text: str) -> None:
        self._texts.append(text)
        self._bytes += len(text)
        if self._bytes > MAX_UNSENT_BYTES:
            self._texts.clear()
            self.close("slow_reader")
        self._news.set()

    def close(self, reason: str = "hangup") -> None:
        self.reason = self.reason or reason
        self._news.set()

    async def take(self) -> str | None:
        while not self._texts:
            if self.reason is not None:
                return None
            self._news.clear()
            await self._news.wait()
        text = self._texts.popleft()
        self._bytes -= len(text)
        return text


async def _write_sideband(channel: _Channel, unsent: _Unsent) -> None:
    try:
        while (text := await unsent.take()) is not None:
            await channel.send(text)
    except (WebSocketDisconnect, RuntimeError):
        unsent.close()
    finally:
        await channel.close(unsent.reason or "hangup")


async def _read_sideband(channel: _Channel, call: Call, *, trusted: bool) -> None:
    while (event := await channel.receive()) is not None:
        if isinstance(event, wire.InputAudioBufferAppend):
            event = wire.WireError("A sideband brings no audio.", code="unsupported_event", event_id=event.event_id)
        call.session.obey(event, trusted=trusted)


def _credential(socket: WebSocket) -> str | None:
    """The Authorization header, or what a browser has to put among the sub-protocols."""
    header = socket.headers.get("authorization")
    if header is not None:
        return header
    for protocol in socket.scope.get("subprotocols", []):
        if protocol.startswith(KEY_PROTOCOL):
            return f"Bearer {protocol.removeprefix(KEY_PROTOCOL)}"
    return None


def _protocol(socket: WebSocket) -> str | None:
    """Never the one that carries the key."""
    return "realtime" if "realtime" in socket.scope.get("subprotocols", []) else None


def _is_beta(socket: WebSocket) -> bool:
    protocols = socket.scope.get("subprotocols", [])
    return socket.headers.get("openai-beta") == "realtime=v1" or "openai-beta.realtime-v1" in protocols
