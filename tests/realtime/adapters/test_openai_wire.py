"""The chat wire format: lines, events, and the dialects in which servers speak it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.base import ChatDelta, ChatEnd, TextDelta, ToolCallDelta, Usage
from realtime.adapters.openai_wire import ChatEvents, Lines, WireError


def read(*events: Any, done: bool = True) -> list[ChatDelta]:
    chat = ChatEvents()
    deltas: list[ChatDelta] = []
    for event in events:
        deltas += chat.line(b"data: " + json.dumps(event).encode())
    if done:
        deltas += chat.line(b"data:[DONE]")
    return [*deltas, chat.end()]


def delta(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(name: str | None = None, arguments: Any = None, **head: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**head, "function": function}


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"").rstrip(b"\r"))), st.data())
def test_lines_are_the_same_however_they_are_torn(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + data.draw(st.sampled_from([b"\n", b"\r\n"])) for line in lines)
    reader = Lines()
    found: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, 30))
        found += reader.push(stream[:size])
        stream = stream[size:]
    assert found + reader.finish() == lines


def test_a_line_is_bounded() -> None:
    reader = Lines(limit=10)
    assert reader.push(b"0123456789\n012345678") == [b"0123456789"]
    with pytest.raises(WireError):
        reader.push(b"9x")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("eos", "stop"),
    ],
)
def test_finish_reasons(reason: str, expected: str) -> None:
    assert read(delta(content="a"), delta(reason))[-1] == ChatEnd(expected, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(
            [delta(content="a"), delta(content=None), delta(content="")], [TextDelta("a")], id="empty content"
        ),
        pytest.param([delta(refusal="I will not.")], [TextDelta("I will not.")], id="refusal"),
        pytest.param([{"choices": []}, {"x": 1}, {"choices": [None]}, delta(role="assistant")], [], id="nothing"),
        pytest.param([delta(reasoning_content="hm"), delta(content="a")], [TextDelta("a")], id="reasoning"),
        pytest.param([delta("stop", content="a"), delta(content="late")], [TextDelta("a")], id="after the end"),
    ],
)
def test_text(events: list[Any], expected: list[ChatDelta]) -> None:
    assert read(*events) == [*expected, ChatEnd("stop", None)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(
            [
                delta(tool_calls=[call("a", "", index=0, id="x")]),
                delta(tool_calls=[call(None, "{}", index=0)]),
                delta(tool_calls=[call("b", "{", index=1, id="y"), call(None, "}", index=1)]),
            ],
            [
                ToolCallDelta(0, "", "x", "a"),
                ToolCallDelta(0, "{}"),
                ToolCallDelta(1, "{", "y", "b"),
                ToolCallDelta(1, "}"),
            ],
            id="as OpenAI",
        ),
        pytest.param(
            [delta(tool_calls=[call("a", "{}", id="x"), call("b", "{}", id="y")])],
            [ToolCallDelta(0, "{}", "x", "a"), ToolCallDelta(1, "{}", "y", "b")],
            id="no index, all at once",
        ),
        pytest.param(
            [delta(tool_calls=[call("a", "{", id="x")]), delta(tool_calls=[call(None, "}")])],
            [ToolCallDelta(0, "{", "x", "a"), ToolCallDelta(0, "}")],
            id="no index, in pieces",
        ),
        pytest.param(
            [delta(tool_calls=[call("a", "{", index=0, id="x")]), delta(tool_calls=[call("a", "}", index=0, id="x")])],
            [ToolCallDelta(0, "{", "x", "a"), ToolCallDelta(0, "}")],
            id="id and name repeated",
        ),
        pytest.param(
            [delta(tool_calls=[call(None, "{", index=0, id="x")]), delta(tool_calls=[call("a", "}", index=0)])],
            [ToolCallDelta(0, "{}", "x", "a")],
            id="name late",
        ),
        pytest.param(
            [delta(tool_calls=[call("a", {"b": 1}, index=0, id="x")])],
            [ToolCallDelta(0, '{"b":1}', "x", "a")],
            id="arguments as an object",
        ),
    ],
)
def test_tool_calls(events: list[Any], expected: list[ChatDelta]) -> None:
    # `stop` is what several servers report; the caller is told that tools are to be called.
    assert read(*events, delta("stop")) == [*expected, ChatEnd("tool_calls", None)]


def test_a_call_without_id_gets_one() -> None:
    first, *_ = read(delta(tool_calls=[call("a", "{}", index=0)]), delta("tool_calls"))
    assert isinstance(first, ToolCallDelta)
    assert first.id is not None
    assert first.id.startswith("call_")


def test_usage_may_be_partial_or_odd() -> None:
    assert read(delta("stop"), {"usage": {"prompt_tokens": 7}})[-1] == ChatEnd("stop", Usage(7))
    assert read(delta("stop"), {"usage": {"prompt_tokens": -1, "completion_tokens": "x"}})[-1] == ChatEnd(
        "stop", Usage()
    )
    assert read(delta("stop"), {"usage": None})[-1] == ChatEnd("stop", None)


def test_either_end_will_do_but_not_none() -> None:
    assert read(delta("stop"), done=False)[-1] == ChatEnd("stop", None)
    assert read(delta(content="a"), done=True)[-1] == ChatEnd("stop", None)
    with pytest.raises(WireError):
        read(delta(content="a"), done=False)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([[1]], id="a list"),
        pytest.param([{"error": "down"}], id="error text"),
        pytest.param([{"error": {"message": "down", "code": 500}}], id="error object"),
        pytest.param([delta(tool_calls=["x"])], id="call is no object"),
        pytest.param([delta(tool_calls=[call(None, "{}", index=0)])], id="call without name"),
        pytest.param([delta(tool_calls=[call("a", "{}", index=i)]) for i in range(65)], id="calls without end"),
    ],
)
def test_nonsense(events: list[Any]) -> None:
    with pytest.raises(WireError):
        read(*events)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "index",
                    "id",
                    "name",
                    "arguments",
                    "usage",
                    "prompt_tokens",
                    "finish_reason",
                    "error",
                    "code",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(_JSON, max_size=5))
def test_any_json_is_an_answer_or_a_wire_error(events: list[Any]) -> None:
    try:
        deltas = read(*events)
    except WireError:
        return
    assert isinstance(deltas[-1], ChatEnd)
