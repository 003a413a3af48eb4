"""Whole calls over every kind of leg are freed by references alone when they end: a search for cycles is heard."""

from __future__ import annotations

import asyncio
import base64
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from media.leg import Leg
from media.peer import Peer
from realtime.agents import Agent, Call, Turn
from realtime.app import Services, create_app
from realtime.client.talk import read_audio
from realtime.live import wire
from realtime.live.effects import HangUp
from realtime.live.socket_leg import SocketLeg
from realtime.settings import load
from signaling.caller import Caller
from signaling.telephony.leg import CarrierLeg
from tests.media.webrtc import Ear, until
from tests.realtime.live.test_sessions import claims
from tests.signaling.telephony.test_carriers import started
from tests.signaling.telephony.test_leg import media

HOW_ARE_YOU = Path(__file__).parents[2] / "audio" / "synth_flite_slt_how_are_you.wav"
OURS = ("media.", "signaling.", "realtime.", "aiortc.", "aioice.")

SETTINGS = """
[limits]
loop_lag_ms = 10_000

[agents.default]
greeting = "Good day."
filler = "One moment."
recording = true
"""

agent = Agent("Be brief.", name="own", greeting="Good day.", stt="instant", chat="instant", tts="instant")
sales = Agent("You sell.", name="sales", stt="instant", chat="instant", tts="instant", keys_as_turns=True)
ended: list[list[str]] = []


@agent.turn
async def answer(turn: Turn) -> AsyncIterator[str]:
    yield "I pass you on."
    turn.session.hand_over(sales)


@sales.tool
async def price() -> str:
    """The price."""
    return "Ten pounds."


@sales.on_call_end
async def note(call: Call, record: object) -> None:
    await asyncio.sleep(0.05)
    ended.append([said.text for said in call.history])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("release")
    (folder / "realtime.toml").write_text(SETTINGS)
    settings = load(folder / "realtime.toml", {"REALTIME_DATA": str(folder)})
    with TestClient(create_app(settings, engines="instant", agents=[agent, sales])) as running:
        yield running


async def over_socket(services: Services, opened: Callable[[Leg], Awaitable[Any]]) -> None:
    leg = SocketLeg()
    call = await opened(leg)
    leg.open()
    pcm = read_audio(HOW_ARE_YOU)
    for start in range(0, len(pcm), 4800):
        await leg.hear(base64.b64encode(pcm[start : start + 4800].astype("<i2").tobytes()).decode())
        await asyncio.sleep(0)
    await leg.hear(base64.b64encode(bytes(48_000)).decode())
    await _converse(call)
    await leg.close("hangup")


async def over_telephone(services: Services, opened: Callable[[Leg], Awaitable[Any]]) -> None:
    stream, begun = started("twilio")
    leg = CarrierLeg(stream, begun, services.pacer)
    call = await opened(leg)
    leg.open()
    for _ in range(30):
        leg.take(media())
        await asyncio.sleep(0)
    leg.take('{"event": "dtmf", "streamSid": "MZ1", "dtmf": {"digit": "5"}}')
    await _converse(call)
    leg.take('{"event": "stop", "stop": {"accountSid": "AC1", "callSid": "CA1"}}')


async def over_webrtc(services: Services, opened: Callable[[Leg], Awaitable[Any]]) -> None:
    callee = services.new_peer()
    caller, ear = Peer(network=services.network, pacer=services.pacer), Ear()
    caller.attach(ear)
    call = await opened(callee)
    await caller.accept(await callee.answer(await caller.offer()))
    await until(lambda: ear.audio and "text_open" in ear.told, "the greeting is heard")
    caller.playout.push(1, read_audio(HOW_ARE_YOU)[:24_000])
    caller.wake()
    await _converse(call)
    await caller.close()
    await until(lambda: callee.state.value == "closed", "the other side has hung up")
    await callee.close()


async def _converse(call: Any) -> None:
    """An answer that is made, one that is cut, and the end in the middle of a third."""
    conversation, item = call.session.conversation, '{"type": "message", "role": "user", "content": [%s]}'
    content = '{"type": "input_text", "text": "Hello."}'
    for ended_by in ("response.cancel", "output_audio_buffer.clear", None):
        call.session.obey(wire.parse(f'{{"type": "conversation.item.create", "item": {item % content}}}'))
        await until(lambda: conversation.active is None, "nothing is being made")
        call.session.obey(wire.parse('{"type": "response.create"}'))
        await until(lambda: len(conversation.history) > 2, "an answer is made")
        if ended_by is not None:
            call.session.obey(wire.parse(f'{{"type": "{ended_by}"}}'))
    call.session.tell(HangUp("agent_hangup"))


def parts(call: Any) -> dict[str, weakref.ref[Any]]:
    session = call.session
    of = [call.leg, call.leg.playout, session, session.conversation, session.hearing, session.agent, session._detector]
    return {type(part).__name__: weakref.ref(part) for part in of}


@pytest.mark.parametrize("which", ["default", "own"])
@pytest.mark.parametrize(
    ("over", "kind"), [(over_socket, "websocket"), (over_telephone, "phone"), (over_webrtc, "webrtc")]
)
def test_references_alone_free_a_call_that_ended(client: TestClient, over: Any, kind: Any, which: str) -> None:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    ended.clear()

    async def hold() -> dict[str, weakref.ref[Any]]:
        alive: dict[str, weakref.ref[Any]] = {}

        async def opened(leg: Leg) -> Any:
            call = await services.sessions.open(leg, claims(which), {}, Caller(kind))
            alive.update(parts(call))
            if which == "own":
                # A turn that is cut in the developer's thread may leave a few small objects around its exception.
                del alive["AgentCall"]
            return call

        await over(services, opened)
        return alive

    async def test() -> None:
        await hold()  # what the first call of a process makes stays
        await until(lambda: not services.sessions._writing, "its record is written")
        gc.collect()
        gc.disable()
        try:
            alive = await hold()
            await until(lambda: not any(part() for part in alive.values()), f"freed: {alive}")
            await until(lambda: not services.sessions._writing, "its record is written")
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            cyclic = [type(found) for found in gc.garbage if type(found).__module__.startswith(OURS)]
            assert [kind for kind in cyclic if not kind.__module__.startswith("realtime.agents.")] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert client.portal is not None
    client.portal.call(test)
    assert which == "default" or all(ended), "what was said is known until the end"
