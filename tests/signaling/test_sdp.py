"""Offers are let in or refused with a reason; answers fit the offer that the caller sent."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.sdp import (
    MAX_FRAGMENT_BYTES,
    MAX_OFFER_BYTES,
    Fate,
    Offer,
    OfferError,
    dress_answer,
    guard_offer,
    parse_fragment,
)
from tests.signaling import offers

GOOD: dict[str, Callable[[], str]] = {
    "chrome": offers.chrome,
    "chrome without candidates": offers.chrome_without_candidates,
    "chrome with video": offers.chrome_with_video,
    "firefox": offers.firefox,
}


async def aiortc_answers(text: str) -> str:
    """What a real peer answers to a guarded offer; raises whatever aiortc raises."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        peer.addTransceiver("audio")
        await peer.setRemoteDescription(RTCSessionDescription(text, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return str(peer.localDescription.sdp)
    finally:
        await peer.close()


def refusal(body: bytes | str, **options: object) -> OfferError:
    with pytest.raises(OfferError) as caught:
        guard_offer(body, **options)  # type: ignore[arg-type]
    return caught.value


def media_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("m=")]


# -- what is let in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
async def test_a_browsers_offer_is_answered_with_its_m_lines_in_its_order(name: str) -> None:
    text = GOOD[name]()
    offer = guard_offer(text)
    answer = dress_answer(await aiortc_answers(offer.text), offer)
    assert [line.split()[0] for line in media_lines(answer)] == [line.split()[0] for line in media_lines(text)]
    assert [line.split()[2] for line in media_lines(answer)] == [line.split()[2] for line in media_lines(text)]
    assert answer.endswith("\r\n")
    assert "\n" not in answer.replace("\r\n", "")


async def test_an_answer_says_what_we_speak() -> None:
    offer = guard_offer(offers.chrome())
    answer = dress_answer(await aiortc_answers(offer.text), offer).splitlines()
    session = answer[: answer.index(next(line for line in answer if line.startswith("m=")))]
    assert "a=ice-options:trickle" in session
    assert "a=group:BUNDLE 0 1" in session
    assert any(line.startswith("a=fmtp:111 ") and "useinbandfec=1" in line for line in answer)
    assert answer.count("a=ptime:20") == 1
    assert answer.count("a=setup:active") == 2
    assert next(line for line in answer if line.startswith("m=audio")).endswith("SAVPF 111 110")
    assert "a=rtpmap:110 telephone-event/48000" in answer
    assert "a=fmtp:110 0-15" in answer


async def test_key_events_are_answered_only_at_the_clock_of_the_audio() -> None:
    for text, answered in (
        (offers.chrome().replace("a=rtpmap:110 telephone-event/48000\r\n", ""), "111"),
        (offers.chrome().replace("telephone-event/48000", "TELEPHONE-EVENT/48000"), "111 110"),
    ):
        offer = guard_offer(text)
        answer = dress_answer(await aiortc_answers(offer.text), offer)
        assert media_lines(answer)[0].endswith(f"SAVPF {answered}")


async def test_video_is_declined_and_the_audio_still_answered() -> None:
    offer = guard_offer(offers.chrome_with_video())
    assert "video" not in offer.text
    assert offer.notes[0] == "declined video"
    answer = dress_answer(await aiortc_answers(offer.text), offer)
    audio, video, data = media_lines(answer)
    assert audio.split()[1] == video.split()[1] == data.split()[1] != "0"
    assert "a=group:BUNDLE 0 1 2\r\n" in answer
    lines = answer.split(video)[1].split("m=application")[0].splitlines()
    assert {"a=inactive", "a=mid:1", "a=rtcp-mux", "a=rtpmap:96 VP8/90000", "a=setup:active"} <= set(lines)
    assert not any(line.startswith(("a=sendrecv", "a=msid", "a=ssrc")) for line in lines)


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ("m=video 9", "m=video 0"),
        ("BUNDLE 0 1 2", "BUNDLE 0 2"),
        ("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 RTP/AVP"),
        ("SAVPF 96 97 45", "SAVPF 98 99"),
        ("SAVPF 96 97 45", "SAVPF webrtc"),
    ],
)
async def test_media_that_cannot_be_inactive_in_the_bundle_is_rejected_with_port_zero(change: str, to: str) -> None:
    text = offers.chrome_with_video()
    assert change in text
    offer = guard_offer(text.replace(change, to))
    answer = dress_answer(await aiortc_answers(offer.text), offer)
    kind, port, *_ = media_lines(answer)[1].split()
    assert (kind, port) == ("m=video", "0")
    assert "a=group:BUNDLE 0 2\r\n" in answer
    assert "c=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:1\r\nm=application" in answer


async def test_aiortc_as_a_client_takes_the_answer_to_its_video_offer() -> None:
    caller = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        caller.addTransceiver("video")
        caller.addTransceiver("audio")
        caller.createDataChannel("oai-events")
        await caller.setLocalDescription(await caller.createOffer())
        offer = guard_offer(caller.localDescription.sdp)
        answer = dress_answer(await aiortc_answers(offer.text), offer)
        await caller.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        video, audio = caller.getTransceivers()
        assert (video.currentDirection, audio.currentDirection) == ("inactive", "sendrecv")
    finally:
        await caller.close()


async def test_audio_that_exists_only_inside_a_bundle_led_by_video_gets_its_transport() -> None:
    bare = "a=bundle-only\n"
    text = offers.offer(
        offers.video("0").replace("a=rtcp:9", offers.CHROME_CANDIDATES + "a=rtcp:9"),
        offers.audio("1", candidates="", transport=bare)
        .replace("m=audio 46243", "m=audio 0")
        .replace("a=rtcp-mux\n", ""),
        offers.data("2", transport=bare).replace("m=application 9", "m=application 0"),
    )
    offer = guard_offer(text)
    assert offer.ice_ufrag == "4ZcD"
    assert offer.candidates == 3
    answer = dress_answer(await aiortc_answers(offer.text), offer)
    assert "a=group:BUNDLE 0 1 2\r\n" in answer
    video, audio, _ = media_lines(answer)
    assert video.split()[1] == audio.split()[1] != "0"


async def test_the_transport_of_a_rejected_first_line_serves_the_bundle() -> None:
    bare = "a=bundle-only\n"
    audio = offers.audio("1", candidates="", transport=bare).replace("m=audio 46243", "m=audio 0")
    video = offers.video("0").replace("a=rtpmap", "a=x").replace("a=rtcp:9", offers.CHROME_CANDIDATES + "a=rtcp:9")
    offer = guard_offer(offers.offer(video, audio))
    assert (offer.ice_ufrag, offer.candidates) == ("4ZcD", 3)
    answer = dress_answer(await aiortc_answers(offer.text), offer)
    assert media_lines(answer)[0].startswith("m=video 0 ")
    assert "a=group:BUNDLE 1\r\n" in answer


async def test_the_bundle_keeps_the_offered_order() -> None:
    offer = guard_offer(offers.offer(offers.audio(), offers.data(), bundle="1 0"))
    assert "a=group:BUNDLE 1 0\r\n" in offer.text
    assert "a=group:BUNDLE 1 0\r\n" in dress_answer(await aiortc_answers(offer.text), offer)


async def test_one_audio_line_needs_neither_bundle_nor_mid() -> None:
    text = offers.offer(offers.audio()).replace("a=group:BUNDLE 0\r\n", "").replace("a=mid:0\r\n", "")
    offer = guard_offer(text)
    answer = dress_answer(await aiortc_answers(offer.text), offer)
    assert "BUNDLE" not in answer
    assert "a=mid:" not in answer


async def test_a_listener_that_takes_the_server_role_of_dtls_is_answered_passive() -> None:
    offer = guard_offer(offers.chrome().replace("a=setup:actpass", "a=setup:active"))
    assert "a=setup:passive" in dress_answer(await aiortc_answers(offer.text), offer)


async def test_other_spellings_of_the_profile_are_answered_in_kind() -> None:
    text = offers.chrome().replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF").replace("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")
    offer = guard_offer(text)
    audio, data = media_lines(dress_answer(await aiortc_answers(offer.text), offer))
    assert audio.split()[2] == "RTP/SAVPF"
    assert data.split()[2] == "TCP/DTLS/SCTP"


async def test_the_old_form_of_a_data_section_is_answered_in_its_form() -> None:
    legacy = "m=application 9 DTLS/SCTP 5000\na=sctpmap:5000 webrtc-datachannel 256\n"
    data = offers.data().replace("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\n", legacy)
    offer = guard_offer(offers.offer(offers.audio(), data))
    assert media_lines(dress_answer(await aiortc_answers(offer.text), offer))[1].endswith(" DTLS/SCTP 5000")


def test_every_dropped_candidate_leaves_the_offer_standing() -> None:
    bad = "".join(
        f"a=candidate:1 1 udp 100 {address} 4000 typ host\n"
        for address in (
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "x.local",
            "nonsense",
        )
    )
    offer = guard_offer(offers.offer(offers.audio(candidates=bad + "a=candidate:\na=candidate\n"), offers.data()))
    assert offer.candidates == 0
    assert "a=candidate" not in offer.text
    assert offer.notes == ("9 candidates dropped (6 address in a special range, 1 mDNS name, 2 unreadable)",)


def test_twenty_candidates_are_taken_and_no_more() -> None:
    many = "".join(f"a=candidate:1 1 udp 100 10.0.1.{number} 4000 typ host\n" for number in range(100))
    offer = guard_offer(offers.offer(offers.audio(candidates=many), offers.data()))
    assert offer.candidates == 20
    assert offer.text.count("10.0.1.7 ") == 2, "once for each bundled section"


def test_loopback_candidates_pass_where_they_are_allowed() -> None:
    line = "a=candidate:1 1 udp 100 127.0.0.1 4000 typ host\n"
    text = offers.offer(offers.audio(candidates=line), offers.data())
    assert guard_offer(text).candidates == 0
    assert guard_offer(text, allow_loopback=True).candidates == 1


def test_end_of_candidates_and_everything_we_do_not_use_is_gone() -> None:
    offer = guard_offer(offers.firefox())
    for gone in ("end-of-candidates", "telephone-event/8000", "fmtp", "csrc-audio-level", "mozilla", "54322"):
        assert gone not in offer.text
    assert "urn:ietf:params:rtp-hdrext:sdes:mid" in offer.text
    assert offer.ice_ufrag == "7b4b6b6c"
    assert offer.mids == ("0", "1")


def test_line_feeds_alone_are_read_and_carriage_returns_written() -> None:
    assert guard_offer(offers.chrome().replace("\r\n", "\n")) == guard_offer(offers.chrome())
    assert guard_offer(offers.chrome().encode()) == guard_offer(offers.chrome())
    assert "\n" not in guard_offer(offers.chrome()).text.replace("\r\n", "")


def test_telephone_codecs_are_taken_when_asked_for_even_without_an_rtpmap() -> None:
    text = offers.chrome().replace("111 63 9 0 8 13 110 126", "0 8").replace("a=rtpmap:0 PCMU/8000\r\n", "")
    assert refusal(text).code == "no_common_codec"
    offer = guard_offer(text, codecs=("opus", "pcma", "pcmu"))
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 8 0\r\n" in offer.text
    assert "a=rtpmap:0 PCMU/8000\r\n" in offer.text


async def test_the_telephone_codecs_are_what_aiortc_then_answers() -> None:
    text = offers.chrome().replace("111 63 9 0 8 13 110 126", "9 0 8")
    offer = guard_offer(text, codecs=("opus", "pcmu"))
    assert media_lines(dress_answer(await aiortc_answers(offer.text), offer))[0].endswith(" 0")


# -- what is refused ----------------------------------------------------------------------------------

CHROME = offers.chrome()
TWO_AUDIO = offers.offer(offers.audio("0"), offers.audio("1"), offers.data("2"))

REFUSED = [
    ("empty", "", "not_sdp", 400, "v=0"),
    ("prose", "hello", "not_sdp", 400, "v=0"),
    ("json", '{"type": "offer", "sdp": "v=0"}', "not_sdp", 400, "JSON"),
    ("another version", "v=1\r\n" + CHROME, "not_sdp", 400, "v=0"),
    ("not text", b"v=0\r\n\xff\xfe", "not_sdp", 400, "UTF-8"),
    ("over 64 kB", CHROME + "a=x:" + "y" * MAX_OFFER_BYTES, "too_large", 413, str(MAX_OFFER_BYTES)),
    ("a line that is none", CHROME + "oops\r\n", "malformed_sdp", 400, "Line"),
    ("control characters", CHROME.replace("s=-", "s=\x00"), "malformed_sdp", 400, "Line 3"),
    ("a bad m-line", CHROME.replace("m=audio 46243", "m=audio x"), "malformed_sdp", 400, "m-line"),
    ("an m-line without formats", CHROME + "m=audio 9 UDP/TLS/RTP/SAVPF\r\n", "malformed_sdp", 400, "m-line"),
    ("the same mid twice", CHROME.replace("a=mid:1", "a=mid:0"), "malformed_sdp", 400, "mid"),
    ("an unprintable mid", CHROME.replace("a=mid:1", "a=mid:\u00e9"), "malformed_sdp", 400, "mid"),
    ("nine m-lines", offers.offer(*(offers.data(str(i)) for i in range(9))), "too_complex", 422, "9 m-lines"),
    (
        "65 payload types",
        CHROME.replace("SAVPF 111 ", f"SAVPF {'111 ' * 60}"),
        "too_complex",
        422,
        "payload types",
    ),
    ("too many lines", CHROME + "a=x\r\n" * 2000, "too_complex", 422, "lines"),
    ("a very long line", CHROME + "a=" + "x" * 5000, "too_complex", 422, "characters"),
    ("no m-line", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "no_audio", 422, "audio"),
    ("only data", offers.offer(offers.data("0")), "no_audio", 422, "audio"),
    ("only video", offers.offer(offers.video("0")), "no_audio", 422, "audio"),
    ("inactive audio", CHROME.replace("a=sendrecv", "a=inactive"), "no_audio", 422, "active"),
    ("withdrawn audio", CHROME.replace("m=audio 46243", "m=audio 0"), "no_audio", 422, "active"),
    ("two audio lines", TWO_AUDIO, "several_audio", 422, "takes one"),
    ("plain RTP", CHROME.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "not_encrypted", 422, "SAVPF"),
    ("no Opus", CHROME.replace("opus/48000/2", "speex/16000"), "no_common_codec", 422, "opus/48000/2"),
    ("Opus not in the m-line", CHROME.replace("SAVPF 111 ", "SAVPF "), "no_common_codec", 422, "opus"),
    (
        "Opus on a static payload type",
        CHROME.replace("SAVPF 111", "SAVPF 40").replace(":111 ", ":40 "),
        "no_common_codec",
        422,
        "96 to 127",
    ),
    ("no rtcp-mux", CHROME.replace("a=rtcp-mux\r\n", ""), "rtcp_mux_required", 422, "rtcp-mux"),
    ("no ufrag", CHROME.replace("a=ice-ufrag", "a=x-ufrag"), "ice_credentials_required", 422, "ice-ufrag"),
    ("no password", CHROME.replace("a=ice-pwd", "a=x-pwd"), "ice_credentials_required", 422, "ice-pwd"),
    ("a short password", CHROME.replace("2/1muCWoOi3uLifh0NuRHlfw", "short"), "ice_credentials_required", 422, "22"),
    ("no fingerprint", CHROME.replace("a=fingerprint", "a=x"), "fingerprint_required", 422, "fingerprint"),
    ("a weak fingerprint", CHROME.replace("sha-256", "sha-1"), "fingerprint_required", 422, "sha-256"),
    ("a cut fingerprint", CHROME.replace(":1E:1F", ":1E"), "fingerprint_required", 422, "fingerprint"),
    ("no setup", CHROME.replace("a=setup:actpass\r\n", ""), "setup_required", 422, "actpass"),
    ("the wrong setup", CHROME.replace("a=setup:actpass", "a=setup:passive"), "setup_required", 422, "passive"),
    ("no bundle", CHROME.replace("a=group:BUNDLE 0 1", "a=x:y"), "bundle_required", 422, "BUNDLE"),
    ("data outside the bundle", CHROME.replace("BUNDLE 0 1", "BUNDLE 0"), "bundle_required", 422, "BUNDLE"),
]


@pytest.mark.parametrize(
    ("body", "code", "status", "says"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_bad_offer_is_refused_and_told_why(body: bytes | str, code: str, status: int, says: str) -> None:
    error = refusal(body)
    assert (error.code, error.status) == (code, status)
    assert says in error.message
    assert error.message == str(error)


def test_an_inactive_second_audio_line_is_declined_like_video() -> None:
    inactive = offers.audio("1").replace("a=sendrecv", "a=inactive")
    offer = guard_offer(offers.offer(offers.audio("0"), inactive, offers.data("2")))
    assert [line.fate for line in offer.lines] == [Fate.ACCEPTED, Fate.INACTIVE, Fate.ACCEPTED]


def test_an_answer_to_something_else_is_not_dressed() -> None:
    offer = guard_offer(offers.chrome())
    with pytest.raises(ValueError, match="m-lines"):
        dress_answer("v=0\r\nm=audio 1 UDP/TLS/RTP/SAVPF 111\r\n", offer)


# -- trickled candidates -------------------------------------------------------------------------------

FRAGMENT = (
    "a=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlfw\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 100 10.0.0.9 4000 typ host generation 0\r\n"
    "a=candidate:2 1 udp 100 169.254.169.254 80 typ host\r\n"
    "a=candidate:3 1 udp 100 abc.local 4000 typ host\r\na=end-of-candidates\r\n"
)


@pytest.fixture
def offer() -> Offer:
    return guard_offer(offers.chrome())


def test_a_fragment_gives_its_usable_candidates(offer: Offer) -> None:
    fragment = parse_fragment(FRAGMENT.encode(), offer)
    assert fragment.candidates == ("1 1 udp 100 10.0.0.9 4000 typ host",)
    assert fragment.end_of_candidates
    assert fragment.notes == ("2 candidates dropped (1 address in a special range, 1 mDNS name)",)


def test_a_fragment_may_come_without_its_frame(offer: Offer) -> None:
    assert parse_fragment("a=candidate:1 1 udp 100 10.0.0.9 4000 typ host\n", offer).candidates
    ended = parse_fragment("a=ice-ufrag:4ZcD\na=candidate:\n", offer)
    assert ended.end_of_candidates
    assert ended.candidates == ()


def test_a_new_ufrag_is_an_ice_restart_and_refused(offer: Offer) -> None:
    for text in (FRAGMENT.replace("4ZcD", "abcd"), FRAGMENT.replace("a=mid:0", "a=mid:0\r\na=ice-ufrag:abcd")):
        with pytest.raises(OfferError) as caught:
            parse_fragment(text, offer)
        assert (caught.value.code, caught.value.status) == ("ice_restart", 422)


def test_candidates_of_a_transport_that_was_bundled_away_are_dropped() -> None:
    own = offers.CHROME_TRANSPORT.replace("4ZcD", "5AbE")
    offer = guard_offer(offers.offer(offers.audio(), offers.data(transport=own)))
    fragment = parse_fragment(FRAGMENT.replace("4ZcD", "5AbE"), offer)
    assert fragment.candidates == ()


def test_the_room_left_in_a_call_bounds_a_fragment(offer: Offer) -> None:
    text = "".join(f"a=candidate:1 1 udp 100 10.0.0.{number} 4000 typ host\n" for number in range(9))
    assert len(parse_fragment(text, offer, room=3).candidates) == 3
    assert parse_fragment(text, offer, room=0).candidates == ()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"hello", 400), (b"\xff", 400), (b"a=x:" + b"y" * MAX_FRAGMENT_BYTES, 413), (b"m=audio\n", 400)],
)
def test_a_bad_fragment_is_refused(body: bytes, status: int, offer: Offer) -> None:
    with pytest.raises(OfferError) as caught:
        parse_fragment(body, offer)
    assert caught.value.status == status


# -- hostile input --------------------------------------------------------------------------------------

SEEDS = [make().split("\r\n") for make in GOOD.values()]
SPICE = ["", ":", " ", "-1", "999999999999999999999", "a=", "\x00", "\u2028", "m=audio", "²", "*", "/", "v=0", "0 0"]


def mutate(chance: random.Random) -> str:
    """A browser's offer with a few lines dropped, doubled, moved, cut, spiced or taken from another offer."""
    lines = list(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 6)):
        spot = chance.randrange(len(lines))
        match chance.randrange(7):
            case 0:
                del lines[spot]
            case 1:
                lines.insert(spot, chance.choice(chance.choice(SEEDS)))
            case 2:
                lines[spot] = lines[spot][: chance.randint(0, len(lines[spot]))]
            case 3:
                name, colon, _ = lines[spot].partition(":")
                lines[spot] = name + colon + chance.choice(SPICE)
            case 4:
                cut = chance.randint(0, len(lines[spot]))
                lines[spot] = lines[spot][:cut] + chance.choice(SPICE) + lines[spot][cut:]
            case 5:
                words = lines[spot].split(" ")
                chance.shuffle(words)
                lines[spot] = " ".join(words)
            case _:
                other = chance.randrange(len(lines))
                lines[spot], lines[other] = lines[other], lines[spot]
        lines = lines or ["v=0"]
    return "\r\n".join(lines)


def guarded(body: bytes | str) -> Offer | None:
    try:
        return guard_offer(body, allow_loopback=True, codecs=("opus", "pcmu", "pcma"))
    except OfferError:
        return None


@given(st.one_of(st.binary(max_size=400), st.text(max_size=400), st.text(max_size=400).map(lambda t: "v=0\n" + t)))
def test_any_body_is_let_in_or_refused_and_nothing_else(body: bytes | str) -> None:
    guarded(body)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_a_mutated_offer_is_let_in_or_refused_and_nothing_else(seed: int) -> None:
    offer = guarded(mutate(random.Random(seed)))
    if offer is not None:
        assert guard_offer(offer.text, allow_loopback=True, codecs=("opus", "pcmu", "pcma")).text == offer.text
        with contextlib.suppress(OfferError):
            parse_fragment(mutate(random.Random(seed)), offer)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_is_let_in_is_answered_by_aiortc(seed: int) -> None:
    chance = random.Random(seed)
    offer = next(offer for _ in range(1000) if (offer := guarded(mutate(chance))) is not None)
    answer = dress_answer(asyncio.run(aiortc_answers(offer.text)), offer)
    assert [line.split()[0] for line in media_lines(answer)] == [f"m={line.kind}" for line in offer.lines]


BULK = [
    "v=0\n" + "\n" * 60000,
    "v=0\n" + "a=candidate:1 1 udp 1 1.1.1.1 1 typ host\n" * 1400,
    "v=0\n" + ("a=" + "x" * 4000 + "\n") * 16,
    "v=0\nm=audio 9 UDP/TLS/RTP/SAVPF " + "1 " * 30000,
    "v=0\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 1\n" * 1500,
    "v=0\n" + "a=group:BUNDLE " + " ".join(str(i) for i in range(900)) + "\n" + offers.audio(),
    "v=0\n" + ("a=group:BUNDLE " + "0 " * 1900 + "\n") * 16 + offers.audio() + offers.data(),
    "v=0\n" + "a=fingerprint:sha-256 " + "AA:" * 1300 + "\n" + "a=extmap:1 x\n" * 1900,
    offers.chrome() + "a=rtpmap:111 opus/48000/2\r\n" * 1800,
    offers.offer(offers.audio(), "m=video 9 UDP/TLS/RTP/SAVPF " + "1 " * 64 + "\na=mid:1\n" + "a=rtpmap:1 ?\n" * 1800),
]


@pytest.mark.parametrize("number", range(len(BULK)))
def test_a_large_hostile_body_is_judged_quickly(number: int) -> None:
    """50 ms is the aim and about 5 ms the rule; the limit here only catches super-linear work."""
    body = BULK[number][:MAX_OFFER_BYTES]
    started = time.perf_counter()
    guarded(body)
    assert time.perf_counter() - started < 1.0
