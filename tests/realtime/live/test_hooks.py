"""What `call.incoming` may decide, and where the messages of an agent go."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from realtime.live.hooks import Incoming, decide, endpoint, known
from realtime.observe.webhooks import Webhooks
from realtime.settings import Settings
from realtime.store.memory import MemoryStore
from signaling.caller import Caller
from tests.realtime.observe.receiver import SECRET, answer, receiver

OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
AGENTS: dict[str, Any] = {"default": {}, "sales": {}}


def settings(url: str = "https://hooks.example", **agents: Any) -> Settings:
    return Settings.model_validate({"webhooks": {"url": url, "secret": SECRET}, "agents": {**AGENTS, **agents}})


async def decided(given: object) -> tuple[Incoming, dict[str, Any]]:
    """What comes of an answer, and what was asked."""
    async with receiver(answer("200 OK", orjson.dumps(given))) as found:
        chosen = settings(found.url)
        webhooks = Webhooks(MemoryStore(), lambda agent: endpoint(chosen, agent))
        await webhooks.start()
        caller = Caller("phone", number="+15551234567", dialled="+15557654321", carrier="twilio")
        incoming = await decide(webhooks, chosen, agent="default", session_id="sess_1", subject="key_1", caller=caller)
        await webhooks.close()
    return incoming, found.taken[0]["data"]


async def test_the_answer_picks_agent_and_variables() -> None:
    incoming, asked = await decided({"agent": "sales", "variables": {"name": "Ada"}})
    assert incoming == Incoming("sales", {"name": "Ada"})
    assert asked["session_id"] == "sess_1"
    assert asked["agent"] == "default"
    assert asked["caller"]["number"] == "+15551234567"
    assert asked["caller"]["dialled"] == "+15557654321"


async def test_variables_alone_keep_the_agent() -> None:
    assert (await decided({"variables": {"name": "Ada"}}))[0] == Incoming("default", {"name": "Ada"})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"agent": 5},
        {"agent": "x" * 65},
        {"agent": "nobody"},
        {"agents": "sales"},
        {"agent": "sales", "variables": {"a name": "Ada"}},
        {"agent": "sales", "variables": {"name": 5}},
        {"agent": "sales", "variables": {"name": "x" * 4001}},
        {"agent": "sales", "variables": {f"v{number}": "" for number in range(65)}},
        {"agent": "sales", "variables": []},
    ],
)
async def test_an_answer_that_makes_no_sense_changes_nothing(given: object) -> None:
    assert (await decided(given))[0] == Incoming("default")


def test_an_agents_own_webhooks_go_before_the_common_ones() -> None:
    own = {"url": "https://sales.example", "secret": OTHER, "timeout_seconds": 2.0, "events": ["call.ended"]}
    chosen = settings(sales={"webhooks": own}, quiet={"webhooks": {"events": []}})
    common, sales, quiet = (endpoint(chosen, name) for name in ("default", "sales", "quiet"))
    assert common is not None
    assert sales is not None
    assert quiet is not None
    assert (common.url, common.timeout_s, len(common.events)) == ("https://hooks.example", 5.0, 3)
    assert (sales.url, sales.key, sales.timeout_s, sales.events) == (
        "https://sales.example",
        b"o" * 32,
        2.0,
        {"call.ended"},
    )
    assert quiet.events == frozenset()
    assert endpoint(Settings(), "default") is None
    assert SECRET.removeprefix("whsec_") not in repr((chosen, common))


def test_a_telephone_call_brings_variables_along_and_nobody_can_forge_the_numbers() -> None:
    parameters = {"plan": "gold", "caller_number": "forged"}
    caller = Caller("phone", number="+15551234567", dialled=None, carrier="twilio", parameters=parameters)
    assert known(caller) == {"plan": "gold", "caller_number": "+15551234567", "dialled_number": ""}
    assert known(Caller("phone", parameters=parameters))["caller_number"] == ""
    assert known(Caller()) == {}
