"""A live call's transport over a WebSocket, with the behaviour of the WebRTC one.

Where UDP does not pass, the same call goes through `WS /v1/ai/realtime`. The server then sends audio
as fast as it is made and leaves playing to us: this plays it out in real time, cuts it when the caller
is heard over it, says so to the server (`conversation.item.truncate`), and tells the application what
it would have been told over WebRTC (`output_audio_buffer.started`, `stopped`, `cleared`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import websockets
from websockets.asyncio.client import ClientConnection, connect

from media.audio import FRAME_OUT, FRAME_S, RATE_IN, RATE_OUT
from media.playout import Playout, PlayoutEvent, PlayoutEventKind
from media.resample import Resampler
from realtime.client.errors import ApiError, ConnectError

if TYPE_CHECKING:
    from media.leg import LegListener

_BURST = 2
"""Frames in one message to the server: 40 ms, as a browser's worklet would send them."""

_MAX_UNSENT = 500
"""Messages waiting for the server to read them, twenty seconds of speech."""

_AHEAD_S = 600.0
"""Seconds of the bot's speech kept: it comes faster than it is spoken."""


class SocketTransport:
    """What `LiveCall` needs of `media.peer.Peer`, over a WebSocket."""

    def __init__(self) -> None:
        self._listener: LegListener | None = None
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._unsent: asyncio.Queue[str] = asyncio.Queue()
        self._speech = Playout()
        self._bot = Playout(capacity_s=_AHEAD_S)
        self._items: dict[int, tuple[str, str]] = {}
        """(response, item) by the generation of its audio."""
        self._down = Resampler(RATE_OUT, RATE_IN)
        self._closed = False
        self._counts = {"texts_sent": 0.0, "texts_received": 0.0}

    @property
    def playout(self) -> Playout:
        """What the caller is to say."""
        return self._speech

    def attach(self, listener: LegListener) -> None:
        self._listener = listener

    def wake(self) -> None:
        """Nothing: the clock of this transport never stops."""

    def stats(self) -> Mapping[str, float]:
        return dict(self._counts)

    def send_text(self, text: str) -> None:
        if orjson.loads(text).get("type") == "output_audio_buffer.clear":
            self._cut()
        else:
            self._unsent.put_nowait(text)

    async def dial(self, base_url: str, token: str, seconds: float) -> None:
        """Open the call. Raises `ConnectError`, `ApiError`."""
        url = base_url.replace("http", "ws", 1) + "/v1/ai/realtime"
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with asyncio.timeout(seconds):
                self._socket = await connect(url, additional_headers=headers, max_size=32 << 20, compression=None)
        except websockets.InvalidStatus as refusal:
            raise _refused(refusal) from None
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise ConnectError(f"{base_url} cannot be reached: {error or type(error).__name__}") from error
        self._reading = asyncio.create_task(self._read())
        self._tasks = [asyncio.create_task(work) for work in (self._write(), self._tick())]
        assert self._listener is not None
        self._listener.on_open()
        self._listener.on_text_open()

    async def close(self, reason: str = "hangup") -> None:
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        if self._socket is not None:
            await self._socket.close()  # `_read` goes on until then: the server's goodbye comes after what it said
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        if self._listener is not None:
            self._listener.on_closed(reason)

    # --- tasks --------------------------------------------------------------------------------

    async def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in self._socket:
                if not self._closed:
                    self._take(orjson.loads(message))
        await self.close("remote_closed")

    async def _write(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self._socket.send(await self._unsent.get())
                self._counts["texts_sent"] += 1

    async def _tick(self) -> None:
        """Both directions in real time: what the caller says goes out, what the bot says is heard."""
        silence = np.zeros(FRAME_OUT, np.int16)
        due = time.monotonic()
        waiting: list[bytes] = []
        while True:
            now = time.monotonic()
            frame, events = self._speech.next_frame(now)
            waiting.append((silence if frame is None else frame).tobytes())
            if len(waiting) == _BURST and self._unsent.qsize() > _MAX_UNSENT:
                waiting.clear()  # the server does not read: late speech is worth less than none
            elif len(waiting) == _BURST:
                audio = base64.b64encode(b"".join(waiting)).decode()
                self._unsent.put_nowait(orjson.dumps({"type": "input_audio_buffer.append", "audio": audio}).decode())
                waiting.clear()
            for event in events:
                if self._listener is not None:
                    self._listener.on_playout(event)
            self._hear(now)
            due = max(due + FRAME_S, now - FRAME_S)  # a stall is not made up for
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _hear(self, now: float) -> None:
        frame, events = self._bot.next_frame(now)
        for event in events:
            self._played(event)
        if frame is not None and self._listener is not None:
            pcm = self._down.push(frame)
            if len(pcm):
                self._listener.on_audio(pcm, now)

    # --- events -------------------------------------------------------------------------------

    def _take(self, event: dict[str, Any]) -> None:
        self._counts["texts_received"] += 1
        match event["type"]:
            case "response.output_audio.delta":
                generation = self._generation(event["response_id"], event["item_id"])
                pcm = np.frombuffer(base64.b64decode(event["delta"]), "<i2").astype(np.int16)
                self._bot.push(generation, pcm)
                return
            case "response.output_audio.done":
                self._bot.finish(self._generation(event["response_id"], event["item_id"]))
            case "input_audio_buffer.speech_started":
                self._tell(event)
                self._cut()
                return
        self._tell(event)

    def _generation(self, response_id: str, item_id: str) -> int:
        pair = (response_id, item_id)
        known = next((generation for generation, named in self._items.items() if named == pair), None)
        if known is None:
            known = max(self._items, default=0) + 1
            self._items[known] = pair
        return known

    def _cut(self) -> None:
        """The caller is heard over the bot, or wants silence: what is left of its speech is never played."""
        for heard in self._bot.cut(max(self._items, default=0)):
            response_id, item_id = self._items[heard.generation]
            if heard.heard_ms > 0:
                self._tell({"type": "output_audio_buffer.cleared", "response_id": response_id})
            truncate = {
                "type": "conversation.item.truncate",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": int(heard.heard_ms),
            }
            self._unsent.put_nowait(orjson.dumps(truncate).decode())

    def _played(self, event: PlayoutEvent) -> None:
        names = {PlayoutEventKind.STARTED: "started", PlayoutEventKind.DONE: "stopped"}
        name = names.get(event.kind)
        if name is not None and (event.kind is PlayoutEventKind.STARTED or event.heard_ms > 0):
            response_id, _ = self._items[event.generation]
            self._tell({"type": f"output_audio_buffer.{name}", "response_id": response_id})

    def _tell(self, event: dict[str, Any]) -> None:
        if self._listener is not None:
            self._listener.on_text(orjson.dumps(event).decode())


def _refused(refusal: websockets.InvalidStatus) -> ApiError:
    response = refusal.response
    try:
        problem = orjson.loads(response.body or b"")["error"]
        code, message = str(problem["code"]), str(problem["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, message = "http_error", response.reason_phrase
    return ApiError(response.status_code, code, message, response.headers.get("x-request-id"))
