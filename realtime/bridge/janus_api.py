"""Janus's API over a WebSocket: one session, its handles, requests answered by their transaction.

Janus answers a request with `success` or `error`, a message to a plugin with `ack` and later `event`; what it says
without being asked names the handle (`sender`). A session that is silent for a minute is thrown away, hence
`keepalive`. Source: janus.conf.meetecho.com/docs/rest.html, as Janus 1.1.2 speaks it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
import websockets

SUBPROTOCOL = "janus-protocol"
ANSWER_S = 10.0
KEEPALIVE_S = 20.0
MAX_MESSAGE = 1 << 20

Message = Mapping[str, Any]


class JanusError(Exception):
    """Janus refuses, or is not there."""


class Janus:
    """An open session. `secret`: its `api_secret`, where it has one. Use `connect`."""

    def __init__(self, socket: websockets.ClientConnection, secret: str | None) -> None:
        self._socket = socket
        self._credentials: dict[str, str] = {"apisecret": secret} if secret else {}
        self._session = 0
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._listeners: dict[int, Callable[[Message], None]] = {}

    async def start(self) -> None:
        """Make the session; `run` must be running. Raises `JanusError`."""
        self._session = _id(await self.request({"janus": "create"}))

    async def attach(self, plugin: str, listener: Callable[[Message], None]) -> int:
        """A new handle of a plugin; the listener is told whatever Janus says about it. Raises `JanusError`."""
        handle = _id(await self.request({"janus": "attach", "plugin": plugin}))
        self._listeners[handle] = listener
        return handle

    async def message(self, handle: int, body: Message, jsep: Message | None = None) -> None:
        """For the plugin; what it makes of it is told to the handle's listener. Raises `JanusError`."""
        request: dict[str, Any] = {"janus": "message", "handle_id": handle, "body": body}
        await self.request(request | ({"jsep": jsep} if jsep is not None else {}))

    async def request(self, message: Message) -> Message:
        """The answer, or the acknowledgement. Raises `JanusError`."""
        transaction = f"t{next(self._numbers)}"
        session = {"session_id": self._session} if self._session else {}
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[transaction] = future
        try:
            text = orjson.dumps({**message, **session, **self._credentials, "transaction": transaction}).decode()
            async with asyncio.timeout(ANSWER_S):
                await self._socket.send(text)
                answer = await future
        except (TimeoutError, websockets.ConnectionClosed) as error:
            raise JanusError(f"Janus does not answer: {error or type(error).__name__}") from error
        finally:
            self._waiting.pop(transaction, None)
        if answer.get("janus") == "error":
            said = answer.get("error")
            raise JanusError(f"Janus refuses: {said.get('reason') if isinstance(said, dict) else said}")
        return answer

    async def run(self) -> None:
        """Read until Janus is gone."""
        keeping = asyncio.create_task(self._keep_alive())
        try:
            async for data in self._socket:
                if self._take(data) == "timeout":
                    return
        except websockets.ConnectionClosed:
            pass
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def close(self) -> None:
        """Take the session down, and with it every handle and call."""
        with suppress(JanusError):
            await self.request({"janus": "destroy"})
        await self._socket.close()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            if self._session:
                try:
                    await self.request({"janus": "keepalive"})
                except JanusError:
                    await self._socket.close()
                    return

    def _take(self, data: str | bytes) -> object:
        """What kind of message it was."""
        try:
            message = orjson.loads(data)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(message, dict):
            return None
        future = self._waiting.get(str(message.get("transaction")))
        if future is not None and not future.done():
            future.set_result(message)
        listener = self._listeners.get(message.get("sender", 0))
        if listener is not None:
            listener(message)
        return message.get("janus")


async def connect(url: str, secret: str | None = None) -> Janus:
    """Raises `JanusError`. Then `run` and `start` it."""
    try:
        socket = await websockets.connect(
            url,
            subprotocols=[websockets.Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MAX_MESSAGE,
            open_timeout=ANSWER_S,
        )
    except (OSError, TimeoutError, websockets.WebSocketException) as error:
        raise JanusError(f"no Janus at {url}: {error or type(error).__name__}") from error
    return Janus(socket, secret)


def _id(answer: Message) -> int:
    data = answer.get("data")
    number = data.get("id") if isinstance(data, dict) else None
    if not isinstance(number, int):
        raise JanusError("what answers is not Janus")
    return number
