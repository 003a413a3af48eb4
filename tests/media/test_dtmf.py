"""Keys of a telephone in RTP: one key a press, whatever is lost, repeated or late, and no hole in the sound."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.dtmf import KEYS, Keys, payload_type
from media.inbound import Inbound
from media.opus import SILENCE_PACKET
from media.rtp import RtpPacket
from tests.media.webrtc import until

EVENTS, AUDIO = 110, 111


def event(
    code: int, timestamp: int, duration: int, *, end: bool = False, sequence: int = 0, ssrc: int = 1
) -> RtpPacket:
    payload = struct.pack("!BBH", code, (0x80 if end else 0) | 10, duration)
    return RtpPacket(EVENTS, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc, payload)


def press(code: int, timestamp: int, first: int = 0) -> list[RtpPacket]:
    """100 ms, with the end sent thrice."""
    durations = [960, 1920, 2880, 3840, 4800, 4800, 4800]
    return [event(code, timestamp, d, end=i >= 4, sequence=first + i) for i, d in enumerate(durations)]


@pytest.mark.parametrize(("code", "key"), list(enumerate(KEYS)))
def test_every_key_has_its_code(code: int, key: str):
    assert Keys().press(event(code, 5, 960)) == key


@given(st.lists(st.integers(0, 15), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.randoms())
def test_each_press_is_told_once_whichever_of_its_packets_arrive(codes, start, chance):
    keys, told = Keys(), []
    for index, code in enumerate(codes):
        packets = press(code, start + index * 9600)
        kept = [packet for packet in packets if chance.random() < 0.5] or packets[-1:]
        told += [key for packet in kept if (key := keys.press(packet))]
    assert told == [KEYS[code] for code in codes]


def test_a_press_longer_than_its_counter_is_one_press():
    keys = Keys()
    told = [keys.press(event(7, 0, duration)) for duration in (960, 40_000, 65_535)]
    told += [keys.press(event(7, 65_535, 960)), keys.press(event(7, 65_535, 1920, end=True))]
    assert told == ["7", None, None, None, None]


def test_the_same_key_right_after_its_end_is_another_press():
    keys = Keys()
    told = [keys.press(packet) for packet in [*press(3, 0), *press(3, 4800)]]
    assert [key for key in told if key] == ["3", "3"]


def test_late_packets_of_an_earlier_press_tell_nothing():
    keys = Keys()
    first, second = press(1, 0), press(2, 9600)
    assert [keys.press(first[0]), keys.press(second[0]), keys.press(first[1])] == ["1", "2", None]


@given(st.binary(max_size=12), st.integers(0, 2**32 - 1))
def test_no_payload_raises(payload: bytes, timestamp: int):
    assert Keys().press(RtpPacket(EVENTS, 0, timestamp, 1, payload)) in (None, *KEYS)


def test_the_payload_type_is_the_one_with_the_audios_clock():
    text = "a=rtpmap:126 telephone-event/8000\r\na=rtpmap:110 Telephone-Event/48000\r\n"
    assert payload_type(text, 48_000) == 110
    assert payload_type(text, 8_000) == 126
    assert payload_type(text, 16_000) is None
    assert payload_type("a=rtpmap:999 telephone-event/48000\r\n", 48_000) is None


def test_a_press_takes_the_place_of_the_sound_and_counts_as_no_loss():
    told: list[str] = []
    pieces: list[np.ndarray] = []
    inbound = Inbound(AUDIO, lambda pcm, at: pieces.append(pcm), key_type=EVENTS, on_key=told.append)
    now, sequence, timestamp = 0.0, 65_530, 4_294_960_000
    for step in range(40):
        packets = [RtpPacket(AUDIO, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, 1, SILENCE_PACKET)]
        if 10 <= step < 15:
            end = step == 14
            packets = [
                event(5, timestamp - (step - 10) * 960, (step - 9) * 960, end=end, sequence=sequence + again)
                for again in range(3 if end else 1)
            ]
        for packet in packets:
            inbound.packet(packet.serialize(), now)
        sequence += len(packets)
        timestamp += 960
        now += 0.02
        inbound.tick(now)
    assert told == ["5"]
    stats = inbound.stats()
    assert stats["packets_lost"] == stats["concealed_ms"] == stats["packets_unknown"] == 0
    assert sum(map(len, pieces)) == pytest.approx(40 * 320, abs=320)


def test_without_negotiation_events_are_unknown_packets():
    inbound = Inbound(AUDIO, lambda pcm, at: None)
    inbound.packet(event(1, 0, 960).serialize(), 0.0)
    assert inbound.stats()["packets_unknown"] == 1


async def test_keys_pressed_in_a_call_are_told(dial):
    call = await dial(
        offered=lambda text: text.replace("a=mid:0", f"a=rtpmap:{EVENTS} telephone-event/48000\r\na=mid:0", 1)
    )
    assert call.peer.abilities.dtmf
    dtls = call.caller.connection.getSenders()[0].transport
    for packet in [*press(11, 1000), *press(4, 20_000, 7)]:
        await dtls._send_rtp(packet.serialize())
    await until(lambda: "key 4" in call.ear.told)
    assert [told for told in call.ear.told if told.startswith("key")] == ["key #", "key 4"]
