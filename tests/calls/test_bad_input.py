"""Whatever one caller does to the server, the call beside it keeps every packet, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from media.rtp import RtpPacket
from tests.calls.caller import SDP, Caller, clip, code, dial, without_candidates
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.neighbour import Neighbour
from tests.calls.server import Server
from tests.media.webrtc import rms, until

CONFIG = """
[limits]
connect_seconds = 1.5
inactivity_seconds = 2

[agents.default.turn_detection]
silence_duration_ms = 200

[network]
interfaces = ["127.0.0.1"]
"""
"""Short patience, so that its end can be waited for."""

SPEECH = clip(HOW_ARE_YOU)[:17_600]
"""A little more than a second of it."""
SPOILT = SPEECH[:9_600]
"""Thirty packets."""


@pytest.fixture(scope="module")
def bothered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("bothered"), "--engines", "instant", config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def neighbour(bothered: Server) -> Iterator[Neighbour]:
    with Neighbour(bothered) as beside:
        yield beside


@pytest.fixture(autouse=True)
async def undisturbed(bothered: Server, neighbour: Neighbour) -> AsyncIterator[None]:
    """After each test the neighbour has all its packets, its call is the only one, and the log is calm."""
    yield
    await asyncio.to_thread(neighbour.check)
    await bothered.until_calls(1)
    assert (await bothered.request("GET", "/readyz"))[0] == 200
    assert not re.search(r"Traceback|ERROR|CRITICAL", bothered.log()), bothered.log()


async def still_talks(caller: Caller) -> None:
    """The call can still be used: it answers, in sound."""
    caller.skip()
    before = len(caller.sound())
    caller.send({"type": "output_audio_buffer.clear"})
    caller.ask("Are you still there?")
    await caller.wait_for("output_audio_buffer.started")
    await until(lambda: rms(caller.sound()[before:][-4800:]) > 1000, "the answer was heard")


# --- offers -----------------------------------------------------------------------------------


def without(line: str) -> Callable[[str], str]:
    return lambda offer: re.sub(rf"a={line}[^\r]*\r\n", "", offer)


def audio_twice(offer: str) -> str:
    """A second audio line, bundled like the first."""
    head, *media = re.split(r"(?=m=)", offer)
    second = re.sub(r"a=mid:\S+", "a=mid:9", next(part for part in media if part.startswith("m=audio")))
    return re.sub(r"(a=group:BUNDLE [^\r]*)", r"\1 9", head) + "".join(media) + second


def other_codec(offer: str) -> str:
    """As if only G.722 were spoken here."""
    offer = re.sub(r"a=(rtpmap|fmtp|rtcp-fb):\d+ [^\r]*\r\n", "", offer)
    return re.sub(r"(m=audio \d+ \S+) [^\r]*\r\n", "\\1 9\r\na=rtpmap:9 G722/8000\r\n", offer)


BAD_OFFERS: dict[str, tuple[Callable[[str], str | bytes], int, str, str]] = {
    "prose": (lambda _: "Hello, I would like to make a call.", 400, "not_sdp", "not SDP"),
    "nothing": (lambda _: b"", 400, "not_sdp", "not SDP"),
    "noise": (lambda _: random.Random(1).randbytes(4000), 400, "", "offer"),
    "json": (lambda offer: '{"type": "offer", "sdp": "v=0"}', 400, "not_sdp", "value of its `sdp`"),
    "cut short": (lambda offer: offer[: offer.index("m=audio") + 9], 400, "malformed_sdp", "offer"),
    "64 kB": (lambda offer: offer + "a=x:" + "y" * 65_536 + "\r\n", 413, "too_large", "65536 bytes"),
    "a thousand m-lines": (lambda offer: offer + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 1000, 422, "", "1002 m-lines"),
    "no audio": (lambda offer: offer.replace("m=audio", "m=video"), 422, "no_audio", "audio"),
    "two audio lines": (audio_twice, 422, "several_audio", "2 active audio m-lines"),
    "no common codec": (other_codec, 422, "no_common_codec", "opus/48000/2"),
    "no rtcp-mux": (without("rtcp-mux"), 422, "rtcp_mux_required", "a=rtcp-mux"),
    "no fingerprint": (without("fingerprint"), 422, "fingerprint_required", "a=fingerprint"),
    "no ICE": (without("ice-(ufrag|pwd)"), 422, "ice_credentials_required", "a=ice-ufrag"),
    "unencrypted": (lambda offer: offer.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), 422, "not_encrypted", "DTLS-SRTP"),
    "passive": (lambda offer: offer.replace("setup:actpass", "setup:passive"), 422, "setup_required", "a=setup"),
    "not bundled": (without("group:BUNDLE"), 422, "bundle_required", "BUNDLE"),
}


@pytest.mark.parametrize("name", BAD_OFFERS)
async def test_an_offer_that_cannot_be_used_is_told_why_and_costs_nothing(bothered: Server, name: str):
    spoil, expected, expected_code, says = BAD_OFFERS[name]
    caller = Caller(bothered, str((await bothered.token())["token"]))
    try:
        good = await caller.offer()
        status, headers, body = await caller.post(spoil(good))
        assert status == expected, body
        assert code(body) == expected_code or not expected_code
        assert says in body.decode()
        assert headers["content-type"] == "application/problem+json"
        # The token is not used up by it.
        assert (await caller.post(good))[0] == 201
    finally:
        await caller.close()


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data", ""])
async def test_an_offer_of_another_kind_is_told_what_to_send(bothered: Server, kind: str):
    caller = Caller(bothered, str((await bothered.token())["token"]))
    try:
        status, _, body = await caller.post(await caller.offer(), content_type=kind)
        assert status in (400, 415)
        assert SDP in body.decode() or "form" in body.decode()
    finally:
        await caller.close()


async def test_video_is_declined_and_the_audio_works(bothered: Server):
    caller = Caller(bothered, str((await bothered.token())["token"]), video=True)
    try:
        status, _, body = await caller.post(await caller.offer())
        assert status == 201
        answer = body.decode()
        video = next(part for part in re.split(r"(?=m=)", answer) if part.startswith("m=video"))
        assert "a=inactive" in video or video.startswith("m=video 0 ")
        await caller.describe(answer)
        await caller.connected()
        await still_talks(caller)
    finally:
        await caller.close()


# --- candidates -------------------------------------------------------------------------------

USELESS_CANDIDATES = {
    "special ranges": [
        f"{number} 1 udp 2122260223 {address} 40000 typ host"
        for number, address in enumerate(
            ("0.0.0.0", "169.254.169.254", "224.0.0.251", "255.255.255.255", "240.0.0.1", "fe80::1", "ff02::fb", "::")
        )
    ],
    "mdns": ["1 1 udp 2122260223 a0e3b6ae-2f1b-4d0c-9a2c-4a2f0c1d2e3f.local 40000 typ host"],
    "tcp": ["1 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active"],
    "more than twenty": [f"{n} 1 udp {2122260223 - n} 192.0.2.{n} {40_000 + n} typ host" for n in range(1, 61)],
    "nonsense": ["", "x", "1 1 udp", "1 1 udp -5 192.0.2.7 99999 typ host", "1 1 udp 5 example.org 9 typ host", "é 1"],
}


@pytest.mark.parametrize("name", USELESS_CANDIDATES)
async def test_candidates_that_cannot_be_used_are_dropped_and_the_call_comes_up(bothered: Server, name: str):
    lines = "".join(f"a=candidate:{candidate}\r\n" for candidate in USELESS_CANDIDATES[name])

    def with_useless(offer: str) -> str:
        return re.sub(r"(a=mid:0\r\n)", lambda match: match[1] + lines, without_candidates(offer), count=1)

    async with dial(bothered, edit_offer=with_useless) as caller:
        offer = str(caller.offered)
        credentials = re.findall(r"a=ice-(?:ufrag|pwd):\S+\r\n", offer)[:2]
        fragment = "".join(credentials) + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" + lines
        for _ in range(3):
            assert (await caller.patch(fragment))[0] == 204
        await still_talks(caller)


async def test_a_fragment_that_cannot_be_read_is_refused_and_the_call_goes_on(bothered: Server):
    async with dial(bothered) as caller:
        for fragment, expected in (("", 400), ("hello", 400), ("a=candidate:" + "x" * 20_000, 413)):
            status, _, _ = await caller.patch(fragment)
            assert status == expected, fragment[:20]
        status, _, _ = await bothered.request(
            "PATCH", caller.location, b"{}", credential=caller.token, content_type="application/json"
        )
        assert status == 415
        await still_talks(caller)


# --- data channel -----------------------------------------------------------------------------

BAD_MESSAGES: dict[str, tuple[str | bytes, str]] = {
    "not JSON": ("hello{", "invalid_json"),
    "cut short": ('{"type": "response.cre', "invalid_json"),
    "a list": ("[]", "invalid_json"),
    "deep": ("[" * 100_000, "invalid_json"),
    "bytes": (b"\x00\xff\xfe", "not_text"),
    "unknown type": ('{"type": "session.explode", "event_id": "mine"}', "unknown_event"),
    "no type": ("{}", "unknown_event"),
    "type of another type": ('{"type": {"type": []}}', "unknown_event"),
    "wrong field": ('{"type": "response.create", "response": 7, "event_id": "mine"}', "invalid_value"),
    "wrong item": ('{"type": "conversation.item.create", "item": {"type": "message", "role": "king"}}', ""),
    "300 kB": (f'{{"type": "session.update", "session": {{"instructions": "{"x" * 300_000}"}}}}', "too_large"),
    "half a surrogate": ('{"type": "\\ud800"}', ""),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_a_message_that_cannot_be_taken_gets_an_error_and_the_call_goes_on(bothered: Server, name: str):
    message, expected_code = BAD_MESSAGES[name]
    # Stock aiortc would not even send what is over the announced size.
    unbounded = lambda answer: re.sub(r"a=max-message-size:\d+", "a=max-message-size:1000000", answer)  # noqa: E731
    async with dial(bothered, edit_answer=unbounded) as caller:
        caller.send(message)
        error = (await caller.wait_for("error"))["error"]
        assert error["type"] == "invalid_request_error"
        assert error["code"] == expected_code or not expected_code
        if isinstance(message, str) and '"mine"' in message:
            assert error["event_id"] == "mine"
        await still_talks(caller)
        assert len(caller.of("error")) == 1


async def test_a_thousand_messages_a_second_are_not_answered_with_a_thousand(bothered: Server):
    async with dial(bothered) as caller:
        for burst in range(20):
            for number in range(50):
                caller.send({"type": "conversation.item.retrieve", "item_id": "none", "event_id": f"{burst}.{number}"})
            await asyncio.sleep(0.05)
        refused = [event for event in caller.of("error") if event["error"]["code"] == "too_many"]
        assert refused
        assert len(caller.of("error")) < 500
        await asyncio.sleep(0.2)
        await still_talks(caller)
        assert (await caller.stats())["texts_refused"] > 500


async def test_channels_that_nobody_asked_for_are_closed_and_the_call_goes_on(bothered: Server):
    async with dial(bothered) as caller:
        strangers = [caller.connection.createDataChannel(f"mine-{number}") for number in range(5)]
        await until(lambda: all(channel.readyState == "closed" for channel in strangers), "the channels were closed")
        await still_talks(caller)


# --- media ------------------------------------------------------------------------------------


async def speech_is_still_heard(caller: Caller) -> None:
    caller.skip()
    caller.send({"type": "output_audio_buffer.clear"})
    await caller.microphone.say(SPEECH)
    await caller.wait_for("conversation.item.input_audio_transcription.completed")
    await caller.wait_for("output_audio_buffer.started")


async def test_opus_that_does_not_decode_is_passed_over(bothered: Server):
    chance = random.Random(2)
    async with dial(bothered) as caller:
        # Table-of-contents bytes that promise more than follows, and plain noise.
        await caller.microphone.send([bytes([chance.randrange(256) | 3]) for _ in range(25)])
        await caller.microphone.send([bytes([toc, 0xFF, 0xFF]) for toc in range(2, 256, 10)])
        await caller.microphone.send([chance.randbytes(chance.randrange(1, 60)) for _ in range(25)])
        assert (await caller.stats())["packets_corrupt"] >= 25
        await speech_is_still_heard(caller)


async def test_packets_cut_short_are_passed_over(bothered: Server):
    chance = random.Random(3)

    def cut_short(data: bytes) -> bytes:
        packet = RtpPacket.parse(data)
        packet.payload = packet.payload[: chance.randrange(len(packet.payload))]
        return packet.serialize()

    async with dial(bothered) as caller:
        caller.spoil(cut_short)
        await caller.microphone.say(SPOILT)
        caller.spoil(lambda data: data)
        await speech_is_still_heard(caller)


async def test_packets_of_another_payload_type_are_counted_and_passed_over(bothered: Server):
    async with dial(bothered) as caller:
        types = iter([0, 8, 13, 63, 101, 126] * 1000)
        caller.spoil(lambda data: data[:1] + bytes([next(types)]) + data[2:])
        await caller.microphone.say(SPOILT)
        assert (await caller.stats())["packets_unknown"] > 20
        assert not caller.of("input_audio_buffer.speech_started")
        caller.spoil(lambda data: data)
        await speech_is_still_heard(caller)


async def test_sequence_numbers_and_timestamps_that_jump_do_not_silence_the_caller(bothered: Server):
    jumps = [(1, 1), (7, 7), (3000, 3000), (40, 5), (30_000, 1), (1, 2**31 - 5), (1, 2**32 - 48_000), (500, 0)]
    sequence, ticks, count = 0, 0, 0

    def jump(data: bytes) -> bytes:
        nonlocal sequence, ticks, count
        count += 1
        if count % 3 == 0 and count <= 3 * len(jumps):
            step, frames = jumps[count // 3 - 1]
            sequence, ticks = sequence + step, ticks + frames * 960
        packet = RtpPacket.parse(data)
        packet.sequence = (packet.sequence + sequence) & 0xFFFF
        packet.timestamp = (packet.timestamp + ticks) & 0xFFFFFFFF
        return packet.serialize()

    async with dial(bothered) as caller:
        caller.spoil(jump)
        await caller.microphone.say(SPOILT)
        assert count > 3 * len(jumps)
        await speech_is_still_heard(caller)


async def test_a_caller_that_vanishes_is_let_go(bothered: Server):
    before = await bothered.ended("inactivity")
    async with dial(bothered, cable=True) as caller:
        caller.ask("Talk to me.")
        await caller.wait_for("output_audio_buffer.started")
        assert caller.cable is not None
        caller.cable.is_cut = True
        await bothered.until_calls(1, 3 * 2.0)
        assert await bothered.ended("inactivity") == before + 1


async def test_a_caller_that_never_connects_is_let_go(bothered: Server):
    before = await bothered.ended("connect_timeout")
    caller = Caller(bothered, str((await bothered.token())["token"]))
    try:
        status, _, _ = await caller.post(await caller.offer())
        assert status == 201
        await bothered.until_calls(1, 3 * 1.5)
        assert await bothered.ended("connect_timeout") == before + 1
    finally:
        await caller.close()


async def test_a_caller_that_never_sends_audio_is_answered_all_the_same(bothered: Server):
    async with dial(bothered, speaks=False) as caller:
        await still_talks(caller)
        assert (await caller.stats())["packets_received"] == 0
