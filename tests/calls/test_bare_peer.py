"""Calls from a bare aiortc connection: no client of ours, only HTTP, WebRTC and the published events."""

from __future__ import annotations

import asyncio
import re
import time

import numpy as np
import pytest

from realtime.settings import TokenSettings
from tests.calls.caller import FRAGMENT, Caller, clip, code, dial, without_candidates
from tests.calls.conftest import HOW_ARE_YOU, WEATHER
from tests.calls.server import ROOT, Server
from tests.media.webrtc import rms, until
from token_service.keys import SigningKeys
from token_service.tokens import Tokens

A_SECOND = 48_000
"""Samples of what a caller hears."""

HEARD = "conversation.item.input_audio_transcription.completed"

HUMAN = ROOT.parent / "shared" / "audio"
HUMAN_CLIPS = {
    "human_librivox_ill_disposed": ("he was not an ill disposed young man", 1, 0.5),
    "human_go_forward_ten_meters": ("go forward ten meters", 1, 0.75),
    "human_cards_eight_of_spades": ("eight of spades four of clubs seven of hearts", 3, 0.67),
    "human_inaugural_1961_ask_not": ("", 4, None),
}
"""Words, the most turns that its pauses may make, and the word error rate that is still no regression: well
over what the recogniser reaches on its own (0.25, 0.5, 0.33). It makes nothing of the last one."""
LONGEST_S = 4
"""Of the last one the beginning will do."""

NO_ANSWER = {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}

needs_recogniser = pytest.mark.usefixtures("recogniser")


@pytest.fixture
def recogniser() -> None:
    pytest.importorskip("pocketsphinx", reason="words need the extra `local`")


@needs_recogniser
async def test_speech_is_understood_and_answered_aloud_with_events_in_order(server: Server):
    async with dial(server) as caller:
        await caller.microphone.say(clip(WEATHER))
        assert (await caller.wait_for(HEARD))["transcript"] == "what is the weather like in london tomorrow"
        await caller.wait_for("output_audio_buffer.stopped")
        await until(lambda: len(caller.sound()) > A_SECOND, "the first answer was heard")
        first = caller.sound()
        await caller.microphone.say(clip(HOW_ARE_YOU))
        assert (await caller.wait_for(HEARD))["transcript"].endswith("today")
        await until(lambda: len(caller.sound()) > len(first) + A_SECOND, "the second answer was heard")
        second = caller.sound()[len(first) :]
        caller.send({"type": "output_audio_buffer.clear"})
        await caller.wait_for("output_audio_buffer.cleared")
        said = [done["transcript"] for done in caller.of("response.output_audio_transcript.done")]
        orders = caller.orders()
        orders.finish()
        stats = await caller.stats()
    assert len(said) == 2
    assert all(said)
    assert not orders.errors
    # Aloud: well above what an encoder makes of silence.
    assert min(rms(first), rms(second)) > 500
    assert stats["packets_corrupt"] == stats["packets_unknown"] == stats["packets_undecryptable"] == 0


@needs_recogniser
async def test_a_gateway_that_has_no_opus_is_understood_and_answered_over_the_telephones_codecs(server: Server):
    await asyncio.gather(*(over(server, codec) for codec in ("pcmu", "pcma")))


async def over(server: Server, codec: str) -> None:
    async with dial(server, codec=codec) as caller:
        await caller.microphone.say(clip(WEATHER))
        assert (await caller.wait_for(HEARD))["transcript"] == "what is the weather like in london tomorrow"
        await until(lambda: len(caller.sound()) > caller.heard_hz, "a second of the answer was heard")
        stats = await caller.stats()
        answered = caller.answered.decode()
    assert caller.heard_hz == 8000
    assert rms(caller.sound()) > 500
    assert re.findall(r"a=rtpmap:\d+ (\S+)", answered) == [f"{codec.upper()}/8000"]
    assert stats["packets_corrupt"] == stats["packets_unknown"] == stats["packets_undecryptable"] == 0


async def test_opus_is_chosen_where_telephone_codecs_are_offered_before_it(instant: Server):
    def telephone_first(offer: str) -> str:
        opus = "a=rtpmap:96 opus/48000/2\r\n"
        assert opus in offer
        return offer.replace(opus, "").replace("a=rtpmap:8 PCMA/8000\r\n", f"a=rtpmap:8 PCMA/8000\r\n{opus}")

    async with dial(instant, edit_offer=telephone_first) as caller:
        assert re.findall(r"a=rtpmap:\d+ (\S+)", caller.answered.decode()) == ["opus/48000/2"]


@needs_recogniser
@pytest.mark.skipif(not HUMAN.is_dir(), reason="the recordings of human speech are not beside this checkout")
async def test_human_speech_is_heard_as_turns_and_roughly_understood(server: Server):
    two_at_once = asyncio.Semaphore(2)  # more than the recognisers of a slow machine can hear would time out

    async def listen(name: str) -> tuple[str, int]:
        async with two_at_once, dial(server, session={"type": "realtime", "audio": NO_ANSWER}) as caller:
            await caller.microphone.say(clip(HUMAN / f"{name}.wav")[: LONGEST_S * 16_000])
            await caller.microphone.say(np.zeros(16_000, np.int16))
            turns = len(caller.of("input_audio_buffer.speech_started"))
            await until(lambda: len(caller.of(HEARD)) == turns, f"{turns} transcripts", 30)
            caller.orders().finish()
            return " ".join(event["transcript"] for event in caller.of(HEARD)), turns

    heard = await asyncio.gather(*(listen(name) for name in HUMAN_CLIPS))
    for (name, (words, most_turns, ceiling)), (text, turns) in zip(HUMAN_CLIPS.items(), heard, strict=True):
        assert 1 <= turns <= most_turns, name
        assert ceiling is None or word_error_rate(words, text) <= ceiling, f"{name}: {text!r}"


def word_error_rate(reference: str, text: str) -> float:
    wanted, heard = reference.split(), text.split()
    costs = list(range(len(heard) + 1))
    for i, word in enumerate(wanted, 1):
        diagonal, costs[0] = costs[0], i
        for j, other in enumerate(heard, 1):
            best = min(costs[j] + 1, costs[j - 1] + 1, diagonal + (word != other))
            diagonal, costs[j] = costs[j], best
    return costs[-1] / len(wanted)


async def test_the_same_offer_gets_the_same_answer_and_another_one_none(instant: Server):
    async with dial(instant) as caller:
        answer, location = caller.answered, caller.location
        for _ in range(2):
            status, headers, body = await caller.post(caller.offered)
            assert (status, headers["location"], body) == (201, location, answer)
        other = Caller(instant, caller.token)
        status, headers, body = await other.post(await other.offer())
        await other.close()
        assert (status, code(body)) == (401, "token_used")
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"]
        # Nobody noticed any of it on the call itself.
        caller.ask("Are you still there?")
        await caller.wait_for("output_audio_buffer.started")
        assert len(await instant.sessions()) == 1


async def refusal(server: Server, token: str) -> tuple[int, str]:
    caller = Caller(server, token)
    try:
        status, _, body = await caller.post(await caller.offer())
        return status, code(body)
    finally:
        await caller.close()


async def test_an_expired_token_opens_no_call(instant: Server):
    keys = SigningKeys.load_or_create(instant.folder / "data")
    long_ago = Tokens(keys, TokenSettings().issuer, TokenSettings().audience, clock=lambda: time.time() - 3600)
    token, _ = long_ago.mint(subject="key_1", agent="default", ttl_seconds=60)
    assert await refusal(instant, token) == (401, "token_expired")


async def test_a_revoked_token_opens_no_call(instant: Server):
    minted = await instant.token()
    status, _, _ = await instant.request("DELETE", f"/v1/ai/realtime/sessions/{minted['session_id']}")
    assert status == 204
    assert await refusal(instant, str(minted["token"])) == (401, "token_revoked")


async def test_an_altered_token_opens_no_call(instant: Server):
    head, payload, signature = str((await instant.token())["token"]).split(".")
    turned = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert await refusal(instant, f"{head}.{payload}.{turned}") == (401, "invalid_token")


async def test_hanging_up_ends_the_call_within_a_second_for_both_sides(instant: Server):
    async with dial(instant) as caller:
        caller.ask("Say something.")
        await caller.wait_for("output_audio_buffer.started")
        began = time.monotonic()
        status, _, _ = await caller.hang_up()
        await asyncio.wait_for(caller.over.wait(), 3)
        assert time.monotonic() - began < 3  # a second is promised
        assert status == 200
        assert await instant.sessions() == []
        status, _, body = await caller.hang_up()
        assert (status, code(body)) == (404, "call_not_found")
        assert await refusal(instant, caller.token) == (401, "token_used")


async def test_the_log_names_request_and_session_at_start_turn_and_end(instant: Server):
    async with dial(instant) as caller:
        caller.ask("Say something.")
        await caller.wait_for("output_audio_buffer.started")
        caller.send({"type": "output_audio_buffer.clear"})
        await caller.wait_for("output_audio_buffer.cleared")
        session = caller.session_id
    await instant.until_calls(0)
    ids = f" request_id={caller.request_id} session={session} "
    lines = [line for line in instant.log().splitlines() if ids in line]
    assert [line.partition("realtime.live ")[2].partition(" request_id=")[0] for line in lines] == [
        "call started",
        "turn",
        "call ended",
    ]


async def test_a_caller_that_hangs_up_by_itself_is_noticed_at_once(instant: Server):
    async with dial(instant) as caller:
        await caller.connection.close()
        await instant.until_calls(0, 3)


async def test_trickled_candidates_are_taken_while_the_call_comes_up(instant: Server):
    caller = Caller(instant, str((await instant.token())["token"]))
    try:
        whole = await caller.offer()
        status, _, body = await caller.post(without_candidates(whole))
        assert status == 201
        fragment = as_fragment(whole)
        assert (await caller.patch(fragment))[0] == 204
        await caller.describe(body.decode())
        await caller.connected()
        await caller.wait_for("session.created")
        status, _, answer = await caller.patch("a=ice-ufrag:another\r\na=ice-pwd:anotheranotheranother\r\n")
        assert (status, code(answer)) == (422, "ice_restart")
        caller.ask("Do you hear me?")
        await caller.wait_for("output_audio_buffer.started")
        for stranger, expected in ((None, 401), (str((await instant.token())["token"]), 404)):
            status, _, _ = await instant.request(
                "PATCH", caller.location, fragment.encode(), credential=stranger, content_type=FRAGMENT
            )
            assert status == expected
    finally:
        await caller.close()


def as_fragment(offer: str) -> str:
    """What a browser trickles of an offer (RFC 8840 section 9)."""
    head = dict.fromkeys(line for line in offer.splitlines() if line.startswith(("a=ice-ufrag:", "a=ice-pwd:")))
    candidates = dict.fromkeys(line for line in offer.splitlines() if line.startswith("a=candidate:"))
    lines = [*head, "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", *candidates, "a=end-of-candidates"]
    return "".join(f"{line}\r\n" for line in lines)
