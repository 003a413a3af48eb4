"""A line of the bridge, between a Janus and a server that do as they are told; the real ones are in tests/interop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from realtime.bridge.janus import Account, Destination, Line, LineState, Refusal
from realtime.bridge.janus_api import JanusError, Message
from tests.media.webrtc import until

OFFER = {"type": "offer", "sdp": "v=0 offer"}


class FakeJanus:
    def __init__(self) -> None:
        self.said: list[tuple[Any, Message | None]] = []
        self.requests: list[Message] = []
        self.tell: Callable[[Message], None] = lambda message: None

    async def attach(self, plugin: str, listener: Callable[[Message], None]) -> int:
        self.tell = listener
        return 7

    async def message(self, handle: int, body: Message, jsep: Message | None = None) -> None:
        assert handle == 7
        self.said.append((body, jsep))
        if body["request"] == "register":
            self.event(event="registered", master_id=5)

    async def request(self, message: Message) -> Message:
        self.requests.append(message)
        return {}

    def event(self, jsep: Message | None = None, call_id: str = "", **result: Any) -> None:
        data = {"sip": "event", "call_id": call_id, "result": result}
        self.tell({"janus": "event", "plugindata": {"data": data}, **({"jsep": jsep} if jsep else {})})

    def call(self, call_id: str = "c1") -> None:
        who = {"username": "sip:+15550001111@pbx", "callee": "sip:100@pbx"}
        self.event(event="incomingcall", call_id=call_id, jsep=OFFER, **who)


class FakeServer:
    def __init__(self) -> None:
        self.opened: list[tuple[str, str, str]] = []
        self.hung_up: list[str] = []
        self.refusal: Refusal | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.over = asyncio.Event()

    async def open(self, offer: str, caller: str, dialled: str) -> tuple[str, str]:
        self.opened.append((offer, caller, dialled))
        await self.may_answer.wait()
        if self.refusal is not None:
            raise self.refusal
        return "v=0 answer", f"/v1/ai/realtime/calls/rtc_{len(self.opened)}"

    async def until_over(self, location: str) -> None:
        await self.over.wait()

    async def hang_up(self, location: str) -> None:
        self.hung_up.append(location.rpartition("/")[2])


class World:
    def __init__(self) -> None:
        self.janus, self.server = FakeJanus(), FakeServer()
        self.line = Line(self.janus, self.server, retry_s=0.01)  # type: ignore[arg-type]

    async def open(self) -> Message:
        return await self.line.open(Account("sip:bot@pbx").register())

    async def up(self) -> None:
        await self.open()
        self.janus.call()
        await until(lambda: self.line.state is LineState.UP and len(self.janus.said) == 2)


async def test_a_call_is_offered_to_the_server_and_accepted_with_its_answer() -> None:
    world = World()
    assert (await world.open())["master_id"] == 5
    world.janus.call()
    await until(lambda: len(world.janus.said) == 2)
    assert world.server.opened == [("v=0 offer", "+15550001111", "100")]
    assert world.janus.said[1] == ({"request": "accept"}, {"type": "answer", "sdp": "v=0 answer"})
    await world.line.close()
    assert world.server.hung_up == ["rtc_1"], "a bridge that stops leaves no call behind"


@pytest.mark.parametrize("how", ["bye", "media"])
async def test_who_hangs_up_the_telephone_ends_the_call_on_the_server(how: str) -> None:
    world = World()
    await world.up()
    if how == "bye":
        world.janus.event(event="hangup", code=200, reason="Session Terminated")
    world.janus.tell({"janus": "hangup", "reason": "DTLS alert"})
    await until(lambda: world.server.hung_up == ["rtc_1"])
    assert world.line.state is LineState.FREE
    world.janus.call("c2")
    await until(lambda: len(world.server.opened) == 2)
    await world.line.close()


async def test_when_the_server_hangs_up_so_does_janus() -> None:
    world = World()
    await world.up()
    world.server.over.set()
    await until(lambda: world.janus.requests)
    assert world.janus.said[2] == ({"request": "hangup"}, None)
    assert world.janus.requests == [{"janus": "hangup", "handle_id": 7}]
    world.janus.event(event="hangup", code=200, reason="to BYE")
    assert world.line.state is LineState.FREE
    await world.line.close()
    assert world.server.hung_up == [], "it has ended the call itself"


async def test_a_call_that_the_server_refuses_is_declined_and_the_line_is_free() -> None:
    world = World()
    world.server.refusal = Refusal(486, "full")
    await world.open()
    world.janus.call()
    await until(lambda: len(world.janus.said) == 2)
    assert world.janus.said[1] == ({"request": "decline", "code": 486}, None)
    assert world.line.state is LineState.FREE
    await world.line.close()


async def test_a_caller_who_gives_up_before_the_answer_leaves_no_call() -> None:
    world = World()
    world.server.may_answer.clear()
    await world.open()
    world.janus.call()
    await until(lambda: world.server.opened)
    world.janus.event(event="hangup", code=487, reason="Request Terminated")
    world.server.may_answer.set()
    await until(lambda: world.server.hung_up == ["rtc_1"])
    assert len(world.janus.said) == 1, "nothing is accepted"
    await world.line.close()


async def test_a_registration_that_is_lost_is_tried_again_and_the_call_goes_on() -> None:
    world = World()
    await world.up()
    world.janus.event(event="registration_failed", code=503, reason="Service Unavailable")
    await until(lambda: [body["request"] for body, _ in world.janus.said] == ["register", "accept", "register"])
    assert world.line.state is LineState.UP
    await world.line.close()


async def test_a_second_call_on_a_busy_line_is_declined_and_the_first_goes_on() -> None:
    world = World()
    await world.up()
    world.janus.call("c2")
    await until(lambda: len(world.janus.said) == 3)
    assert world.janus.said[2] == ({"request": "decline", "code": 486}, None)
    assert world.line.state is LineState.UP
    await world.line.close()


async def test_an_account_that_is_not_registered_is_said_so() -> None:
    world = World()

    async def refused(handle: int, body: Message, jsep: Message | None = None) -> None:
        world.janus.event(event="registration_failed", code=401, reason="Unauthorized")

    world.janus.message = refused  # type: ignore[method-assign]
    with pytest.raises(JanusError, match="401 Unauthorized"):
        await world.open()


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"janus": "event"},
        {"janus": "event", "plugindata": 1},
        {"janus": "event", "plugindata": {"data": {"result": {"event": "incomingcall"}}}},
        {"janus": "event", "plugindata": {"data": {"error_code": 447, "error": "no"}}},
        {"janus": "hangup"},
    ],
)
async def test_a_message_without_what_belongs_in_it_breaks_nothing(message: Message) -> None:
    world = World()
    await world.open()
    world.janus.tell(message)
    assert world.line.state is LineState.FREE
    await world.line.close()


def test_an_account_with_a_password_registers_and_one_without_is_a_guest() -> None:
    assert Account("sip:bot@pbx").register() == {"request": "register", "username": "sip:bot@pbx", "type": "guest"}
    assert Account("sip:bot@pbx", "s", "sip:pbx:5060", "bot1").register() == {
        "request": "register",
        "username": "sip:bot@pbx",
        "secret": "s",
        "proxy": "sip:pbx:5060",
        "authuser": "bot1",
    }


def test_the_dialled_number_picks_the_agent() -> None:
    destination = Destination("http://x", "key", "front", {"100": "sales"})
    assert (destination.agent_for("100"), destination.agent_for("101")) == ("sales", "front")
