"""Requests a minute, dollars a day, usage by key; and what the OpenAPI document says."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from realtime.adapters.routing import Amount
from realtime.gateway.errors import GatewayError
from realtime.gateway.limits import Meter, Rate
from realtime.settings import LimitSettings
from realtime.store.base import StoreError
from realtime.store.memory import MemoryStore
from tests.realtime.gateway.server import CHAT, INSTANT, Running, problem, running, settings

NOON = 1_800_000_000.0 // 86_400 * 86_400 + 43_200


def test_the_rate_is_steady_after_a_burst() -> None:
    rate = Rate(60)
    waits = [rate.take("key", 0.0) for _ in range(11)]
    assert waits[:10] == [0.0] * 10
    assert waits[10] == pytest.approx(1.0)
    assert rate.take("key", 1.0) == 0.0
    assert rate.take("key", 1.0) > 0
    assert rate.take("another", 1.0) == 0.0
    assert [rate.take("key", 100.0 + second) for second in range(20)] == [0.0] * 20


async def test_spent_money_is_429_until_midnight_and_known_after_a_restart() -> None:
    store, clock = MemoryStore(), [NOON]
    meter = Meter(store, 0.01, clock=lambda: clock[0])
    await meter.admit("key")
    await meter.count("key", Amount(100, 100), 0.006)
    await meter.admit("key")
    await meter.count("key", Amount(100, 100), 0.006)
    with pytest.raises(GatewayError) as caught:
        await meter.admit("key")
    assert (caught.value.status, caught.value.retry_after) == (429, 43_200)
    await meter.admit("another")
    await meter.close()
    again = Meter(store, 0.01, clock=lambda: clock[0])
    with pytest.raises(GatewayError):
        await again.admit("key")
    clock[0] += 43_201
    await again.admit("key")


async def test_a_store_that_cannot_be_written_does_not_keep_the_server_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    store = MemoryStore()
    meter = Meter(store)
    meter.start()
    await meter.count("key", Amount(1, 1), 0.1)
    monkeypatch.setattr(store, "put", full)
    await meter.close()


async def test_usage_is_by_day_with_what_has_no_price_apart() -> None:
    clock = [NOON]
    meter = Meter(MemoryStore(), clock=lambda: clock[0])
    await meter.count("key", Amount(10, 5), 0.5)
    clock[0] += 86_400
    await meter.count("key", Amount(characters=7, audio_seconds=1.5), None)
    used = await meter.used("key", 3)
    today, yesterday = used.values()
    assert (today.requests, today.characters, today.audio_seconds, today.unpriced) == (1, 7, 1.5, 1)
    assert (yesterday.input_tokens, yesterday.output_tokens, yesterday.cost_usd) == (10, 5, 0.5)
    assert await meter.used("another", 3) == {}


def test_over_the_rate_is_429_with_retry_after(tmp_path: Path) -> None:
    configured = settings(tmp_path, live=INSTANT, limits=LimitSettings(requests_per_minute=6))
    with running(configured, "instant") as server:
        server.ok(CHAT, messages="Hello")
        response = server.post(CHAT, messages="Hello")
        assert problem(response, 429)["code"] == "rate_limit_exceeded"
        assert 1 <= int(response.headers["retry-after"]) <= 10
        document = server.client.get("/openapi.json").json()
    for name in ("chat", "embed", "image", "vision", "tts", "asr"):
        about = document["paths"][f"/v1/ai/{name}"]["post"]
        body = about["requestBody"]["content"]["application/json"]
        assert body["examples"]
        assert "$ref" not in str(body["schema"])
        assert {"200", "401", "422", "429", "502", "504"} <= about["responses"].keys()
        assert about["tags"] == ["ai"]


@pytest.mark.parametrize("query", ["days=0", "days=x", "days=91"])
def test_the_key_is_checked_before_the_number_of_days(embedded: Running, query: str) -> None:
    path = f"/v1/ai/usage?{query}"
    problem(httpx2.get(embedded.url + path, trust_env=False), 401)
    problem(embedded.client.get(path), 422)
