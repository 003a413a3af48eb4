"""`realtime audiosocket`: takes Asterisk's AudioSocket over TCP and carries each call to a server's socket as it is.

A connection must begin with its call's UUID (`signaling.telephony.audiosocket`), within five seconds; before that the
server hears nothing of it. The server knows the UUID, because the dial plan got it there. What the frames mean, who may
call and how audio is paced is decided there, so a listener may stand anywhere that both sides reach.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress

import websockets

from signaling.telephony.audiosocket import FIRST_FRAME, HANGUP, is_first_frame

log = logging.getLogger("realtime.audiosocket")

FIRST_S = 5.0
"""Seconds for a connection to send its UUID, and for the server to take the call."""
WRITE_S = 10.0
"""Seconds in which Asterisk must read what it is sent."""
MAX_CONNECTIONS = 1000
_CHUNK = 16 << 10


class Listener:
    """`url`: the line's socket, ws or wss. `secret`: the line's."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._open = 0

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Raises OSError when the port cannot be had."""
        return await asyncio.start_server(self._connected, host, port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        try:
            await self._call(reader, writer)
        except (OSError, TimeoutError, EOFError, websockets.WebSocketException) as error:
            log.warning("a call was not carried: %s", _why(error))
            with suppress(OSError):
                writer.write(HANGUP)
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(FIRST_S):
            first = await reader.readexactly(FIRST_FRAME)
        if not is_first_frame(first):
            raise EOFError("a connection that does not begin with a UUID")
        async with websockets.connect(
            self._url,
            additional_headers=self._headers,
            compression=None,
            open_timeout=FIRST_S,
            max_size=1 << 20,
        ) as socket:
            await socket.send(first)
            to_server = asyncio.create_task(_to_server(reader, socket))
            try:
                await _to_asterisk(socket, writer)
            finally:
                to_server.cancel()
                await asyncio.gather(to_server, return_exceptions=True)


async def _to_server(reader: asyncio.StreamReader, socket: websockets.ClientConnection) -> None:
    with suppress(OSError, websockets.ConnectionClosed):
        while data := await reader.read(_CHUNK):
            await socket.send(data)
    await socket.close()


async def _to_asterisk(socket: websockets.ClientConnection, writer: asyncio.StreamWriter) -> None:
    async for message in socket:
        if isinstance(message, bytes):
            writer.write(message)
            async with asyncio.timeout(WRITE_S):
                await writer.drain()


def _why(error: Exception) -> str:
    if isinstance(error, websockets.InvalidStatus):
        return f"the server refused it with HTTP {error.response.status_code}"
    if isinstance(error, asyncio.IncompleteReadError):
        return "the connection ended before its UUID"
    if isinstance(error, TimeoutError):
        return "it took too long"
    return str(error) or type(error).__name__


async def listen(host: str, port: int, listener: Listener) -> None:
    """Until the process is told to stop. Raises OSError when the port cannot be had."""
    server = await listener.start(host, port)
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows, where Ctrl-C raises KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, told.set)
    names = ", ".join(f"{name[0]}:{name[1]}" for name in (each.getsockname() for each in server.sockets))
    log.info("listening for AudioSocket on %s", names)
    async with server:
        await told.wait()
