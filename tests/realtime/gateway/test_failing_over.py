"""One vendor fails, the next answers, `attempts` says so, and nobody pays more than allowed."""

from __future__ import annotations

import random

import pytest

from tests.realtime.gateway.conftest import Vendors
from tests.realtime.gateway.server import CHAT, said
from tests.vendors.openai_stub import CHAT as VENDOR_CHAT
from tests.vendors.openai_stub import EMBEDDINGS, SPEECH, TRANSCRIPTIONS, Plan

FAILURES = {
    "429": (Plan(status=429), "rate_limited"),
    "500": (Plan(status=500), "bad_response"),
    "503": (Plan(status=503), "overloaded"),
    "504": (Plan(status=504), "timeout"),
    "401": (Plan(status=401), "auth_failed"),
    "404": (Plan(status=404), "not_found"),
    "reset": (Plan(reset=True), "connection_failed"),
    "garbage": (Plan(garbage=True), "bad_response"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_the_next_vendor_answers(vendors: Vendors, failure: str, stream: bool) -> None:
    plan, status = FAILURES[failure]
    vendors.first.plan(VENDOR_CHAT, plan)
    if stream:
        events = vendors.server.events(messages="Hello")
        assert said(events) == "Hello there, friend."
        metadata = events[-2][1]["metadata"]
    else:
        metadata = vendors.server.ok(CHAT, messages="Hello")["metadata"]
    assert metadata["failover"] is True
    assert [(one["vendor"], one["status"]) for one in metadata["attempts"]] == [("first", status), ("second", "ok")]
    assert metadata["vendor"] == "second"
    assert not vendors.dear.requests(VENDOR_CHAT)


def test_a_whole_answer_survives_a_failure_in_the_middle(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(reset=True, after=3))
    assert vendors.server.ok(CHAT, messages="Hello")["metadata"]["vendor"] == "second"


def test_a_refused_request_is_the_callers_fault_and_goes_nowhere_else(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=400, message="too hot"))
    assert vendors.server.error(422, CHAT, messages="Hello")["code"] == "vendor_refused"
    assert not vendors.second.requests(VENDOR_CHAT)


@pytest.mark.parametrize(
    ("body", "vendors_tried"),
    [
        ({}, ["first", "second", "first", "second"]),
        ({"max_cost_multiplier": 0}, ["first", "first"]),
        ({"max_cost_multiplier": 1.1}, ["first", "first"]),
        ({"max_cost_multiplier": 100}, ["first", "dear", "second", "first", "dear", "second"]),
        ({"vendor": "first"}, ["first", "first"]),
        ({"model": "gpt-one"}, ["first", "first"]),
    ],
)
def test_each_vendor_is_tried_twice_at_most_within_the_price(
    vendors: Vendors, body: dict[str, object], vendors_tried: list[str]
) -> None:
    for stub in vendors.stubs:
        stub.plan(VENDOR_CHAT, Plan(status=500), times=3)
    error = vendors.server.error(502, CHAT, messages="Hello", **body)
    assert error["retryable"] is True
    asked = [len(stub.requests(VENDOR_CHAT)) for stub in vendors.stubs]
    assert asked == [vendors_tried.count(name) for name in ("first", "second", "dear")]


def test_the_vendor_that_refuses_our_key_is_not_the_callers_401(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=401, message="sk-secret-0123456789"), times=2)
    error = vendors.server.error(502, CHAT, messages="Hello", vendor="first")
    assert error["code"] == "vendor_auth"
    assert "sk-" not in error["message"]


def test_retry_after_is_honoured_and_said(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=429, headers={"retry-after": "7"}), times=2)
    response = vendors.server.post(CHAT, messages="Hello", vendor="first", timeout_seconds=2)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    # Seven seconds do not fit into two: it was not asked again too early, nor is it by the next request.
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1
    assert vendors.server.ok(CHAT, messages="Hello")["metadata"]["vendor"] == "second"
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1


def test_a_short_retry_after_is_waited_for(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=429, headers={"retry-after": "0.2"}))
    metadata = vendors.server.ok(CHAT, messages="Hello", vendor="first")["metadata"]
    assert [one["status"] for one in metadata["attempts"]] == ["rate_limited", "ok"]
    assert metadata["failover"] is False


@pytest.mark.parametrize("stream", [False, True])
def test_the_deadline_is_over_all_attempts(vendors: Vendors, stream: bool) -> None:
    for stub in vendors.stubs:
        stub.plan(VENDOR_CHAT, Plan(hang=True), times=4)
    response = vendors.server.post(CHAT, messages="Hello", stream=stream, timeout_seconds=1)
    assert response.status_code == 504
    assert response.elapsed.total_seconds() < 4


def test_a_vendor_that_keeps_failing_is_left_alone_and_others_answer(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=500), times=50)
    for _ in range(8):
        vendors.server.ok(CHAT, messages="Hello")
    assert len(vendors.first.requests(VENDOR_CHAT)) == 5
    offers = vendors.server.client.get("/v1/ai/models").json()["data"]
    assert [one["available"] for one in offers if one["id"] in ("gpt-one", "gpt-two")] == [False, True]


def test_a_sick_primary_does_not_raise_the_price(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=500), times=50)
    vendors.second.plan(VENDOR_CHAT, Plan(status=500), times=50)
    for _ in range(4):
        vendors.server.error(502, CHAT, messages="Hello")
    assert not vendors.dear.requests(VENDOR_CHAT)


@pytest.mark.parametrize(
    ("path", "vendor_path", "body"),
    [("/v1/ai/embed", EMBEDDINGS, {"input": "x"}), ("/v1/ai/tts", SPEECH, {"input": "Hello."})],
)
def test_the_other_endpoints_fail_over_too(vendors: Vendors, path: str, vendor_path: str, body: dict[str, str]) -> None:
    vendors.first.plan(vendor_path, Plan(status=500))
    assert vendors.server.ok(path, **body)["metadata"]["vendor"] == "second"


def test_what_was_said_by_the_failed_vendor_of_speech_is_not_in_the_result(vendors: Vendors) -> None:
    vendors.first.plan(SPEECH, Plan(reset=True, after=2))
    answer = vendors.server.ok("/v1/ai/tts", input="Hello.", format="wav")
    assert answer["metadata"]["vendor"] == "second"
    assert answer["duration_seconds"] == pytest.approx(0.6, abs=0.01)


def test_transcription_fails_over(vendors: Vendors) -> None:
    vendors.first.plan(TRANSCRIPTIONS, Plan(status=503))
    with open("tests/audio/synth_flite_slt_how_are_you.wav", "rb") as file:
        response = vendors.server.client.post("/v1/ai/asr", files={"audio": ("a.wav", file)})
    assert response.status_code == 200, response.text
    assert response.json()["metadata"]["vendor"] == "second"


def test_under_chaos_only_what_no_try_could_have_answered_fails(vendors: Vendors) -> None:
    """30 % of the first vendor's answers are 429, 20 % of the second's are broken connections.

    All four tries of a request fail in 0.36 % of cases; here in one of a hundred.
    """
    chance = random.Random(2)
    plans = [(chance.random() < 0.3, chance.random() < 0.2) for _ in range(200)]
    for busy, broken in plans:
        vendors.first.plan(VENDOR_CHAT, Plan(status=429) if busy else Plan())
        vendors.second.plan(VENDOR_CHAT, Plan(reset=True) if broken else Plan())
    first, second = (iter(column) for column in zip(*plans, strict=True))
    hopeless = sum(all(next(vendor) for vendor in (first, second, first, second)) for _ in range(100))
    answers = [vendors.server.post(CHAT, messages="Hello").status_code for _ in range(100)]
    assert answers.count(200) == 100 - hopeless
    assert hopeless == 1
