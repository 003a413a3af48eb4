"""Telephone calls on a running server, placed by streamdouble, a Twilio that nobody here wrote."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import orjson
import pytest
import websockets
from streamdouble.api import CallReport
from streamdouble.chaos import Impairments
from streamdouble.scenario import Wait, WaitFor

from tests.calls import phone
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import Server
from tests.media.webrtc import loudest_hz


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("phone")
    with Server(folder, "--engines", "instant", config=phone.CONFIG, environ=phone.ENVIRON) as running:
        yield running


@pytest.fixture(scope="module")
def reports(line: Server) -> dict[str, CallReport]:
    """Three calls at once: an ordinary one, one over a bad network, one who talks over the bot."""

    async def all_at_once() -> dict[str, CallReport]:
        question = phone.saying(HOW_ARE_YOU)
        bad = Impairments(loss=0.05, jitter_ms=15)  # a latency would stretch the speech instead of delaying it
        plain, lossy, cutting = await asyncio.gather(
            phone.ring(line, question, WaitFor("audio"), WaitFor("quiet")),
            phone.ring(line, question, WaitFor("audio"), WaitFor("quiet"), impairments=bad, chaos_seed=1),
            phone.ring(line, question, WaitFor("audio"), Wait(0.5), question, WaitFor("clear"), max_drain_s=0.6),
        )
        return {"plain": plain, "lossy": lossy, "cutting": cutting}

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("kind", ["plain", "lossy"])
def test_a_caller_speaks_and_hears_the_whole_answer(reports: dict[str, CallReport], kind: str) -> None:
    report = reports[kind]
    assert report.result.violations == []
    heard = phone.pcm_of(report)
    assert 4.9 < len(heard) / 8000 < 5.1
    assert abs(loudest_hz(heard, 8000) - 440) < 5
    assert report.result.marks_received, "marks tell what was heard"


def test_who_talks_over_the_bot_silences_it_and_the_turn_keeps_what_was_heard(
    reports: dict[str, CallReport], line: Server
) -> None:
    report = reports["cutting"]
    assert report.result.violations == []
    at = {event.kind: event.at for event in reversed(report.result.events)}
    cut = at["clear_received"]
    stale = [event for event in report.result.events if event.kind == "media_received" and 0 < event.at - cut < 0.5]
    assert stale == [], "the next answer takes longer than that to come"
    turns = re.findall(r"barge_in_ms=[\d.]+ heard_ms=([\d.]+)", line.log())
    assert len(turns) == 1, line.log()
    assert float(turns[0]) == pytest.approx((at["clear_received"] - at["first_audio"]) * 1000, abs=250)


def test_the_log_never_shows_the_callers_number(reports: dict[str, CallReport], line: Server) -> None:
    assert phone.CALLER not in line.log()
    assert phone.CALLER.removeprefix("+") not in line.log()


async def test_the_webhook_is_refused_without_the_carriers_signature(line: Server) -> None:
    url = f"{line.url}{phone.PATH}/answer"
    for signed in (phone.signature(url), phone.signature(url, {"CallSid": "CA1"}, "another"), "", "\xe9", "x" * 5000):
        status, _, body = await line.request(
            "POST", f"{phone.PATH}/answer", b"CallSid=CA1", credential=None, x_twilio_signature=signed
        )
        assert (status, orjson.loads(body)["error"]["code"]) == (403, "bad_signature")


async def test_a_token_opens_its_own_call_and_that_once(line: Server) -> None:
    _, document = await phone.announce(line, "CAown")
    token = phone.token_in(document)
    assert not await opened(line, "CAother", token)
    assert not await opened(line, "CAown", token), "a token that was tried is used up"
    _, document = await phone.announce(line, "CAown")
    token = phone.token_in(document)
    assert await opened(line, "CAown", token)
    assert not await opened(line, "CAown", token)
    status, _ = await phone.announce(line, "CAown")
    assert status == 409, "the webhook of a call that was opened is a replay"


async def opened(line: Server, call_sid: str, token: str) -> bool:
    """Whether a socket that brings this token gets a call; one that is refused is closed."""
    async with websockets.connect(f"{line.url.replace('http', 'ws')}{phone.PATH}") as socket:
        start = {"streamSid": "MZ1", "callSid": call_sid, "customParameters": {"realtime_token": token}}
        await socket.send(orjson.dumps({"event": "start", "start": start}).decode())
        closed = asyncio.create_task(socket.wait_closed())
        try:
            async with asyncio.timeout(5):
                while not closed.done():
                    if await line.sessions():
                        return True
                    await asyncio.sleep(0.02)
            assert socket.close_code == 1008
            return False
        finally:
            closed.cancel()
            await socket.close()
            await line.until_calls(0)


async def test_a_signed_socket_is_accepted_and_a_wrongly_signed_one_refused(line: Server) -> None:
    url = f"{line.url.replace('http', 'ws')}{phone.PATH}"
    async with websockets.connect(url, additional_headers={"X-Twilio-Signature": phone.signature(url)}):
        pass
    for signed in (phone.signature(url, secret="another"), phone.signature(line.url + phone.PATH), "x"):
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await websockets.connect(url, additional_headers={"X-Twilio-Signature": signed})
        assert refusal.value.response.status_code == 403
