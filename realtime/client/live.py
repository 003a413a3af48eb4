"""A live call, as an async context manager: audio in, audio and events out.

Over WebRTC the call is held by the same `media.peer.Peer` that the server uses, in the offering role:
what is sent is paced at 20 ms, what arrives is reordered and concealed. Everything that waits for the
application is bounded; an application that does not read loses the oldest audio, never the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from realtime.client.errors import ApiError, CallEnded, ConnectError
from realtime.client.http import Http, api_key_from, base_url_from

if TYPE_CHECKING:
    from media.audio import Pcm
    from media.peer import Peer
    from media.playout import PlayoutEvent
    from realtime.client.socket import SocketTransport

MAX_EVENTS = 10_000
"""Unread events kept, about an hour of talk."""

MAX_AUDIO_PIECES = 3_000
"""Unread pieces of audio kept, one minute."""


Transport: TypeAlias = Literal["webrtc", "websocket"]


@asynccontextmanager
async def connect(
    base_url: str | None = None,
    *,
    api_key: str | None = None,
    token: str | None = None,
    agent: str | None = None,
    model: str | None = None,
    voice: str | None = None,
    session: Mapping[str, Any] | None = None,
    transport: Transport = "webrtc",
    connect_seconds: float = 15.0,
) -> AsyncIterator[LiveCall]:
    """Hold a call; leaving the block hangs up.

    `token`: one minted elsewhere (`agent`, `model`, `voice` and `session` are then in it already);
    otherwise `api_key` mints one. `transport`: `websocket` where UDP does not pass, with the same
    behaviour. Raises `ConnectError`, `ApiError`.
    """
    url = base_url_from(base_url)
    async with Http(url) as http:
        if token is None:
            wish = {"agent": agent, "model": model, "voice": voice, "session": session}
            wish = {name: value for name, value in wish.items() if value is not None}
            token = str((await http.mint(api_key_from(api_key), wish))["token"])
        dial = _over_websocket if transport == "websocket" else _over_webrtc
        async with dial(http, url, token, connect_seconds) as call:
            yield call


@asynccontextmanager
async def _over_websocket(_: Http, url: str, token: str, seconds: float) -> AsyncIterator[LiveCall]:
    from realtime.client.socket import SocketTransport

    socket = SocketTransport()
    call = LiveCall(socket)
    try:
        await socket.dial(url, token, seconds)
        yield call
    finally:
        await socket.close("hangup")


@asynccontextmanager
async def _over_webrtc(http: Http, url: str, token: str, seconds: float) -> AsyncIterator[LiveCall]:
    from media.network import Network
    from media.pacer import Pacer
    from media.peer import NegotiationError, Peer

    pacer = Pacer()
    pacer.start()
    network = Network(include_loopback=True)
    peer = Peer(network=network, pacer=pacer, connect_seconds=seconds, send_silence=True, counts_text=False)
    call = LiveCall(peer)
    location: str | None = None
    try:
        answer = await http.offer(token, await peer.offer())
        location = answer.location
        await peer.accept(answer.sdp)
        await call.opened(seconds)
        yield call
    except NegotiationError as error:
        raise ConnectError(f"the server's answer cannot be used: {error.message}") from error
    finally:
        if location is not None and call.closed is None:
            await _hang_up(http, token, location)
        await peer.close("hangup")
        pacer.stop()


async def _hang_up(http: Http, token: str, location: str) -> None:
    """Say so, and then leave: the server need not wonder why the packets stopped."""
    with contextlib.suppress(ApiError, ConnectError):
        await http.hang_up(token, location)


class LiveCall:
    """A call under way. Made by `connect`; reading and writing may happen in different tasks."""

    def __init__(self, peer: Peer | SocketTransport) -> None:
        self._peer = peer
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._audio: deque[tuple[Pcm, float]] = deque(maxlen=MAX_AUDIO_PIECES)
        self._news = asyncio.Event()
        self._audio_news = asyncio.Event()
        self._open = asyncio.Event()
        self._text_open = asyncio.Event()
        self._spoken = asyncio.Event()
        self._ended = asyncio.Event()
        self._session_id: str | None = None
        self._closed: str | None = None
        self._utterance = 0
        peer.attach(self)

    @property
    def session_id(self) -> str | None:
        """Known once `session.created` has arrived."""
        return self._session_id

    @property
    def closed(self) -> str | None:
        """Why the call ended; None while it is under way."""
        return self._closed

    async def ended(self) -> str:
        """Wait until the call is over; why it ended."""
        await self._ended.wait()
        return self._closed or "closed"

    def stats(self) -> Mapping[str, float]:
        return self._peer.stats()

    # --- to the server ------------------------------------------------------------------------

    async def send(self, event: Mapping[str, Any]) -> None:
        """One OpenAI Realtime client event. Raises `CallEnded`."""
        import orjson

        self._require_open()
        self._peer.send_text(orjson.dumps(event).decode())

    async def say(self, text: str) -> None:
        """Typed text as the caller's turn, and ask for the answer."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send({"type": "conversation.item.create", "item": item})
        await self.send({"type": "response.create"})

    def send_audio(self, pcm: Pcm) -> None:
        """Queue 24 kHz mono int16 samples; they leave at the speed of speech, after what was queued before.

        At most 60 s may be queued (`media.playout.PlayoutFull`). Raises `CallEnded`.
        """
        self._require_open()
        if self._utterance == 0:
            self._utterance = 1
        self._peer.playout.push(self._utterance, pcm)
        self._peer.wake()

    async def audio_sent(self) -> None:
        """Wait until everything queued has left."""
        self._require_open()
        if self._utterance:
            self._spoken.clear()
            self._peer.playout.finish(self._utterance)
            self._peer.wake()
            self._utterance += 1
            await self._wait(self._spoken)

    # --- from the server ----------------------------------------------------------------------

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Server events in order, until the call ends."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed is not None:
                return
            self._news.clear()
            await self._news.wait()

    async def wait_for(self, *types: str, timeout: float = 30.0) -> dict[str, Any]:
        """The next event of one of these types; earlier ones are dropped. Raises `TimeoutError`, `CallEnded`."""
        async with asyncio.timeout(timeout):
            async for event in self.events():
                if event["type"] in types:
                    return event
        raise CallEnded(self._closed or "closed")

    async def audio(self) -> AsyncIterator[tuple[Pcm, float]]:
        """What the bot says: (16 kHz mono int16 samples, monotonic seconds of arrival), until the call ends."""
        while True:
            while self._audio:
                yield self._audio.popleft()
            if self._closed is not None:
                return
            self._audio_news.clear()
            await self._audio_news.wait()

    # --- the leg's listener -------------------------------------------------------------------

    def on_open(self) -> None:
        self._open.set()

    def on_text_open(self) -> None:
        self._text_open.set()

    def on_audio(self, pcm: Pcm, arrived_at: float) -> None:
        self._audio.append((pcm, arrived_at))
        self._audio_news.set()

    def on_text(self, text: str) -> None:
        import orjson

        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            return
        if not isinstance(event, dict):
            return
        event["received_at"] = time.monotonic()
        if event.get("type") == "session.created":
            self._session_id = event["session"]["id"]
        self._events.append(event)
        self._news.set()

    def on_key(self, key: str) -> None:
        return

    def on_text_refused(self, code: str, detail: str) -> None:
        return

    def on_playout(self, event: PlayoutEvent) -> None:
        if event.kind.value == "done":
            self._spoken.set()

    def on_closed(self, reason: str) -> None:
        self._closed = reason
        for waiting in (self._news, self._audio_news, self._open, self._text_open, self._spoken, self._ended):
            waiting.set()

    async def opened(self, seconds: float) -> None:
        """Wait until audio and events flow. Raises `ConnectError`."""
        try:
            async with asyncio.timeout(seconds):
                await self._open.wait()
                await self._text_open.wait()
        except TimeoutError:
            raise ConnectError("no media path to the server: is UDP blocked, or its public address unset?") from None
        if self._closed is not None:
            raise ConnectError(f"the call did not come up: {self._closed}")

    async def _wait(self, event: asyncio.Event) -> None:
        await event.wait()
        self._require_open()

    def _require_open(self) -> None:
        if self._closed is not None:
            raise CallEnded(self._closed)
