"""Speech said in many calls: encoded once, and every caller's decoder gets what follows from what it had."""

import ctypes
import wave
from pathlib import Path

import numpy as np
import pytest

from media import libopus
from media.codec import OPUS, PCMA, PCMU
from media.g711 import ULAW, ulaw_decode
from media.opus import OpusEncoder
from media.prepared import Prepared, SharingEncoder
from media.resample import Resampler

CLIPS = sorted((Path(__file__).parents[1] / "audio").glob("*.wav"))


def speech(path):
    """Its 20 ms frames at 24 kHz."""
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    pcm = Resampler(16_000, 24_000).push(pcm)
    return [pcm[start : start + 480] for start in range(0, len(pcm) - 479, 480)]


GREETING, ANSWER = (speech(path) for path in CLIPS)


class Counted(OpusEncoder):
    encoded = 0

    def encode(self, frame):
        self.encoded += 1
        return super().encode(frame)


class Caller:
    """One call: what it is sent, decoded at 24 kHz."""

    def __init__(self):
        self.encoder = Counted()
        self.line = SharingEncoder(self.encoder)
        self.packets, self.sent = [], []
        opus = libopus.library()
        self._decoder = ctypes.create_string_buffer(opus.opus_decoder_get_size(1))
        assert opus.opus_decoder_init(self._decoder, 24_000, 1) == libopus.OK
        self.heard = []

    def tell(self, frames, prepared=None, start=0):
        for number, frame in enumerate(frames, start):
            packet = self.line.encode(frame, None if prepared is None else (prepared, number))
            out = np.empty(480, np.int16)
            at = ctypes.addressof(self._decoder)
            assert libopus.library().opus_decode(at, packet, len(packet), out.ctypes.data, 480, 0) == 480
            self.packets.append(packet)
            self.sent.append(frame)
            self.heard.append(out)
        return self

    def wrong_db(self, frame, count=3):
        """How far what is heard in `count` frames from `frame` on is from what was sent, in dB of int16."""
        begin, lag = frame * 480 - 60, 60  # the codec's own delay: 2.5 ms
        sent = np.concatenate(self.sent).astype(float)[begin : begin + count * 480]
        heard = np.concatenate(self.heard).astype(float)[begin + lag : begin + lag + len(sent)]
        return 20 * np.log10(np.sqrt(np.mean((heard[: len(sent)] - sent[: len(heard)]) ** 2)) + 1)


def alone(*parts):
    return Caller().tell([frame for part in parts for frame in part])


def loud(frames, count=6):
    """Numbers of frames in the middle of sound."""
    peaks = [int(np.abs(frame).max()) for frame in frames]
    found = [n for n in range(10, len(frames) - 8) if min(peaks[n - 1], peaks[n]) > 2000]
    return found[:: max(1, len(found) // count)][:count]


def test_the_second_call_sends_the_packets_of_the_first_and_encodes_nothing():
    prepared = Prepared()
    first, second = (Caller().tell(GREETING, prepared) for _ in range(2))
    assert second.packets == first.packets
    assert first.encoder.encoded == len(GREETING) + 1
    assert second.encoder.encoded == 0


def test_calls_at_the_same_time_encode_each_frame_once():
    prepared, callers = Prepared(), [Caller() for _ in range(3)]
    for number, frame in enumerate(GREETING):
        for caller in callers:
            caller.tell([frame], prepared, number)
    assert callers[0].packets == callers[1].packets == callers[2].packets
    assert [caller.encoder.encoded for caller in callers] == [len(GREETING) + 1, 0, 0]


@pytest.mark.parametrize("cut", loud(GREETING, 3))
def test_what_a_cut_call_left_out_is_made_by_the_next_and_the_seam_is_not_heard(cut):
    prepared = Prepared()
    Caller().tell(GREETING[:cut], prepared)
    second = Caller().tell(GREETING, prepared)
    third = Caller().tell(GREETING, prepared)
    assert second.encoder.encoded == len(GREETING) - cut + 1
    assert third.encoder.encoded == 0
    assert third.wrong_db(cut) < alone(GREETING).wrong_db(cut) + 3


@pytest.mark.parametrize("cut", loud(GREETING))
def test_own_packets_follow_prepared_ones_without_a_click(cut):
    """Cut in the middle of a word and answered in the middle of one, as no call ever is."""
    prepared, answer = Prepared(), ANSWER[loud(ANSWER)[0] :]
    Caller().tell(GREETING, prepared)
    caller = Caller().tell(ANSWER[:60]).tell(GREETING[:cut], prepared).tell(answer)
    plain = alone(ANSWER[:60], GREETING[:cut], answer)
    assert caller.encoder.encoded == 60 + len(answer) + 1
    assert caller.wrong_db(60 + cut) < plain.wrong_db(60 + cut) + 3


@pytest.mark.parametrize("before", loud(ANSWER))
def test_prepared_packets_follow_own_ones_without_a_click(before):
    """The overlap of 2.5 ms is the one with silence: between utterances there is some, cut ones are faded out."""
    prepared = Prepared()
    Caller().tell(GREETING, prepared)
    faded = ANSWER[before].copy()
    faded[:240] = faded[:240] * np.linspace(1, 0, 240)
    faded[240:] = 0
    said = [*ANSWER[:before], faded]
    caller, plain = Caller().tell(said).tell(GREETING, prepared), alone(said, GREETING)
    assert caller.wrong_db(len(said)) < plain.wrong_db(len(said)) + 3
    assert caller.wrong_db(len(said) + 3, 30) < plain.wrong_db(len(said) + 3, 30) + 1


def test_while_packets_get_lost_a_call_encodes_for_itself_until_the_next_greeting():
    prepared = Prepared()
    plain = Caller().tell(GREETING, prepared)
    caller = Caller().tell(GREETING[:20], prepared)
    caller.line.expect_loss(0.2)
    caller.tell(GREETING[20:30], prepared, 20)
    caller.line.expect_loss(0.0)
    caller.tell(GREETING[30:], prepared, 30)
    assert caller.packets[:20] == plain.packets[:20]
    assert all(packet[0] < 0x80 for packet in caller.packets[20:30]), "SILK, with copies"
    assert caller.encoder.encoded == len(GREETING) - 20 + 1
    assert caller.tell(GREETING, prepared).packets[len(GREETING) :] == plain.packets
    assert Caller().tell(GREETING, prepared).packets == plain.packets, "nothing of SILK was kept"


def test_a_frame_out_of_order_is_encoded_for_its_call_alone():
    prepared = Prepared()
    plain = Caller().tell(GREETING, prepared)
    caller = Caller().tell(GREETING[5:], prepared, 5)
    assert caller.encoder.encoded == len(GREETING) - 5
    assert Caller().tell(GREETING, prepared).packets == plain.packets


@pytest.mark.parametrize("codec", [PCMU, PCMA])
def test_of_g711_each_law_has_its_own_and_joins_as_if_it_were_encoded_alone(codec):
    prepared = Prepared()
    for other in (OPUS, PCMU, PCMA):
        line = SharingEncoder(other.encoder())
        for number, frame in enumerate(GREETING):
            line.encode(frame, (prepared, number))
    shared, own = SharingEncoder(codec.encoder()), codec.encoder()
    own.encode(np.zeros(480, np.int16))
    for number, frame in enumerate(GREETING):
        assert shared.encode(frame, (prepared, number)) == own.encode(frame)
    for frame in ANSWER[:5]:
        assert shared.encode(frame, None) == own.encode(frame)


def test_g711_payloads_hold_what_was_said():
    line, prepared = SharingEncoder(PCMU.encoder()), Prepared()
    payloads = [line.encode(frame, (prepared, number)) for number, frame in enumerate(GREETING)]
    assert PCMU.encoder().setting != PCMA.encoder().setting
    assert ULAW.silence not in payloads
    sound = ulaw_decode(b"".join(payloads))
    assert len(sound) == len(GREETING) * 160
    assert np.abs(sound).max() == pytest.approx(max(int(np.abs(frame).max()) for frame in GREETING), rel=0.2)
