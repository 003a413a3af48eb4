"""The socket reads on while a few small messages wait, and no further: over real sockets, by a slow application."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import uvicorn
import websockets
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode

from realtime import web_socket_protocol
from realtime.web_socket_protocol import MESSAGES, MOST_WAITING, SLICE, SMALL, WebSocketProtocol
from tests.media.webrtc import until

ONE_READ = 1 << 18
"""Bytes that asyncio reads from a socket at a time."""


class SlowApplication:
    """Takes the first message when `go` is set, then all that come."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.taken: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await self.go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            self.taken.append(message["text"])
            await send({"type": "websocket.send", "text": str(len(self.taken))})


@asynccontextmanager
async def serving(application: SlowApplication | ByCall) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    config = uvicorn.Config(
        application,
        port=0,
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}", server
    finally:
        application.go.set()
        server.force_exit = True
        await server.shutdown()


def only(server: uvicorn.Server) -> WebSocketProtocol:
    (protocol,) = server.server_state.connections
    assert isinstance(protocol, WebSocketProtocol)
    return protocol


@pytest.mark.parametrize(("size", "fewest"), [(SMALL, MOST_WAITING), (ONE_READ, 1)], ids=["small", "large"])
async def test_reading_stops_while_messages_wait_and_all_arrive_in_order(size: int, fewest: int) -> None:
    application = SlowApplication()
    sent = [str(number).ljust(size) for number in range(60)]
    async with serving(application) as (url, server), websockets.connect(url) as socket:

        async def send() -> None:
            for text in sent:
                await socket.send(text)

        sending = asyncio.create_task(send())
        await until(lambda: only(server).read_paused, "reading stopped")
        # One read of the socket may end more than one message; none is read after it.
        assert fewest <= only(server).queue.qsize() <= fewest + ONE_READ // size
        application.go.set()
        async with asyncio.timeout(10):
            while await socket.recv() != "60":
                pass
        await sending
    assert application.taken == sent


async def test_it_goes_on_reading_while_fewer_wait() -> None:
    application = SlowApplication()
    async with serving(application) as (url, server), websockets.connect(url) as socket:
        for number in range(MOST_WAITING - 1):
            await socket.send(str(number))
        await until(lambda: only(server).queue.qsize() == MOST_WAITING - 1, "all had come")
        assert not only(server).read_paused


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Wire(asyncio.Transport):
    """Where a protocol writes; it is never read from."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return self.written.endswith(b"<closed>")

    def is_reading(self) -> bool:
        return True

    def close(self) -> None:
        self.written += b"<closed>"

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def told(kind: type[WebSocketsSansIOProtocol], reads: list[bytes]) -> tuple[list[Any], bytes]:
    """What the application is given of these reads, and what the other side is answered."""
    accepted, over = asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        accepted.set()
        await over.wait()

    config = uvicorn.Config(application, ws_per_message_deflate=False, ws_max_size=70_000, log_level="critical")
    config.load()
    protocol, wire = kind(config, ServerState(), {}), Wire()
    protocol.connection_made(wire)
    protocol.data_received(HANDSHAKE)
    await accepted.wait()
    wire.written = b""
    for read in reads:
        if wire.is_closing():  # a transport hands on nothing more once it is closed
            break
        try:
            protocol.data_received(read)
        except InvalidState:  # uvicorn closes twice, for two messages of one read that are no UTF-8
            break
        await until(lambda: not getattr(protocol, "_rest", b""), "parsed")
    given = [protocol.queue.get_nowait() for _ in range(protocol.queue.qsize())]
    answered = wire.written
    over.set()
    await asyncio.gather(*protocol.tasks)
    protocol.connection_lost(None)
    return given, answered


def framed(opcode: Opcode, data: bytes, fin: bool, odd: int) -> bytes:
    control = opcode is Opcode.PING
    frame = Frame(opcode, data[:125] if control else data, fin or control).serialize(mask=True)
    return bytes([frame[0] ^ odd]) + frame[1:]


def frames() -> st.SearchStrategy[bytes]:
    """Mostly whole messages; some in parts, some that no client may send."""
    data = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536]).map(b"x".__mul__) | st.binary(max_size=140)
    kinds = st.sampled_from([Opcode.TEXT] * 4 + [Opcode.BINARY, Opcode.CONT, Opcode.PING])
    whole = st.builds(framed, kinds, data, st.sampled_from([True] * 5 + [False]), st.just(0))
    odd = st.builds(framed, kinds, data, st.booleans(), st.sampled_from([0x40, 0x0F])) | st.binary(max_size=20)
    closing = st.just(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
    return st.one_of(*[whole] * 5, odd, closing)


@given(
    reads=st.lists(
        st.tuples(frames(), st.lists(st.integers(0, 400), max_size=2), st.booleans()), min_size=1, max_size=8
    )
)
@example([(framed(Opcode.TEXT, b"", True, 0), [], False), (framed(Opcode.TEXT, b"x" * 65_535, True, 0), [], True)])
@example([(framed(Opcode.TEXT, b"x" * 65_535, True, 0), [], False), (b"\0\0", [], True)])
@example([(framed(Opcode.TEXT, b"part", False, 0), [], False), (framed(Opcode.TEXT, b"whole", True, 0), [], False)])
def test_whatever_comes_is_understood_as_by_uvicorn(reads: list[tuple[bytes, list[int], bool]]) -> None:
    pieces: list[bytes] = [b""]
    for data, cuts, joins in reads:
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        parts = [data[start:end] for start, end in pairwise(places)]
        pieces = [*pieces[:-1], pieces[-1] + parts[0], *parts[1:]] if joins else [*pieces, *parts]
    pieces = [piece for piece in pieces if piece]
    ours, theirs = (asyncio.run(told(kind, pieces)) for kind in (WebSocketProtocol, WebSocketsSansIOProtocol))
    if (
        ours != theirs
    ):  # after a mistake: uvicorn gives nothing of a read that has one, here what comes before it counts
        given, fewer = ([one for one in told if one["type"] == "websocket.receive"] for told, _ in (ours, theirs))
        assert len(given) < len(ours[0])
        assert len(fewer) < len(theirs[0])
        assert given[: len(fewer)] == fewer


async def test_a_whole_small_message_does_not_go_through_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    application = SlowApplication()
    application.go.set()
    async with serving(application) as (url, server), websockets.connect(url) as socket:
        await socket.send("1")
        assert await socket.recv() == "1"
        monkeypatch.setattr(only(server).conn, "receive_data", parsed.append)
        await socket.send("2")
        assert await socket.recv() == "2"
        monkeypatch.undo()
    assert application.taken == ["1", "2"]
    assert parsed == []


class ByCall:
    """Takes its messages by the extension, and says so at the end."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.taken: list[str | bytes] = []
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await self.go.wait()
        scope["extensions"][MESSAGES](self.taken.append)
        self.ended = await receive()
        self.over.set()


async def raw(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket after its handshake, to write any bytes to."""
    host, _, port = url.removeprefix("ws://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def on_the_wire(chance: random.Random) -> tuple[bytes, list[str | bytes]]:
    """Messages of all sizes and shapes with pings between them, and what they hold."""
    wire, held = b"", []
    for number in range(40):
        size = chance.choice((0, 5, 125, 126, 300, SMALL, SMALL + 1, 70_000))
        text = f"{number} ä".ljust(size, "x")
        is_text = chance.random() < 0.7
        held.append(text if is_text else text.encode())
        payload, opcode = text.encode(), Opcode.TEXT if is_text else Opcode.BINARY
        if chance.random() < 0.2:
            cut = chance.randrange(len(payload) + 1)
            wire += Frame(opcode, payload[:cut], fin=False).serialize(mask=True)
            wire += Frame(Opcode.PING, b"between").serialize(mask=True)
            wire += Frame(Opcode.CONT, payload[cut:]).serialize(mask=True)
        else:
            wire += Frame(opcode, payload).serialize(mask=True)
        if chance.random() < 0.2:
            wire += Frame(Opcode.PING, b"?").serialize(mask=True)
    return wire, held


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("late", [False, True], ids=["at once", "after some have come"])
async def test_messages_of_every_shape_arrive_by_call_however_the_bytes_come(seed: int, late: bool) -> None:
    chance, application = random.Random(seed), ByCall()
    wire, held = on_the_wire(chance)
    async with serving(application) as (url, server):
        _, writer = await raw(url)
        if late:
            writer.write(wire)
            await until(lambda: only(server).read_paused, "messages wait")
            application.go.set()
        else:
            application.go.set()
            while wire:
                size = chance.choice((1, 2, 3, 7, 100, 400, 5000))
                writer.write(wire[:size])
                wire = wire[size:]
                await asyncio.sleep(0)
        await until(lambda: len(application.taken) == len(held), "all arrived")
        assert application.taken == held
        writer.write(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        async with asyncio.timeout(5):
            await application.over.wait()
        assert application.ended == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
        writer.close()


@pytest.mark.parametrize(
    "bad",
    [
        Frame(Opcode.TEXT, b"\xff").serialize(mask=True),
        Frame(Opcode.TEXT, b"not masked").serialize(mask=False),
        b"\xc1" + Frame(Opcode.TEXT, b"reserved").serialize(mask=True)[1:],
        Frame(Opcode.CONT, b"of nothing").serialize(mask=True),
        Frame(Opcode.TEXT, b"part", fin=False).serialize(mask=True) + Frame(Opcode.TEXT, b"x").serialize(mask=True),
        b"\x83\x80\0\0\0\0",
        b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0",
    ],
    ids=["utf-8", "unmasked", "reserved bit", "continuation", "text within text", "opcode", "a terabyte"],
)
@pytest.mark.parametrize("by_call", [True, False])
async def test_frames_against_the_protocol_end_the_socket_and_give_nothing(bad: bytes, by_call: bool) -> None:
    application = ByCall() if by_call else SlowApplication()
    application.go.set()
    good = Frame(Opcode.TEXT, b"good").serialize(mask=True)
    async with serving(application) as (url, _):
        reader, writer = await raw(url)
        writer.write(good)
        await until(lambda: application.taken == ["good"], "what was right arrived")
        writer.write(bad + good)
        async with asyncio.timeout(5):
            await reader.read()  # to its end
        assert application.taken == ["good"]
        writer.close()


@pytest.mark.parametrize("by_call", [True, False])
async def test_a_read_of_many_tiny_frames_is_parsed_in_several_turns(
    by_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_socket_protocol, "TURN_S", -1.0)  # each slice is a turn
    application = ByCall() if by_call else SlowApplication()
    application.go.set()
    sent = [str(number % 10) for number in range(5000)]
    wire = b"".join(Frame(Opcode.TEXT, text.encode()).serialize(mask=True) for text in sent)
    async with serving(application) as (url, server):
        _, writer = await raw(url)
        await until(lambda: only(server).handshake_complete and only(server)._rest == b"", "the socket is open")
        protocol = only(server)
        protocol.data_received(wire)
        turns = 0
        while protocol._rest:
            assert not protocol.transport.is_reading(), "nothing more is read meanwhile"
            turns += 1
            await asyncio.sleep(0)
        assert turns >= len(wire) // SLICE
        await until(lambda: len(application.taken) == len(sent), "all arrived")
        assert application.taken == sent
        await until(protocol.transport.is_reading, "it is read again")
        writer.close()


async def test_pings_of_a_client_that_reads_nothing_fill_no_memory() -> None:
    application = ByCall()
    application.go.set()
    async with serving(application) as (url, server):
        reader, writer = await raw(url)
        await until(lambda: only(server).handshake_complete, "the socket is open")
        protocol = only(server)
        for end, buffer in ((protocol.transport, socket.SO_SNDBUF), (writer.transport, socket.SO_RCVBUF)):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 4096)  # so that little fills it
        pings = Frame(Opcode.PING, bytes(125)).serialize(mask=True) * 500
        async with asyncio.timeout(60):
            while protocol.writable.is_set():
                writer.write(pings)
                await asyncio.sleep(0)
            most = protocol.transport.get_write_buffer_size()
            writer.write(pings * 5 + Frame(Opcode.TEXT, b"and?").serialize(mask=True))
            await until(lambda: application.taken == ["and?"], "it is heard all the while", 30)
            assert protocol.transport.get_write_buffer_size() <= most
            writer.write(Frame(Opcode.PING, b"the last").serialize(mask=True))
            said = b""
            while not said.endswith(b"\x8a\x08the last"):
                said = said[-20:] + await reader.read(1 << 20)
        writer.close()


@pytest.mark.parametrize("part", [b"", b"x"])
async def test_a_message_of_endless_parts_ends_the_socket(part: bytes) -> None:
    application = ByCall()
    application.go.set()
    async with serving(application) as (url, _):
        reader, writer = await raw(url)
        writer.write(Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True))
        writer.write(Frame(Opcode.CONT, part, fin=False).serialize(mask=True) * web_socket_protocol.MOST_PARTS)
        async with asyncio.timeout(20):
            said = await reader.read()
        assert said.startswith(b"\x88")
        assert b"16384 parts" in said
        assert application.taken == []
        writer.close()


async def test_who_reads_nothing_for_too_long_is_cut_off_though_it_goes_on_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(WebSocketProtocol, "read_seconds", 0.3)
    application = SlowApplication()
    async with serving(application) as (url, server):
        _, writer = await raw(url)
        await until(lambda: only(server).handshake_complete, "the socket is open")
        protocol = only(server)
        protocol.transport.write(bytes(16 << 20))
        protocol.transport.close()
        await until(lambda: not server.server_state.connections, "a close does not wait for it for ever")
        writer.close()
