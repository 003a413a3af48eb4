"""`POST /v1/ai/chat`: every field of the published table, and every field of what it returns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.realtime.gateway.conftest import Vendors
from tests.realtime.gateway.server import CHAT, KEY, Running, parsed, problem, said
from tests.vendors.openai_stub import CHAT as VENDOR_CHAT
from tests.vendors.openai_stub import Plan

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"name": "weather", "description": "The weather", "parameters": {"type": "object", "properties": {}}}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def sent(vendors: Vendors) -> dict[str, Any]:
    """What the first vendor was asked."""
    return vendors.first.requests(VENDOR_CHAT)[-1].body


# --- what it returns ------------------------------------------------------------------------------


def test_answers_with_content_reason_usage_and_metadata(vendors: Vendors) -> None:
    answer = vendors.server.ok(CHAT, messages="Hello")
    assert answer["content"] == "Hello there, friend."
    assert answer["finish_reason"] == "stop"
    usage = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16, "prompt_tokens": 11, "completion_tokens": 5}
    assert answer["usage"] == {**usage, "cached_tokens": 3}
    metadata = answer["metadata"]
    assert {name: metadata[name] for name in ("vendor", "model", "cache", "failover", "idempotent_replay")} == {
        "vendor": "first",
        "model": "gpt-one",
        "cache": "bypass",
        "failover": False,
        "idempotent_replay": False,
    }
    assert [one["status"] for one in metadata["attempts"]] == ["ok"]
    assert metadata["cost_usd"] == pytest.approx(11e-6 + 5 * 2e-6)
    assert 0 <= metadata["ttft_ms"] <= metadata["latency_ms"] < 20_000
    assert metadata["request_id"].startswith("req_")


def test_the_request_id_is_the_callers_own_when_it_gives_one(vendors: Vendors) -> None:
    response = vendors.server.post(CHAT, headers={"X-Request-Id": "my-request-0001"}, messages="Hello")
    assert response.json()["metadata"]["request_id"] == response.headers["x-request-id"] == "my-request-0001"


def test_tools_give_tool_calls_and_no_content(vendors: Vendors) -> None:
    vendors.first.tool_calls = [("weather", '{"city": "Paris"}')]
    answer = vendors.server.ok(
        CHAT, messages="The weather in Paris?", tools=[{"type": "function", "function": WEATHER}]
    )
    assert answer["content"] is None
    assert answer["finish_reason"] == "tool_calls"
    assert answer["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    ]


# --- what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"messages": "Hello"}, {"prompt": "Hello"}, {"messages": HELLO}, {"prompt": HELLO}])
def test_a_prompt_or_a_list_of_messages(vendors: Vendors, body: dict[str, Any]) -> None:
    vendors.server.ok(CHAT, **body)
    assert sent(vendors)["messages"] == HELLO


def test_a_conversation_with_tools_reaches_the_vendor_as_it_was(vendors: Vendors) -> None:
    made = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "The weather?"}]},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    vendors.server.ok(CHAT, messages=messages, tools=[WEATHER], tool_choice="none")
    found = sent(vendors)
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant", "tool"]
    assert found["messages"][2]["tool_calls"] == [made]
    assert found["tools"][0]["function"]["name"] == "weather"
    assert found["tool_choice"] == "none"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"temperature": 0.2}, {"temperature": 0.2}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 7.0}, {"max_tokens": 7}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
         {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
    ],
)  # fmt: skip
def test_parameters_reach_the_vendor(vendors: Vendors, body: dict[str, Any], expected: dict[str, Any]) -> None:
    vendors.first.tokens = ["{}"]
    vendors.server.ok(CHAT, messages="Hello", **body)
    found = sent(vendors)
    assert {name: found[name] for name in expected} == expected
    if not expected:
        assert "response_format" not in found


def test_images_reach_the_vendor_as_data_urls(vendors: Vendors) -> None:
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PNG}}]
    vendors.server.ok(CHAT, messages=[{"role": "user", "content": content}])
    assert sent(vendors)["messages"][0]["content"][1]["image_url"]["url"] == PNG


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"max_token": 3}, "max_token", "unknown_field"),
        ({"messages": None}, "messages", "missing_field"),
        ({"prompt": "x"}, "messages", "invalid_value"),
        ({"messages": ""}, "messages", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages.0.colour", "unknown_field"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"task": "cooking"}, "task", "invalid_value"),
        ({"prefer": "fastest"}, "prefer", "invalid_value"),
        ({"cache_strategy": "all"}, "cache_strategy", "invalid_value"),
        ({"max_cost_multiplier": -1}, "max_cost_multiplier", "invalid_value"),
        ({"timeout_seconds": 0}, "timeout_seconds", "invalid_value"),
        ({"timeout_seconds": 601}, "timeout_seconds", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream": True, "batch_mode": True}, "batch_mode", "invalid_value"),
        ({"tools": [{"name": "a b"}]}, "tools.0.name", "invalid_value"),
        ({"tools": [WEATHER, WEATHER]}, "tools", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"name": "nothing"}}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "invalid_value"),
        ({"response_format": {"type": "json_schema", "schema": {"type": "nonsense"}}}, "response_format",
         "invalid_schema"),
        ({"response_format": {"type": "json_schema", "schema": {"$ref": "http://127.0.0.1:9/x"}}}, "response_format",
         "invalid_schema"),
        ({"idempotency_key": "with blank"}, "idempotency_key", "invalid_value"),
        ({"vendor": "nobody"}, "vendor", "unknown_vendor"),
        ({"model": "gpt-one", "vendor": "second"}, "model", "model_vendor_mismatch"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_and_no_vendor_hears_of_it(
    vendors: Vendors, body: dict[str, Any], param: str, code: str
) -> None:
    whole = {"messages": "Hello", **body}
    error = vendors.server.error(422, CHAT, **{name: value for name, value in whole.items() if value is not None})
    assert (error["param"], error["code"]) == (param, code)
    assert not vendors.first.requests(VENDOR_CHAT)


def test_a_typo_is_told_the_name_that_was_meant(vendors: Vendors) -> None:
    assert "'max_tokens'" in vendors.server.error(422, CHAT, messages="x", max_token=3)["message"]


def test_an_unknown_model_is_404_with_the_known_ones(vendors: Vendors) -> None:
    error = vendors.server.error(404, CHAT, messages="x", model="gpt-nine")
    assert error["code"] == "model_not_found"
    assert "gpt-one" in error["message"]


def test_a_context_that_no_model_has_is_refused_before_anybody_is_asked(vendors: Vendors) -> None:
    error = vendors.server.error(422, CHAT, messages="x" * 600_000, model="gpt-one")
    assert error["code"] == "context_length_exceeded"
    assert not vendors.first.requests(VENDOR_CHAT)


# --- which model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "gpt-one"),
        ({"prefer": "cheapest"}, "gpt-one"),
        ({"prefer": "smartest"}, "gpt-dear"),
        ({"task": "coding"}, "gpt-two"),
        ({"task": "coding", "prefer": "smartest"}, "gpt-two"),
        ({"vendor": "second"}, "gpt-two"),
        ({"model": "gpt-dear"}, "gpt-dear"),
        ({"model": "gpt-dear", "vendor": "dear"}, "gpt-dear"),
        ({"model": "embedded"}, "demo"),
        ({"vendor": "embedded"}, "demo"),
    ],
)
def test_the_model_follows_from_model_vendor_task_and_prefer(
    vendors: Vendors, body: dict[str, Any], expected: str
) -> None:
    assert vendors.server.ok(CHAT, messages="Hello", **body)["metadata"]["model"] == expected


# --- structured output ----------------------------------------------------------------------------

AGE = {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}}
FORMATS = [
    {"type": "json_schema", "schema": AGE},
    {"type": "json_schema", "json_schema": {"name": "person", "schema": AGE, "strict": True}},
]


@pytest.mark.parametrize("form", FORMATS)
def test_an_answer_that_fits_its_schema_is_passed_on(vendors: Vendors, form: dict[str, Any]) -> None:
    vendors.first.tokens = ['```json\n{"age"', ": 7}\n```"]
    answer = vendors.server.ok(CHAT, messages="How old?", response_format=form)
    assert json.loads(answer["content"]) == {"age": 7}
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1
    assert sent(vendors)["response_format"]["json_schema"]["schema"] == AGE


def test_an_answer_that_does_not_fit_is_asked_for_once_more_and_then_is_an_error(vendors: Vendors) -> None:
    vendors.first.tokens = ['{"age": "old"}']
    error = vendors.server.error(502, CHAT, messages="How old?", response_format=FORMATS[0])
    assert error["code"] == "invalid_structured_output"
    asked = vendors.first.requests(VENDOR_CHAT)
    assert len(asked) == 2
    assert asked[1].body["messages"][-2] == {"role": "assistant", "content": '{"age": "old"}'}
    assert "integer" in asked[1].body["messages"][-1]["content"]


def test_a_repaired_answer_says_so(vendors: Vendors) -> None:
    good = {"choices": [{"message": {"content": '{"age": 7}'}, "finish_reason": "stop"}]}
    bad = {"choices": [{"message": {"content": "seven"}, "finish_reason": "stop"}]}
    for answer in (bad, good):
        vendors.first.plan(VENDOR_CHAT, Plan(body=json.dumps(answer).encode(), content_type="application/json"))
    answer = vendors.server.ok(CHAT, messages="How old?", response_format=FORMATS[0])
    assert json.loads(answer["content"]) == {"age": 7}
    assert "structured_output_repaired" in answer["metadata"]["warnings"]


def test_a_streamed_answer_that_does_not_fit_ends_in_an_error_event(vendors: Vendors) -> None:
    vendors.first.tokens = ["seven"]
    *_, (kind, data) = vendors.server.events(messages="How old?", response_format=FORMATS[0])
    assert (kind, data["error"]["code"]) == ("error", "invalid_structured_output")


# --- parameters a model does not take -------------------------------------------------------------


def test_a_dropped_parameter_is_said(vendors: Vendors) -> None:
    vendors.first.refuses = ("temperature",)
    answer = vendors.server.ok(CHAT, messages="Hello", temperature=0.5)
    assert answer["metadata"]["warnings"] == ["dropped:temperature"]


def test_a_pinned_model_that_does_not_take_a_parameter_refuses_the_request(vendors: Vendors) -> None:
    vendors.second.refuses = ("temperature",)
    for _ in range(2):
        error = vendors.server.error(422, CHAT, messages="Hello", temperature=0.5, model="gpt-two")
        assert "temperature" in error["message"]


def test_usage_that_the_vendor_does_not_tell_is_an_estimate_and_says_so(vendors: Vendors) -> None:
    vendors.first.usage = False
    answer = vendors.server.ok(CHAT, messages="Hello")
    assert answer["usage"]["output_tokens"] == 5
    assert "usage_estimated" in answer["metadata"]["warnings"]


# --- caching --------------------------------------------------------------------------------------


def test_our_cache_answers_the_same_request_without_a_vendor_also_as_a_stream(vendors: Vendors) -> None:
    body = {"messages": "Cache me", "cache_strategy": "infrai"}
    first = vendors.server.ok(CHAT, **body)
    second = vendors.server.ok(CHAT, **body)
    events = vendors.server.events(**body)
    assert (first["metadata"]["cache"], second["metadata"]["cache"]) == ("miss", "hit")
    assert second["content"] == first["content"] == said(events)
    assert second["metadata"]["cost_usd"] == 0
    assert events[-2][1]["metadata"]["cache"] == "hit"
    assert events[-1][1] == "[DONE]"
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1
    assert vendors.server.ok(CHAT, messages="Cache me")["metadata"]["cache"] == "bypass"


# --- who may ask ----------------------------------------------------------------------------------


def test_without_a_key_nothing_is_parsed(embedded: Running) -> None:
    response = embedded.client.post(CHAT, content=b"{", headers={"Authorization": "Bearer nonsense"})
    assert problem(response, 401)["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("scopes", "path", "status"),
    [(["chat"], CHAT, 200), (["media"], CHAT, 403), (["chat"], "/v1/ai/embed", 403), (["media"], "/v1/ai/embed", 200)],
)
def test_scopes_are_chat_and_media(embedded: Running, scopes: list[str], path: str, status: int) -> None:
    keys = embedded.app.state.services.api_keys
    plaintext, _ = embedded.run(keys.create("test", scopes))
    body = {"messages": "Hello"} if path == CHAT else {"input": "Hello"}
    response = embedded.client.post(path, json=body, headers={"Authorization": f"Bearer {plaintext}"})
    assert response.status_code == status, response.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff"])
def test_what_is_no_json_object_is_400(embedded: Running, content: bytes) -> None:
    assert problem(embedded.client.post(CHAT, content=content), 400)["code"] == "invalid_json"


def test_a_body_over_the_bound_is_413_by_its_declared_length(embedded: Running) -> None:
    import socket

    host, port = embedded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as plain:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 99999999999\r\n\r\n"
        plain.sendall(head.encode())
        assert b" 413 " in plain.recv(4096).partition(b"\r\n")[0]


# --- events ---------------------------------------------------------------------------------------


def test_a_stream_is_chunks_then_usage_and_metadata_then_done(vendors: Vendors) -> None:
    events = vendors.server.events(messages="Hello")
    chunks = [data for _, data in events[:-1]]
    assert events[-1] == ("message", "[DONE]")
    assert [chunk["delta"].get("content") for chunk in chunks[:-1]] == ["Hello", " there", ",", " friend", "."]
    assert chunks[0]["delta"]["role"] == "assistant"
    assert {chunk["index"] for chunk in chunks} == {0}
    assert [chunk["finish_reason"] for chunk in chunks] == [None] * 5 + ["stop"]
    assert chunks[-1]["usage"]["total_tokens"] == 16
    assert chunks[-1]["metadata"] == chunks[-1]["_metadata"]
    assert chunks[-1]["metadata"]["vendor"] == "first"


def test_a_streamed_tool_call_has_its_name_once_and_its_arguments_in_pieces(vendors: Vendors) -> None:
    vendors.first.tool_calls = [("weather", '{"city": "Paris"}')]
    events = vendors.server.events(messages="Paris?", tools=[WEATHER])
    deltas = [made for _, data in events[:-1] for made in data["delta"].get("tool_calls", ())]
    assert deltas[0]["id"] == "call_0"
    assert [made["function"].get("name") for made in deltas] == ["weather"] + [None] * (len(deltas) - 1)
    assert "".join(made["function"]["arguments"] for made in deltas) == '{"city": "Paris"}'
    assert events[-2][1]["finish_reason"] == "tool_calls"


def test_only_the_field_makes_a_stream(vendors: Vendors) -> None:
    response = vendors.server.post(CHAT, headers={"Accept": "text/event-stream"}, messages="Hello")
    assert response.headers["content-type"] == "application/json"


def test_an_error_before_the_first_token_is_an_ordinary_error(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=400, message="no such thing"))
    error = problem(vendors.server.post(CHAT, messages="Hello", stream=True), 422)
    assert error["code"] == "vendor_refused"


@pytest.mark.parametrize("plan", [Plan(reset=True, after=3), Plan(garbage=True, after=3)])
def test_an_error_after_it_is_an_event_and_there_is_no_done(vendors: Vendors, plan: Plan) -> None:
    vendors.first.plan(VENDOR_CHAT, plan)
    response = vendors.server.post(CHAT, messages="Hello", stream=True)
    events = parsed(response.text)
    assert said(events[:-1]).startswith("Hello")
    kind, data = events[-1]
    assert kind == "error"
    assert data["error"]["request_id"] == response.headers["x-request-id"]
    assert data["status"] == 502
    assert not vendors.second.requests(VENDOR_CHAT)
