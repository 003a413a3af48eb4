"""Batch jobs that a vendor's own batch interface does, through the endpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from realtime.settings import LimitSettings, Settings
from tests.realtime.gateway.server import CHAT, INSTANT, Running, model, running, settings, vendor
from tests.vendors.batches_stub import BatchesStub
from tests.vendors.openai_stub import CHAT as VENDOR_CHAT
from tests.vendors.openai_stub import OpenAIStub

HALF = {"input_cost_per_token_batches": 5e-7, "output_cost_per_token_batches": 1e-6}
QUICK = {"collect_s": 0.05, "poll_s": (0.02, 0.1), "submit_wait_s": (0.01, 0.1)}


@dataclass
class World:
    """`plain`: a vendor without batches, dearer than all others, on the same server."""

    server: Running
    stub: BatchesStub
    plain: OpenAIStub


def configured(folder: Path, stub: BatchesStub, plain: OpenAIStub) -> Settings:
    vendors = {
        "oa": vendor(f"{stub.url}/v1", batches=True),
        "an": vendor(stub.url, kind="anthropic", batches=True),
        "ge": vendor(stub.url, kind="gemini", batches=True),
        "plain": vendor(plain.base_url),
    }
    models = [
        model("gpt", "oa", quality={"general": 80}, **HALF),
        model("claude", "an", quality={"general": 70}, **HALF),
        model("gemini", "ge", quality={"general": 60}),
        model("plain", "plain", quality={"general": 10}, input_cost_per_token=1.0, output_cost_per_token=1.0),
    ]
    limits = LimitSettings(requests_per_minute=60_000)
    return settings(folder, vendors=vendors, models=models, live=INSTANT, limits=limits)


@contextlib.contextmanager
def quick(wanted: Settings) -> Iterator[Running]:
    with running(wanted) as server:
        for name, value in QUICK.items():
            setattr(server.gateway.batches.vendors, name, value)  # type: ignore[attr-defined]
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("batches")
    with BatchesStub().serve() as stub, OpenAIStub().serve() as plain, quick(configured(folder, stub, plain)) as server:
        yield World(server, stub, plain)


@pytest.fixture
def world(served: World) -> World:
    stub = served.stub
    vars(stub).update({**vars(BatchesStub()), "url": stub.url, "_changed": stub._changed})
    served.plain.journal.clear()
    return served


def job_of(server: Running, **body: Any) -> dict[str, Any]:
    response = server.post(CHAT, batch_mode=True, timeout_seconds=0.4, **body)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job


def look(server: Running, job: dict[str, Any], until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + 10
    while True:
        shown: dict[str, Any] = server.client.get(f"/v1/ai/batches/{job['id']}").json()
        if until(shown):
            return shown
        assert time.monotonic() < end, shown
        time.sleep(0.02)


def over(shown: dict[str, Any]) -> bool:
    return shown["status"] not in ("queued", "running")


@pytest.mark.parametrize(
    ("name", "discount", "cost"), [("gpt", 0.5, 6e-5), ("claude", 0.5, 6e-5), ("gemini", None, None)]
)
def test_what_is_done_in_time_is_the_answer_with_the_vendors_discount(
    world: World, name: str, discount: float | None, cost: float | None
) -> None:
    world.stub.finish_at_once = True
    answer = world.server.ok(CHAT, messages="Hello", model=name, batch_mode=True, timeout_seconds=20)
    assert (answer["content"], answer["finish_reason"]) == ("From a batch.", "stop")
    assert answer["usage"]["total_tokens"] == 110
    metadata = answer["metadata"]
    assert metadata["discount"] == discount, "only a price that is known is a discount"
    assert metadata["cost_usd"] == (cost if cost is None else pytest.approx(cost))
    assert metadata["warnings"] == []
    assert [attempt["status"] for attempt in metadata["attempts"]] == ["ok"]
    (sent,) = world.stub.sent
    assert list(sent.requests) == [metadata["batch_id"]]
    assert not world.plain.requests(VENDOR_CHAT)


async def test_jobs_of_one_moment_are_one_batch_and_what_the_vendor_keeps_is_cleared_away(world: World) -> None:
    world.server.gateway.batches.vendors.collect_s = 1.0  # type: ignore[attr-defined]
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(lambda n: job_of(world.server, messages=f"say {n}", model="gpt"), range(4)))
            await world.stub.until(lambda: bool(world.stub.sent))
    finally:
        world.server.gateway.batches.vendors.collect_s = QUICK["collect_s"]  # type: ignore[attr-defined]
    (sent,) = world.stub.sent
    assert sent.requests.keys() == {job["id"] for job in jobs}
    assert look(world.server, jobs[0], lambda shown: shown["status"] == "running")
    world.stub.finish()
    found = [look(world.server, job, over)["result"]["content"] for job in jobs]
    assert found == ["0", "1", "2", "3"]
    await world.stub.until(lambda: not world.stub.files)


def test_a_refused_request_fails_alone(world: World) -> None:
    world.stub.finish_at_once = True
    error = world.server.error(422, CHAT, messages="fail", model="claude", batch_mode=True, timeout_seconds=20)
    assert error["code"] == "vendor_refused"


def test_another_vendor_takes_it_when_the_first_does_not(world: World) -> None:
    world.stub.refusals = [503, 503, 503]
    world.stub.finish_at_once = True
    answer = world.server.ok(CHAT, messages="Hello", prefer="smartest", batch_mode=True, timeout_seconds=20)
    metadata = answer["metadata"]
    assert [(one["model"], one["status"]) for one in metadata["attempts"]] == [("gpt", "overloaded"), ("claude", "ok")]
    assert metadata["failover"] is True


def test_a_batch_that_expires_is_a_failed_job(world: World) -> None:
    job = job_of(world.server, messages="Hello", model="claude")
    world.stub.finish("expired")
    shown = look(world.server, job, over)
    assert (shown["status"], shown["error"]["code"]) == ("failed", "batch_expired")


async def test_the_last_to_cancel_cancels_the_vendors_batch(world: World) -> None:
    job = job_of(world.server, messages="Hello", model="gpt")
    look(world.server, job, lambda shown: shown["status"] == "running")
    assert world.server.client.post(f"/v1/ai/batches/{job['id']}/cancel").json()["status"] == "cancelled"
    await world.stub.until(lambda: world.stub.sent[0].cancelled)


def test_an_answer_that_does_not_fit_is_asked_for_once_more_as_an_ordinary_request(world: World) -> None:
    world.stub.finish_at_once = True
    form = {"type": "json_object"}
    error = world.server.error(
        502, CHAT, messages="say no JSON", model="claude", response_format=form, batch_mode=True, timeout_seconds=20
    )
    assert error["code"] == "vendor_not_found", "the stub has no other interface, which is where it was asked"


def test_a_restart_asks_after_what_was_sent_and_sends_nothing_again(tmp_path: Path) -> None:
    with BatchesStub().serve() as stub, OpenAIStub().serve() as plain:
        wanted = configured(tmp_path, stub, plain)
        with quick(wanted) as server:
            job = job_of(server, messages="Hello", model="gpt")
            look(server, job, lambda shown: shown["status"] == "running")
        stub.text = "After the restart."
        with quick(wanted) as server:
            stub.finish()
            shown = look(server, job, over)
            assert shown["result"]["content"] == "After the restart."
            assert shown["result"]["metadata"]["discount"] == 0.5
        assert len(stub.sent) == 1
        assert not stub.sent[0].cancelled
