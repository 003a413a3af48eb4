"""Carriers' sockets that send what no carrier would, on a running server: each is ended alone, nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import orjson
import pytest
import websockets

from tests.calls import carriers
from tests.calls.dialects import Answer, Dialect
from tests.calls.neighbour import Neighbour
from tests.calls.server import Server
from tests.calls.test_carriers import AUDIOSOCKET, CONFIG, DIALECTS, ENVIRON, listener

Socket = websockets.ClientConnection
SOCKETS = [name for name in DIALECTS if name != "audiosocket"]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bad")
    with Server(folder, "--engines", "instant", config=CONFIG, environ=ENVIRON) as running, listener(running):
        yield running
        assert "Traceback" not in running.log()
        assert "Traceback" not in (folder / "listener.log").read_text()


async def connect(line: Server, dialect: Dialect, call_id: str) -> tuple[Socket, Answer]:
    status, document = await carriers.announce(line, dialect, call_id)
    assert status == 200, document
    answer = dialect.answer(document)
    opened = websockets.connect(
        answer.url,
        additional_headers=answer.headers,
        subprotocols=dialect.subprotocols,  # type: ignore[arg-type]
    )
    return await opened, answer


def flipped(message: str | bytes) -> str | bytes:
    """As binary what is text, and as text what is binary."""
    return message.encode() if isinstance(message, str) else message.decode("latin-1")


Hostile = Callable[[str | bytes, str | bytes], list[str | bytes]]
AFTER_START: dict[str, Hostile] = {
    "a second start": lambda start, audio: [start],
    "a start cut short": lambda start, audio: [start[: len(start) // 2]],
    "audio cut short, of an odd length": lambda start, audio: [audio[:-7]],
    "text as binary and binary as text": lambda start, audio: [flipped(audio)],
    "too large": lambda start, audio: ["x" * 100_000],
    "much too large": lambda start, audio: [b"\0" * 5_000_000],
    "nested without end": lambda start, audio: ['{"event":' * 10_000],
    "an empty message": lambda start, audio: ["", b""],
    "numbers out of all range": lambda start, audio: [
        '{"event":"media","media":{"chunk":"' + "9" * 300 + '","timestamp":-1e999,"payload":"AAAA"}}',
        '{"event":"media","media":{"chunk":-5,"timestamp":[],"payload":""}}',
        "MEDIA_MARK_PROCESSED " + "9" * 5000,
        "DTMF_END digit:",
    ],
    "control before and after stop": lambda start, audio: ['{"event":"stop"}', audio, start, "MEDIA_XOFF", audio],
    "a flood": lambda start, audio: [audio] * 2000,
}


async def hostile(line: Server, name: str, what: str) -> None:
    """The call opens, the messages are sent, and whatever becomes of it the server lets go of it."""
    dialect = DIALECTS[name]
    opened, answer = await connect(line, dialect, f"{what}-{name}")
    try:
        [*_, start] = dialect.start(f"{what}-{name}", answer)
        audio = dialect.audio(carriers.SILENCE[: dialect.rate // 50])
        await opened.send(start)
        for message in AFTER_START[what](start, audio):
            await opened.send(message)
    except websockets.ConnectionClosed:
        pass
    finally:
        await opened.close()


async def test_whatever_is_sent_after_start_ends_that_call_alone(line: Server) -> None:
    with Neighbour(line) as neighbour:
        for what in AFTER_START:
            await asyncio.gather(*(hostile(line, name, what) for name in SOCKETS))
            neighbour.check()
        await line.until_calls(1)
        neighbour.end()
    assert "Traceback" not in line.log()


async def test_what_comes_before_start_opens_no_call(line: Server) -> None:
    for name in SOCKETS:
        dialect = DIALECTS[name]
        for at, first in enumerate((dialect.audio(carriers.SILENCE[:160]), dialect.key("5"), "", b"\0", "{}", "[[[[")):
            opened, _ = await connect(line, dialect, f"early-{name}-{at}")
            with suppress(websockets.ConnectionClosed):
                for _ in range(10):
                    await opened.send(first)
            await asyncio.wait_for(opened.wait_closed(), 5)
            assert opened.close_code == 1002, (name, first)
    assert await line.sessions() == []


async def test_who_never_starts_is_let_go_after_five_seconds(line: Server) -> None:
    async def silent_socket(name: str) -> float:
        opened, _ = await connect(line, DIALECTS[name], f"silent-{name}")
        began = time.monotonic()
        await asyncio.wait_for(opened.wait_closed(), 15)
        assert opened.close_code == 1008
        return time.monotonic() - began

    async def silent_tcp() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", AUDIOSOCKET.port)
        began = time.monotonic()
        writer.write(b"\x01\x00")
        assert await asyncio.wait_for(reader.read(), 15) in (b"", b"\x00\x00\x00")
        writer.close()
        return time.monotonic() - began

    waited = await asyncio.gather(*(silent_socket(name) for name in ("telnyx", "vonage", "asterisk")), silent_tcp())
    assert min(waited) > 4.5, "five seconds, no less"


@pytest.mark.parametrize(
    "first",
    [
        b"\x01\x00\x10" + bytes(16),
        b"\x10\x01\x40" + bytes(320),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x01\xff\xff" + bytes(100),
        b"\x00\x00\x00",
    ],
    ids=["unknown UUID", "audio first", "HTTP", "long UUID", "end first"],
)
async def test_what_is_no_announced_call_is_hung_up_on(line: Server, first: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", AUDIOSOCKET.port)
    writer.write(first)
    if len(first) < 19:
        writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) in (b"", b"\x00\x00\x00")
    writer.close()
    assert await line.sessions() == []


async def test_a_connection_that_breaks_off_in_the_middle_of_a_frame_ends_its_call(line: Server) -> None:
    _, token = await carriers.announce(line, AUDIOSOCKET, "broken")
    [start] = AUDIOSOCKET.start("broken", Answer("", token, token))
    assert isinstance(start, bytes)
    _, writer = await asyncio.open_connection("127.0.0.1", AUDIOSOCKET.port)
    writer.write(start + b"\x10\x01")
    await line.until_calls(1)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
    await line.until_calls(0)


async def test_an_unknown_event_is_passed_over(line: Server) -> None:
    async with carriers.ring(line, DIALECTS["telnyx"], "future") as phone:
        for message in ({"event": "of the future", "x": {"y": [1]}}, {"event": None}, {}):
            await phone.socket.send(orjson.dumps(message).decode())
        await line.until_calls(1)
        for _ in range(100):
            [call] = await line.sessions()
            if call["media"]["messages_received"] > 10:
                break
            await asyncio.sleep(0.05)
        assert call["media"]["messages_received"] > 10, "the call goes on"
    await line.until_calls(0)
