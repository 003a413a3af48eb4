"""An ended call is freed by its references alone: a search for cycles holds the event loop, which all calls hear."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from media.network import Network
from media.pacer import Pacer
from media.peer import Peer
from tests.media.webrtc import Ear, tone, until


@pytest.fixture(autouse=True)
def without_search() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def talk_and_end(by_other_side: bool) -> dict[str, weakref.ref[object]]:
    """A call with sound and text; what it consisted of."""
    network, pacer = Network(interfaces=["127.0.0.1"]), Pacer()
    caller, callee = (Peer(network=network, pacer=pacer) for _ in range(2))
    ears = Ear(), Ear()
    caller.attach(ears[0])
    callee.attach(ears[1])
    await caller.accept(await callee.answer(await caller.offer()))
    await until(lambda: all("text_open" in ear.told for ear in ears), "the text channel is open")
    callee.playout.push(1, tone(0.2, 24_000))
    callee.playout.finish(1)
    callee.wake()
    await until(lambda: ears[0].audio, "sound has come")
    connection, dtls = callee._connection, callee._dtls
    assert connection is not None
    assert dtls is not None
    parts = {
        "peer": callee,
        "listener": ears[1],
        "stream": callee._stream,
        "connection": connection,
        "dtls": dtls,
        "ice": dtls.transport,
        "agent": dtls.transport._connection,
        "sctp": connection.sctp,
    }
    alive = {name: weakref.ref(part) for name, part in parts.items()}
    await (caller if by_other_side else callee).close()
    await until(lambda: ears[1].closed, "the call is over")
    await callee.close()
    await caller.close()
    assert callee.stats()["packets_sent"] > 0, "what was counted stays known"
    return alive


@pytest.mark.parametrize("by_other_side", [False, True])
async def test_references_alone_free_an_ended_call(by_other_side: bool) -> None:
    alive = await talk_and_end(by_other_side)
    for _ in range(5):
        await asyncio.sleep(0)
    await until(lambda: all(part() is None for part in alive.values()), str([n for n, p in alive.items() if p()]))
