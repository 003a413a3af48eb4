"""The same key and body give the same result and one vendor call; over a restart too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from realtime.gateway import idempotency as module
from realtime.gateway.errors import GatewayError
from realtime.gateway.idempotency import LEASE_S, Claim, Idempotency, Stored, fingerprint
from realtime.store.memory import MemoryStore
from tests.realtime.gateway.conftest import Vendors
from tests.realtime.gateway.server import (
    CHAT,
    INSTANT,
    Running,
    async_client,
    model,
    parsed,
    running,
    said,
    settings,
    vendor,
)
from tests.vendors.openai_stub import CHAT as VENDOR_CHAT
from tests.vendors.openai_stub import EMBEDDINGS, OpenAIStub, Plan


async def test_of_twenty_identical_requests_at_once_one_reaches_the_vendor(vendors: Vendors) -> None:
    body = {"messages": "Hello", "idempotency_key": "twenty"}
    async with async_client(vendors.server) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert {answer.json()["content"] for answer in answers if answer.status_code == 200} == {"Hello there, friend."}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 409)
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1


def test_a_retry_gets_the_first_result_marked_as_such(vendors: Vendors) -> None:
    first = vendors.server.ok(CHAT, messages="Hello", idempotency_key="again")
    vendors.first.tokens = ["something else"]
    second = vendors.server.ok(CHAT, messages="Hello", idempotency_key="again")
    assert second["content"] == first["content"]
    assert second["metadata"] == {**first["metadata"], "idempotent_replay": True}
    assert vendors.server.post(CHAT, headers={"Idempotency-Key": "again"}, messages="Hello").json() == second


def test_a_stream_is_replayed_chunk_by_chunk(vendors: Vendors) -> None:
    body = {"messages": "Hello", "idempotency_key": "stream"}
    first, second = (vendors.server.events(**body) for _ in range(2))
    assert second[:-2] == first[:-2]
    assert said(second) == "Hello there, friend."
    assert second[-2][1]["metadata"]["idempotent_replay"] is True
    assert second[-1] == ("message", "[DONE]")
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1


def test_another_body_is_422(vendors: Vendors) -> None:
    vendors.server.ok(CHAT, messages="Hello", idempotency_key="mismatch")
    assert vendors.server.error(422, CHAT, messages="Bye", idempotency_key="mismatch")["code"] == "idempotency_mismatch"


def test_the_same_key_on_another_route_is_another_key(vendors: Vendors) -> None:
    vendors.server.ok(CHAT, messages="Hello", idempotency_key="routes")
    vendors.server.ok("/v1/ai/embed", input="Hello", idempotency_key="routes")
    assert len(vendors.first.requests(EMBEDDINGS)) == 1


def test_header_and_field_must_agree(vendors: Vendors) -> None:
    response = vendors.server.post(CHAT, headers={"Idempotency-Key": "a"}, messages="Hello", idempotency_key="b")
    assert response.status_code == 422


def test_what_may_turn_out_differently_is_not_kept_and_what_cannot_is(vendors: Vendors) -> None:
    body = {"messages": "Hello", "idempotency_key": "fails", "vendor": "first"}
    vendors.first.plan(VENDOR_CHAT, Plan(status=500), times=2)
    vendors.server.error(502, CHAT, **body)
    vendors.server.ok(CHAT, **body)
    stable = {"messages": "Hello", "idempotency_key": "stable", "model": "gpt-nine"}
    vendors.server.error(404, CHAT, **stable)
    response = vendors.server.post(CHAT, **stable)
    assert response.headers["idempotent-replayed"] == "true"


def test_a_keyed_request_whose_outcome_is_unknown_is_not_done_elsewhere(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(status=504))
    vendors.server.error(504, CHAT, messages="Hello", idempotency_key="unknown")
    assert not vendors.second.requests(VENDOR_CHAT)
    vendors.first.plan(VENDOR_CHAT, Plan(status=504))
    assert vendors.server.ok(CHAT, messages="Hello")["metadata"]["vendor"] == "second"


def test_a_result_outlives_the_server(tmp_path: Path) -> None:
    with OpenAIStub().serve() as stub:
        models = [model("m", "v"), model("e", "v", "embed")]
        configured = settings(tmp_path, vendors={"v": vendor(stub.base_url)}, models=models, live=INSTANT)
        big = {"input": ["text"] * 512, "dimensions": 1024, "idempotency_key": "big"}

        def answers(server: Running) -> tuple[object, ...]:
            chat = server.ok(CHAT, messages="Hello", idempotency_key="k")
            events = parsed(server.post(CHAT, messages="Hello", stream=True, idempotency_key="s").text)
            return chat["content"], said(events), server.ok("/v1/ai/embed", **big)["embeddings"]

        with running(configured) as server:
            first = answers(server)
        stub.tokens = ["changed"]
        with running(configured) as server:
            assert answers(server) == first
        assert len(stub.requests(VENDOR_CHAT)) == 2
        assert len(stub.requests(EMBEDDINGS)) == 1


# --- the claims themselves ------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_claim_of_a_process_that_died_is_free_again_seconds_later() -> None:
    clock = Clock()
    idempotency = Idempotency(MemoryStore(clock=clock))

    def process() -> object:
        return asyncio.run(idempotency.claim("key", "/r", "k", "print", 60))

    assert isinstance(await asyncio.to_thread(process), Claim)  # its event loop has ended, as at a kill
    with pytest.raises(GatewayError, match="still running"):
        await idempotency.claim("key", "/r", "k", "print", 60)
    clock.now += LEASE_S + 0.1
    claim = await idempotency.claim("key", "/r", "k", "print", 60)
    assert isinstance(claim, Claim)
    await claim.abandon()


async def test_a_claim_lasts_as_long_as_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_S", 0.0)
    clock = Clock()
    idempotency = Idempotency(MemoryStore(clock=clock))
    claim = await idempotency.claim("key", "/r", "k", "print", 60)
    assert isinstance(claim, Claim)
    for _ in range(10):
        for _ in range(5):
            await asyncio.sleep(0)
        clock.now += LEASE_S - 1
        with pytest.raises(GatewayError, match="still running"):
            await idempotency.claim("key", "/r", "k", "print", 60)
    await claim.finish(Stored("json", 200, b"{}"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert await idempotency.claim("key", "/r", "k", "print", 60) == Stored("json", 200, b"{}")


async def test_a_result_is_kept_for_a_day_for_its_owner_only() -> None:
    clock = Clock()
    idempotency = Idempotency(MemoryStore(clock=clock))
    claim = await idempotency.claim("key", "/r", "k", "print", 60)
    assert isinstance(claim, Claim)
    await claim.finish(Stored("json", 200, b"{}"))
    assert await idempotency.claim("key", "/r", "k", "print", 60) == Stored("json", 200, b"{}")
    assert isinstance(await idempotency.claim("other", "/r", "k", "print", 60), Claim)
    clock.now += 24 * 3600 - 1
    assert isinstance(await idempotency.claim("key", "/r", "k", "print", 60), Stored)
    clock.now += 2
    assert isinstance(await idempotency.claim("key", "/r", "k", "print", 60), Claim)


def test_the_order_of_fields_and_the_key_itself_do_not_matter() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1, "idempotency_key": "k"})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
