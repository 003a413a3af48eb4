"""What a stream sends while nothing comes, how it ends, and that leaving is noticed. The interval is short here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from realtime.gateway.sse import COMMENT, KEEP_ALIVE_S, EventStream, RecordedStream, Recording

DEADLINE_S = 5.0


class Quick(EventStream):
    """Comments after a hundredth of a second of silence."""

    def __init__(self, recording: Recording, left: list[bool]) -> None:
        RecordedStream.__init__(
            self, recording, lambda: left.append(True), media_type="text/event-stream", keep_alive_s=0.01
        )


class Wire:
    """Both ends of one request in ASGI's terms."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ended = False
        self.gone = asyncio.Event()
        self.sent = asyncio.Condition()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        async with self.sent:
            if message["type"] == "http.response.body":
                self.bodies.append(message["body"])
                self.ended = not message["more_body"]
            self.sent.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S), self.sent:
            await self.sent.wait_for(lambda: len(self.bodies) >= count)


def test_proxies_give_up_after_30_seconds_and_we_speak_before() -> None:
    assert KEEP_ALIVE_S == 15.0


async def test_silence_is_filled_with_comments_before_and_between_the_chunks() -> None:
    recording, wire, left = Recording(), Wire(), list[bool]()
    task = asyncio.create_task(Quick(recording, left)({"type": "http"}, wire.receive, wire.send))
    await wire.until(2)
    assert wire.bodies == [COMMENT, COMMENT]
    recording.add(b"data: one\n\n")
    await wire.until(len(wire.bodies) + 3)
    recording.add(b"data: two\n\n")
    recording.end()
    await asyncio.wait_for(task, DEADLINE_S)
    assert [body for body in wire.bodies if body != COMMENT] == [b"data: one\n\n", b"data: two\n\n"]
    assert COMMENT in wire.bodies[wire.bodies.index(b"data: one\n\n") :]
    assert wire.ended


async def test_a_stream_that_flows_has_no_comments() -> None:
    recording, wire = Recording(), Wire()
    stream = EventStream(recording, lambda: None)
    task = asyncio.create_task(stream({"type": "http"}, wire.receive, wire.send))
    for number in range(50):
        recording.add(b"%d" % number)
        await wire.until(number + 1)
    recording.end()
    await asyncio.wait_for(task, DEADLINE_S)
    assert b"".join(wire.bodies) == b"".join(b"%d" % number for number in range(50))


async def test_who_leaves_is_noticed_while_nothing_comes() -> None:
    recording, wire, left = Recording(), Wire(), list[bool]()
    task = asyncio.create_task(Quick(recording, left)({"type": "http"}, wire.receive, wire.send))
    await wire.until(1)
    wire.gone.set()
    await asyncio.wait_for(task, DEADLINE_S)
    assert left
    assert not wire.ended


async def test_half_a_stream_that_failed_is_cut_and_not_ended() -> None:
    recording, wire = Recording(), Wire()
    recording.add(b"half")
    recording.failed = OSError("the vendor went away")
    recording.end()
    with pytest.raises(OSError, match="went away"):
        await EventStream(recording, lambda: None)({"type": "http"}, wire.receive, wire.send)
    assert not wire.ended
