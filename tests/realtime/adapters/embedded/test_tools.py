import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.base import Tool
from realtime.adapters.embedded.tools import arguments, choose

ORDER = Tool("lookup_order", "Finds the state of an order by its number")
LIGHTS = Tool("setLights", "Turns the lamps of a room on or off")
END = Tool("end_call", "Ends the call when the caller says goodbye")


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ("please lookup my order 1234", "lookup_order"),
        ("what is the state of order number seven", "lookup_order"),
        ("set the lights in the kitchen", "setLights"),
        ("turn off the lamps", "setLights"),
        ("end the call now", None),
        ("the caller said goodbye so end it", "end_call"),
        ("tell me a very long story", None),
        ("hello how are you today", None),
        ("", None),
    ],
)
def test_the_tool_that_the_words_ask_for(said: str, chosen: str | None) -> None:
    tools = choose([ORDER, LIGHTS, END], "auto", said)
    wanted = chosen if said != "end the call now" else "end_call"
    assert [tool.name for tool in tools] == ([] if wanted is None else [wanted])


def test_every_tool_that_is_named_is_called() -> None:
    cancel = Tool("cancel_order", "Cancels what was ordered.", {})
    tools = choose([END, ORDER, cancel], "auto", "cancel my order and end the call")
    assert [tool.name for tool in tools] == ["end_call", "cancel_order"]


def filled(properties: dict[str, Any], said: str, required: list[str] | None = None) -> Any:
    needed = list(properties) if required is None else required
    tool = Tool("t", "", {"type": "object", "properties": properties, "required": needed})
    return json.loads(arguments(tool, said))


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("properties", "said", "expected"),
    [
        ({"location": STRING}, "what is the weather like in new york please", {"location": "new york"}),
        ({"city": STRING, "day": STRING}, "weather in london tomorrow", {"city": "london", "day": "tomorrow"}),
        ({"title": STRING}, 'play "So What" now', {"title": "So What"}),
        ({"order": STRING}, "my order is A17", {"order": "A17"}),
        ({"note": STRING}, "buy milk", {"note": "buy milk"}),
        ({"a": {"type": "integer"}, "b": {"type": "number"}}, "add 3 and 4.5", {"a": 3, "b": 4.5}),
        ({"n": {"type": "integer"}}, "twenty of them", {"n": 20}),
        ({"n": {"type": ["null", "integer"]}}, "none at all", {"n": 0}),
        ({"unit": {"enum": ["celsius", "fahrenheit"]}}, "in Fahrenheit please", {"unit": "fahrenheit"}),
        ({"unit": {"enum": ["celsius", "fahrenheit"]}}, "whatever", {"unit": "celsius"}),
        ({"on": {"type": "boolean"}}, "lights off", {"on": False}),
        ({"on": {"type": "boolean"}}, "lights on", {"on": True}),
        ({"tags": {"type": "array", "items": STRING}}, "about jazz", {"tags": ["jazz"]}),
        (
            {"at": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
            "7",
            {"at": {"x": 7}},
        ),
    ],
)
def test_required_parameters_are_filled_from_the_words(
    properties: dict[str, Any], said: str, expected: dict[str, Any]
) -> None:
    assert filled(properties, said) == expected


def test_optional_parameters_only_when_the_words_name_a_value() -> None:
    properties = {"place": STRING, "unit": {"enum": ["celsius", "fahrenheit"]}}
    assert filled(properties, "weather in rome", ["place"]) == {"place": "rome"}
    assert filled(properties, "weather in rome and celsius", ["place"]) == {"place": "rome", "unit": "celsius"}


SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["object", "array", "string"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "properties", "required", "items", "enum", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "required"]), SCHEMAS), st.text(max_size=60))
def test_any_schema_gives_an_object(schema: dict[str, Any], said: str) -> None:
    assert isinstance(json.loads(arguments(Tool("t", "", schema), said)), dict)


def test_a_schema_that_holds_itself_ends() -> None:
    schema: dict[str, Any] = {"type": "object", "required": ["again"]}
    schema["properties"] = {"again": schema}
    assert json.loads(arguments(Tool("t", "", schema), "x"))
    loop: dict[str, Any] = {"type": "array"}
    loop["items"] = loop
    assert filled({"a": loop}, "x")
