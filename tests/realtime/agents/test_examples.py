"""The examples of agents, each in a simulated call; the settings of the one without Python are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime.agents.loading import Bot, load
from realtime.settings import load as load_settings
from realtime.testing import SimulatedCall, calls
from signaling.caller import Caller

EXAMPLES = Path(__file__).parents[3] / "examples" / "agents"


def bot(name: str) -> Bot:
    return load(str(EXAMPLES / f"{name}.py"))


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded leaves its folder first in the path."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_a_table_is_booked() -> None:
    with SimulatedCall(bot("tables").agents, model=[calls("free_tables", day="Friday", people=2), "At seven."]) as call:
        assert call.hears() == "Hello, how many are you?"
        call.says("Two, on Friday.")
        assert call.hears() == "At seven."
        assert [(tool.name, tool.result) for tool in call.tools] == [("free_tables", '["19:00","20:30"]')]


def test_code_of_ones_own_answers_and_knows_what_was_heard() -> None:
    with SimulatedCall(bot("own_turn").agents) as call:
        call.hears()
        call.says("Up to 4.")
        assert call.hears() == "1, 2, 3, 4, done."
        call.says("Up to 90.")
        assert call.hears(words=12).startswith("I had come to: done. 1, 2, 3,")
        call.says("Stop, up to 2.")
        told = call.hears()
        assert "90" not in call.heard
        assert told.endswith("1, 2, done.")


def test_rules_first_and_the_model_for_the_rest() -> None:
    with SimulatedCall(bot("chat_in_turn").agents, model=["There is a pool."]) as call:
        call.hears()
        call.says("When is breakfast?")
        assert call.hears() == "Breakfast is from seven to ten."
        call.says("Is there a pool?")
        assert call.hears() == "Let me see. There is a pool."


def test_the_caller_is_known_asked_after_and_written_down() -> None:
    loaded = bot("hooks")
    ada = Caller("phone", number="+15550100")
    with SimulatedCall(loaded.agents, caller=ada) as call:
        assert call.hears() == "Hello Ada."
        assert call.hears(words=4) == "Are you still there?"
        call.waits(15)
        assert call.ended == "agent_hangup"
    hook = loaded.agents[0].ended
    assert hook is not None
    assert hook.__globals__["ended"] == ["Ada: agent_hangup, 2 lines"]


def test_another_agent_goes_on_with_a_summary() -> None:
    model = [calls("connect_sales", wish="a boat"), "Then the red one."]
    with SimulatedCall(bot("hand_over").agents, model=model) as call:
        call.hears()
        call.says("A boat, please.")
        assert call.hears() == "Sales here, hello! You would like a boat?"
        call.waits(5)
        call.says("Yes.")
        assert call.hears() == "Then the red one."
        said = [message.content for message in call.model.asked[-1].messages]
        assert said == [
            "You sell boats. Be glad.",
            "The call so far: The caller wants a boat.",
            "Sales here, hello! You would like a boat?",
            "Yes.",
        ]


def test_a_code_is_typed_and_the_call_ends() -> None:
    model = [calls("check_code"), "It is right. Your account is empty.", calls("hang_up"), "Goodbye!"]
    with SimulatedCall(bot("telephone").agents, model=model) as call:
        call.hears()
        call.says("How much have I got?")
        assert call.hears(words=4) == "Please type your code."
        call.presses("4711")
        assert call.hears() == "It is right. Your account is empty."
        assert call.tools[0].result == "The code is right."
        assert "4711" not in str(call.transcript)
        call.says("Goodbye.")
        assert call.hears() == "Goodbye!"
        call.waits(2)
        assert call.ended == "agent_hangup"


def test_a_cards_number_is_typed_and_stays_out_of_the_transcript() -> None:
    with SimulatedCall(bot("recorded").agents, model=[calls("take_card"), "Paid."]) as call:
        assert call.hears().endswith("What would you like to pay?")
        call.says("My bill.")
        assert call.hears(words=7) == "Please type the number of your card."
        call.presses("4242424242424242")
        assert call.hears() == "Paid."
        assert call.tools[0].result == "Paid with the card that ends in 4242."
        assert "42424242" not in str(call.transcript)


def test_a_tool_of_the_server_that_stands_beside_those_of_the_page() -> None:
    with SimulatedCall(bot("both_tools").agents, model=[calls("free_rooms", night="tonight"), "Two."]) as call:
        call.hears()
        call.says("A room, please.")
        assert call.hears() == "Two."
        assert call.tools[0].result == '["the blue one","the green one"]'


def test_long_tools_fill_the_silence_answer_later_or_are_cancelled() -> None:
    model = [
        calls("find_trains", to="Rome"),
        "At nine and at ten.",
        calls("book_hotel", town="Rome"),
        "I am booking it.",
        "It is booked.",
        calls("compare_prices", to="Rome"),
        "As you like.",
    ]
    with SimulatedCall(bot("long_tools").agents, model=model) as call:
        call.says("To Rome.")
        assert call.hears() == "One moment, please. At nine and at ten."
        call.says("And a hotel.")
        assert call.hears() == "I am booking it."
        call.waits(40)
        assert call.hears() == "It is booked."
        call.says("Is it cheap?")
        call.waits(5)
        call.says("Never mind.")
        assert call.hears().endswith("As you like.")
        call.waits(60)
        trains, _, prices = call.tools
        assert trains.result == "at nine and at ten"
        assert "A room in Rome is booked." in str(call.events)
        assert "The train is cheaper." not in str(prices.result)


def test_an_agent_without_python_is_read(tmp_path: Path) -> None:
    environ = {"TABLES_KEY": "one", "KITCHEN_KEY": "two", "REALTIME_DATA": str(tmp_path)}
    agent = load_settings(EXAMPLES / "without_python.toml", environ).agents["default"]
    assert [tool.name for tool in agent.http_tools] == ["free_tables"]
    assert list(agent.mcp) == ["kitchen"]
