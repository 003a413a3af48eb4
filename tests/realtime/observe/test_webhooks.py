"""Delivery of webhooks against a receiver that is slow, down, repeats itself, answers garbage."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from realtime.observe import webhooks
from realtime.observe.webhooks import Endpoint, Webhooks
from realtime.store.base import Store, StoreError
from realtime.store.memory import MemoryStore
from tests.media.webrtc import until
from tests.realtime.observe.receiver import OK, SECRET, Receiver, answer, receiver

KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
ALL = frozenset({"call.incoming", "call.started", "call.ended"})


def endpoint(url: str, *, timeout_s: float = 5.0, events: frozenset[str] = ALL) -> Endpoint:
    return Endpoint(url, KEY, timeout_s, events)


@asynccontextmanager
async def sending(
    found: Receiver | Endpoint | None, *, store: Store | None = None, delays_s: Sequence[float] = (0.02,)
) -> AsyncIterator[Webhooks]:
    to = endpoint(found.url) if isinstance(found, Receiver) else found
    sender = Webhooks(store or MemoryStore(), lambda agent: to, delays_s=delays_s)
    await sender.start()
    try:
        yield sender
    finally:
        await sender.close()


async def test_a_message_is_signed_as_the_official_library_checks_it() -> None:
    async with receiver() as found, sending(found) as sender:
        sender.tell("default", "rtc_1", "call.started", {"session_id": "sess_1", "word": "größer"})
        await found.until(lambda: len(found.taken) == 1)
    assert found.taken[0]["type"] == "call.started"
    assert found.taken[0]["data"] == {"session_id": "sess_1", "word": "größer"}
    assert found.taken[0]["timestamp"].endswith("+00:00")


@pytest.mark.parametrize(
    "failure",
    [
        answer("500 Oops"),
        answer("302 Found", location="http://127.0.0.1:1/elsewhere"),
        answer("429 Too Many", retry_after="0"),
        answer("503 Busy", retry_after="soon"),
        answer("404 Not Found", b"x" * 1_000_000),
        b"\x00\xff garbage, and no HTTP at all\r\n\r\n",
        b"HTTP/1.",
        b"",
        b"HTTP/1.1 500 Oops\r\n" + b"x: y\r\n" * 200_000 + b"\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n",
        answer("999 Huh"),
    ],
    ids=[
        "500",
        "redirect",
        "429",
        "bad-retry-after",
        "large",
        "garbage",
        "cut-off",
        "hang-up",
        "headers-without-end",
        "nothing-final",
        "no-such-status",
    ],
)
async def test_what_was_not_taken_is_sent_again_with_the_same_id(failure: bytes) -> None:
    async with receiver(failure, failure) as found, sending(found) as sender:
        sender.tell("default", "rtc_1", "call.started", {})
        await found.until(lambda: bool(found.taken))
    assert len(found.ids) >= 3
    assert len(set(found.ids)) == 1


async def test_a_receiver_that_drips_its_answer_is_not_waited_for_longer_than_one_that_is_silent() -> None:
    tries = 0

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not writer.is_closing():
                writer.write(b"x: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, sending(endpoint(url, timeout_s=0.2)) as sender:
        sender.tell("default", "rtc_1", "call.started", {})
        await until(lambda: tries >= 3, "it is tried again")


def test_a_message_that_somebody_replays_is_known_by_its_age_its_id_and_its_signature() -> None:
    body, now = b'{"type":"call.ended"}', int(time.time())
    receiving = Webhook(SECRET)

    def headers(id_: str = "msg_1", at: int = now, signed: bytes = body) -> dict[str, str]:
        return {
            "webhook-id": id_,
            "webhook-timestamp": str(at),
            "webhook-signature": webhooks.sign(KEY, id_, at, signed),
        }

    assert receiving.verify(body, headers())["type"] == "call.ended"
    with pytest.raises(WebhookVerificationError):
        receiving.verify(body, headers(at=now - 600))  # kept for ten minutes, then sent again
    with pytest.raises(WebhookVerificationError):
        receiving.verify(body, {**headers(), "webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        receiving.verify(body, {**headers(at=now - 600), "webhook-timestamp": str(now)})
    with pytest.raises(WebhookVerificationError):
        receiving.verify(b'{"type":"call.started"}', headers())


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again() -> None:
    async with receiver(10.0) as found, sending(endpoint(found.url, timeout_s=0.2)) as sender:
        sender.tell("default", "rtc_1", "call.started", {})
        await found.until(lambda: bool(found.taken))
    assert len(found.ids) == 2


async def test_messages_of_a_call_keep_their_order_and_other_calls_do_not_wait_for_them() -> None:
    async with receiver(answer("500 Oops"), answer("500 Oops")) as found, sending(found, delays_s=(0.3,)) as sender:
        sender.tell("default", "rtc_1", "call.started", {"call": 1})
        sender.tell("default", "rtc_1", "call.ended", {"call": 1})
        await found.until(lambda: len(found.ids) == 1)
        sender.tell("default", "rtc_2", "call.started", {"call": 2})
        await found.until(lambda: len(found.taken) == 3)
    of_first = [message["type"] for message in found.taken if message["data"]["call"] == 1]
    assert of_first == ["call.started", "call.ended"]


async def test_a_receiver_that_wants_no_more_gets_none() -> None:
    async with receiver(answer("410 Gone")) as found, sending(found) as sender:
        sender.tell("default", "rtc_1", "call.started", {"number": 1})
        sender.tell("default", "rtc_1", "call.ended", {"number": 2})
        await found.until(lambda: bool(found.taken))
    assert [message["data"]["number"] for message in found.taken] == [2]


async def test_what_was_promised_outlives_the_process_in_order() -> None:
    store = MemoryStore()
    async with receiver() as found:
        port = found.port
    async with sending(endpoint(f"http://127.0.0.1:{port}/hooks"), store=store, delays_s=(30.0,)) as sender:
        sender.tell("default", "rtc_1", "call.started", {})
        sender.tell("default", "rtc_1", "call.ended", {})
    async with receiver(port=port) as found, sending(found, store=store):
        await found.until(lambda: len(found.taken) == 2)
    assert found.kinds() == ["call.started", "call.ended"]
    assert await store.scan("webhook:") == []


class Counted(MemoryStore):
    @property
    def empty(self) -> bool:
        return not self._entries


async def test_what_nobody_is_to_be_told_any_more_is_forgotten() -> None:
    store = Counted()
    async with sending(endpoint("http://127.0.0.1:1/"), store=store, delays_s=(30.0,)) as sender:
        sender.tell("default", "rtc_1", "call.started", {})
    assert len(await store.scan("webhook:due:")) == 1
    async with sending(None, store=store):
        await until(lambda: store.empty, "the message is forgotten", 5.0)


async def test_after_half_a_day_a_message_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    now = time.time()
    store = Counted()
    sender = Webhooks(store, lambda agent: endpoint("http://127.0.0.1:1/"), delays_s=(0.01,), clock=lambda: now)
    await sender.start()
    sender.tell("default", "rtc_1", "call.started", {})
    await until(lambda: bool(caplog.records), "it was tried", 5.0)
    now += webhooks.GIVE_UP_S
    await until(lambda: "given up" in caplog.text and store.empty, "it was given up", 5.0)
    await sender.close()


async def test_a_broken_store_costs_the_promise_but_not_the_message() -> None:
    class Broken(MemoryStore):
        async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            raise StoreError("The disk is full.")

    async with receiver(answer("500 Oops")) as found, sending(found, store=Broken()) as sender:
        sender.tell("default", "rtc_1", "call.started", {})
        await found.until(lambda: bool(found.taken))


async def test_only_the_events_that_were_asked_for_are_sent() -> None:
    async with receiver() as found:
        only = endpoint(found.url, events=frozenset({"call.ended"}))
        async with sending(only) as sender:
            sender.tell("default", "rtc_1", "call.started", {})
            assert await sender.ask("default", "call.incoming", {}) == {}
            sender.tell("default", "rtc_1", "call.ended", {})
            await found.until(lambda: bool(found.taken))
    assert found.kinds() == ["call.ended"]
    assert len(found.ids) == 1


async def test_no_more_than_some_requests_are_under_way_to_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "AT_ONCE", 4)
    async with receiver() as found, sending(found) as sender:
        for number in range(40):
            sender.tell("default", f"rtc_{number}", "call.started", {})
        await found.until(lambda: len(found.taken) == 40)
    assert found.most_at_once <= 4


async def test_when_too_many_wait_the_next_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "MAX_WAITING", 2)
    store = MemoryStore()
    async with sending(endpoint("http://127.0.0.1:1/"), store=store, delays_s=(30.0,)) as sender:
        for number in range(3):
            sender.tell("default", f"rtc_{number}", "call.started", {})
    assert "is dropped: 2 others wait" in caplog.text
    assert len(await store.scan("webhook:due:")) == 2


async def test_a_transcript_too_long_for_the_store_loses_its_beginning() -> None:
    transcript = [{"role": "user", "text": "x" * 10_000, "item_id": str(number)} for number in range(200)]
    async with receiver() as found, sending(found) as sender:
        sender.tell("default", "rtc_1", "call.ended", {"transcript": transcript, "reason": "hangup"})
        await found.until(lambda: bool(found.taken))
    data = found.taken[0]["data"]
    assert data["transcript_shortened"] is True
    assert data["transcript"][-1]["item_id"] == "199"
    assert data["reason"] == "hangup"


async def test_a_question_gets_its_answer() -> None:
    body = b'{"agent": "sales", "variables": {"name": "Ada"}}'
    async with receiver(answer("200 OK", body)) as found, sending(found) as sender:
        given = await sender.ask("default", "call.incoming", {"session_id": "sess_1"})
        assert given == {"agent": "sales", "variables": {"name": "Ada"}}
        assert await sender.ask("default", "call.incoming", {}) == {}  # 204: whatever the default is
    assert found.taken[0]["data"] == {"session_id": "sess_1"}


@pytest.mark.parametrize(
    "reply",
    [
        answer("500 Oops", b"{}"),
        answer("302 Found", location="/"),
        answer("200 OK", b"not json"),
        answer("200 OK", b"[1]"),
        answer("200 OK", b'{"agent": "' + b"x" * (70 << 10) + b'"}'),
        b"no http\r\n\r\n",
        OK.replace(b"204 No Content\r\n", b"200 OK\r\ncontent-length: 50\r\n"),
        b"",
    ],
    ids=["500", "redirect", "not-json", "no-object", "too-long", "garbage", "half-an-answer", "hang-up"],
)
async def test_a_question_without_a_proper_answer_is_answered_by_nothing(
    reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ANSWER_S", 0.5)
    async with receiver(reply) as found, sending(found) as sender:
        assert await sender.ask("default", "call.incoming", {}) == {}


async def test_a_slow_answer_is_waited_for_no_longer_than_a_caller_may_be_kept() -> None:
    async with receiver(30.0) as found, sending(found) as sender:
        began = time.monotonic()
        assert await sender.ask("default", "call.incoming", {}) == {}
        assert time.monotonic() - began < 3 * webhooks.ANSWER_S


async def test_nothing_is_posted_to_an_address_that_the_settings_do_not_name() -> None:
    async with receiver() as elsewhere:
        moved = answer("307 Temporary Redirect", location=elsewhere.url)
        async with receiver(moved, moved) as found, sending(found) as sender:
            assert await sender.ask("default", "call.incoming", {}) == {}
            sender.tell("default", "rtc_1", "call.started", {})
            await found.until(lambda: bool(found.taken))
    assert elsewhere.ids == []
