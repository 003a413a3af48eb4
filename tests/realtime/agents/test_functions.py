"""Tools made of functions: the schema that their types and docstring give, and what they are called with."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import pytest
from pydantic import BaseModel, Field

from realtime.adapters.base import ToolCall
from realtime.agents import Agent, Call, ToolError
from realtime.agents.functions import BadFunction, FunctionTool
from tests.realtime.agents.calls import call


class Meal(enum.Enum):
    LUNCH = "lunch"
    DINNER = "dinner"


class Guest(BaseModel):
    name: str
    age: int | None = None


@dataclass
class Place:
    town: str


async def run(function: Callable[..., Any], arguments: str) -> str:
    return (await FunctionTool(function).run(ToolCall("call_1", "tool", arguments), call())).text


def test_types_and_docstring_are_the_schema() -> None:
    async def book(
        call: Call,
        day: datetime.date,
        guests: list[Guest],
        meal: Meal = Meal.DINNER,
        where: Literal["in", "out"] | None = None,
        people: Annotated[int, Field(ge=1, le=8)] = 2,
    ) -> str:
        """Books a table.

        Nobody else does.

        Args:
            day: When they come,
                as a date.
            people (int): How many.
        """
        return ""

    tool = FunctionTool(book).spec.tool
    assert tool.name == "book"
    assert tool.description == "Books a table.\n\nNobody else does."
    schema = cast(dict[str, Any], tool.parameters)
    assert schema["required"] == ["day", "guests"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"day", "guests", "meal", "where", "people"}
    assert schema["properties"]["day"] == {
        "type": "string",
        "format": "date",
        "description": "When they come, as a date.",
    }
    assert schema["properties"]["people"]["maximum"] == 8
    assert schema["properties"]["people"]["description"] == "How many."
    assert schema["$defs"]["Meal"]["enum"] == ["lunch", "dinner"]


async def test_arguments_come_as_their_types_and_results_go_as_text() -> None:
    got: list[object] = []

    async def book(day: datetime.date, guests: list[Guest], meal: Meal = Meal.DINNER) -> dict[str, object]:
        got.extend([day, guests, meal])
        return {"table": 3, "day": day}

    told = await run(book, '{"day": "2026-11-25", "guests": [{"name": "Ada"}], "meal": "lunch"}')
    assert got == [datetime.date(2026, 11, 25), [Guest(name="Ada")], Meal.LUNCH]
    assert told == '{"table":3,"day":"2026-11-25"}'


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "Done."),
        ("words", "words"),
        (7, "7"),
        ([1, "a"], '[1,"a"]'),
        (Guest(name="Ada"), '{"name":"Ada","age":null}'),
    ],
)
async def test_what_a_function_returns_is_text_for_a_model(result: object, text: str) -> None:
    async def tool() -> object:
        return result

    assert await run(tool, "") == text


async def test_a_result_that_never_ends_is_cut() -> None:
    async def tool() -> str:
        return "a" * 1_000_000

    assert len(await run(tool, "{}")) < 21_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{", "arguments: Invalid JSON"),
        ("[]", "arguments: Input should be an object"),
        ('{"people": "many"}', "people: Input should be a valid integer"),
        ("{}", "people: Field required"),
        ('{"people": 1, "more": 2}', "more: Extra inputs"),
    ],
)
async def test_arguments_that_do_not_fit_are_told_in_words_and_nothing_is_called(arguments: str, words: str) -> None:
    async def tool(people: int) -> None:
        raise AssertionError("called")

    with pytest.raises(ToolError, match="The arguments do not fit") as raised:
        await run(tool, arguments)
    assert words in str(raised.value)


def test_functions_that_cannot_be_tools_say_where_they_stand_and_why() -> None:
    async def no_type(day) -> str:  # type: ignore[no-untyped-def]
        return ""

    async def star(*days: str) -> str:
        return ""

    async def strange(thing: Callable[[], int]) -> str:
        return ""

    for function, why in ((no_type, "write for example `day: str`"), (star, "'days'"), (strange, "cannot fill")):
        with pytest.raises(BadFunction, match=r"test_functions\.py:\d+ in ") as raised:
            FunctionTool(function)
        assert why in str(raised.value)
    with pytest.raises(BadFunction, match="letters, digits"):
        FunctionTool(lambda: None)
    with pytest.raises(BadFunction, match="at most 3600"):
        FunctionTool(star, timeout=0)


def test_an_agent_refuses_what_cannot_work_where_it_is_written() -> None:
    agent = Agent("Be brief.")

    @agent.tool
    async def look() -> str:
        return ""

    with pytest.raises(BadFunction, match="there is a tool called 'look' already"):
        agent.tool(look)
    with pytest.raises(BadFunction, match="a turn is an `async def`"):

        @agent.turn
        def answer(turn: object) -> str:
            return ""

    with pytest.raises(ValueError, match="cannot be an agent's name"):
        Agent(name="two words")
    with pytest.raises(ValueError, match="1 to 3600"):
        agent.on_user_idle(seconds=0)


def test_parameters_may_be_called_what_every_model_has() -> None:
    async def tool(copy: str, json: int, schema: bool, model_config: str) -> str:
        return ""

    assert set(cast(dict[str, Any], FunctionTool(tool).spec.tool.parameters)["properties"]) == {
        "copy",
        "json",
        "schema",
        "model_config",
    }


async def test_plain_functions_dataclasses_and_errors_of_their_own() -> None:
    def tool(place: Place) -> str:
        if place.town == "Rome":
            raise ToolError("Not there.")
        return place.town

    assert await run(tool, '{"place": {"town": "Oslo"}}') == "Oslo"
    with pytest.raises(ToolError, match=r"Not there\."):
        await run(tool, '{"place": {"town": "Rome"}}')
