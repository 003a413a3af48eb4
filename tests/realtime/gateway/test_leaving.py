"""The caller leaves: an unkeyed request is aborted at the vendor at once, a keyed one is finished and kept."""

from __future__ import annotations

import asyncio

import pytest

from tests.realtime.gateway.conftest import Vendors
from tests.realtime.gateway.server import CHAT, async_client, said
from tests.vendors.openai_stub import CHAT as VENDOR_CHAT
from tests.vendors.openai_stub import EMBEDDINGS, SPEECH, OpenAIStub, Plan

SLOW = Plan(hang=True)
HALF = Plan(hang=True, after=3)


def closed(stub: OpenAIStub, path: str) -> bool:
    return any(record.closed_early for record in stub.requests(path))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("plan", [SLOW, HALF], ids=["before the first token", "after it"])
async def test_chat_is_aborted_at_the_vendor(vendors: Vendors, plan: Plan, stream: bool) -> None:
    vendors.first.plan(VENDOR_CHAT, plan)
    async with async_client(vendors.server) as client:
        request = asyncio.create_task(
            client.post(CHAT, json={"messages": "Hello", "stream": stream, "vendor": "first"})
        )
        await vendors.first.until(lambda: bool(vendors.first.requests(VENDOR_CHAT)))
        if plan is HALF:
            await vendors.first.until(lambda: vendors.first.requests(VENDOR_CHAT)[0].sent == 3)
        request.cancel()
        await asyncio.wait([request])
        await vendors.first.until(lambda: closed(vendors.first, VENDOR_CHAT))
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1


@pytest.mark.parametrize(
    ("path", "vendor_path", "body"),
    [("/v1/ai/embed", EMBEDDINGS, {"input": "x"}), ("/v1/ai/tts", SPEECH, {"input": "Hello there."})],
)
async def test_so_are_the_others(vendors: Vendors, path: str, vendor_path: str, body: dict[str, str]) -> None:
    vendors.first.plan(vendor_path, SLOW)
    async with async_client(vendors.server) as client:
        request = asyncio.create_task(client.post(path, json={**body, "vendor": "first"}))
        await vendors.first.until(lambda: bool(vendors.first.requests(vendor_path)))
        request.cancel()
        await asyncio.wait([request])
        await vendors.first.until(lambda: closed(vendors.first, vendor_path))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_keyed_request_is_finished_and_its_retry_gets_the_result(vendors: Vendors, stream: bool) -> None:
    body = {"messages": "Hello", "stream": stream, "idempotency_key": f"left-{stream}"}
    vendors.first.tokens = ["word "] * 2000
    async with async_client(vendors.server) as client:
        request = asyncio.create_task(client.post(CHAT, json=body))
        await vendors.first.until(lambda: bool(vendors.first.requests(VENDOR_CHAT)))
        request.cancel()
        await asyncio.wait([request])
        await vendors.first.until(lambda: vendors.first.requests(VENDOR_CHAT)[0].finished)
        for _ in range(200):
            response = await client.post(CHAT, json=body)
            if response.status_code != 409:
                break
            await asyncio.sleep(0.02)
    assert response.status_code == 200
    assert response.headers["idempotent-replayed"] == "true"
    if stream:
        from tests.realtime.gateway.server import parsed

        assert said(parsed(response.text)) == "word " * 2000
    else:
        assert response.json()["content"] == "word " * 2000
    assert len(vendors.first.requests(VENDOR_CHAT)) == 1


async def test_what_was_used_until_then_is_counted(vendors: Vendors) -> None:
    before = vendors.server.client.get("/v1/ai/usage").json()["days"]
    vendors.first.plan(VENDOR_CHAT, HALF)
    async with async_client(vendors.server) as client:
        async with client.stream("POST", CHAT, json={"messages": "Hello", "stream": True}) as response:
            await anext(response.aiter_lines())
        await vendors.first.until(lambda: closed(vendors.first, VENDOR_CHAT))
        total = sum(day["requests"] for day in before.values())
        for _ in range(100):
            after = (await client.get("/v1/ai/usage")).json()["days"]
            if sum(day["requests"] for day in after.values()) > total:
                return
            await asyncio.sleep(0.02)
    raise AssertionError("the broken stream was not counted")
