"""`pytest` in this folder: whole telephone calls in a fraction of a second, without a vendor."""

import bot
import pytest
from bot import agent

from realtime.testing import SimulatedCall, calls


@pytest.fixture(autouse=True)
def _nothing_booked():
    bot.booked.clear()


def test_a_table_is_booked():
    model = [
        calls("free_tables", day="Friday", people=2),
        "At seven or at half past eight. Which one?",
        calls("book", day="Friday", time="19:00", people=2),
        "Done. See you on Friday!",
    ]
    with SimulatedCall(agent, model=model) as call:
        assert call.hears() == "Hello, Chez Ada. How many are you?"
        call.says("Two, on Friday.")
        assert "seven" in call.hears()
        assert call.reply_seconds < 1.5
        call.says("At seven please.")
        assert call.hears() == "Done. See you on Friday!"
    assert [(tool.name, tool.result) for tool in call.tools] == [
        ("free_tables", '["19:00","20:30"]'),
        ("book", "Booked for +15550100."),
    ]
    assert bot.booked == [("Friday", "19:00", 2)]


def test_a_caller_who_interrupts_is_listened_to():
    with SimulatedCall(agent, model=["We have a very long list of starters and mains.", "Six at most."]) as call:
        call.hears()
        call.says("What do you have?")
        assert call.hears(words=5) == "We have a very long"
        call.says("How many can we be?")
        assert call.hears() == "Six at most."
    answers = [said["text"] for said in call.transcript if said["role"] == "assistant"]
    assert answers[1].startswith("We have a very long")
    assert "mains" not in answers[1]  # it was never heard, and the model knows that
