"""Fixtures of the WebRTC tests."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import aioice.ice
import pytest
from aiortc import MediaStreamTrack

from media.network import Network
from media.pacer import Pacer
from media.peer import Peer
from tests.media.webrtc import Cable, Call, Ear, StockCaller, candidates, until


@pytest.fixture
def network() -> Network:
    return Network(interfaces=["127.0.0.1"])


@pytest.fixture
def pacer() -> Pacer:
    return Pacer()


@pytest.fixture
def stock_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock aiortc callers gather 127.0.0.1, which they would leave out; our own peers do not ask."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


Dial = Callable[..., Awaitable[Call]]


@pytest.fixture
async def dial(network: Network, pacer: Pacer, stock_on_loopback: None) -> AsyncIterator[Dial]:
    """`await dial(track, **peer_options)`: a call that is up, over a cable.

    `lie`: what the caller is told in place of our largest message; `before`: run before the call is answered;
    `offered`: what becomes of the offer on its way.
    """
    calls: list[Call] = []

    async def dial(
        track: MediaStreamTrack | None = None,
        *,
        channel: bool = True,
        lie: str = "",
        before: Callable[[Peer], None] | None = None,
        offered: Callable[[str], str] = lambda text: text,
        **options,
    ) -> Call:
        ear, caller = Ear(), StockCaller(track, channel=channel)
        peer = Peer(network=network, pacer=pacer, **options)
        peer.attach(ear)
        if before is not None:
            before(peer)
        offer = offered(await caller.offer())
        answer = await peer.answer(re.sub(r"a=candidate:.*\r\n", "", offer))
        (address,) = set(candidates(answer))
        cable = Cable(address)
        port = await cable.open()
        call = Call(peer, ear, caller, cable, answer)
        calls.append(call)
        carried = re.sub(r"(a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 )\d+", rf"\g<1>{port}", answer)
        if lie:
            carried = re.sub(r"a=max-message-size:\d+", lie, carried)
        await caller.accept(carried)
        await until(lambda: ear.opened_at is not None, "the call came up")
        if channel:
            await until(lambda: "text_open" in ear.told and caller.channel.readyState == "open", "the channel opened")
        return call

    yield dial
    for call in calls:
        await call.caller.close()
        await call.peer.close()
        call.cable.close()
