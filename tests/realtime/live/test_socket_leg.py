"""Audio in events: what is appended is heard, what is no audio is refused whole, and formats are kept."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from media import g711
from media.audio import Pcm
from media.playout import PlayoutEvent
from realtime.live.socket_leg import MAX_APPEND_BYTES, PIECE, AudioError, AudioFormat, SocketLeg, decode

TONE = (8000 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)).astype(np.int16)


class Listener:
    def __init__(self) -> None:
        self.heard: list[Pcm] = []
        self.closed: str | None = None

    def on_open(self) -> None: ...
    def on_text_open(self) -> None: ...
    def on_text(self, text: str) -> None: ...
    def on_key(self, key: str, at: float) -> None: ...
    def on_playout(self, event: PlayoutEvent) -> None: ...

    def on_audio(self, pcm: Pcm, at: float) -> None:
        self.heard.append(pcm)

    def on_closed(self, reason: str) -> None:
        self.closed = reason

    @property
    def samples(self) -> int:
        return sum(map(len, self.heard))


@pytest.fixture
def leg() -> SocketLeg:
    leg = SocketLeg()
    leg.attach(Listener())
    leg.open()
    return leg


def listener(leg: SocketLeg) -> Listener:
    found = leg._listener
    assert isinstance(found, Listener)
    return found


def text(pcm: Pcm) -> str:
    return base64.b64encode(pcm.astype("<i2").tobytes()).decode()


@pytest.mark.parametrize("samples", [0, 1, 480, 24_000])
def test_pcm_comes_out_as_it_was(samples: int, leg: SocketLeg):
    assert np.array_equal(decode(leg.encode(TONE[:samples]), AudioFormat.PCM), TONE[:samples])


@pytest.mark.parametrize(("form", "law"), [(AudioFormat.PCMU, g711.ulaw_decode), (AudioFormat.PCMA, g711.alaw_decode)])
def test_telephone_formats_have_one_byte_a_sample(form: AudioFormat, law: object, leg: SocketLeg):
    leg.use_formats(form, form)
    said = decode(leg.encode(TONE), form)
    assert len(said) == pytest.approx(8000, abs=80)
    assert np.abs(said[800:].astype(int)).max() == pytest.approx(8000, rel=0.1)


@pytest.mark.parametrize(
    "audio",
    ["*", "QUJ", "QUJD=", "QU=JD", "QUJDRA=", "QU JD", "QUJD\n", "ä" * 4, "QQ==", "QUJD"],
    ids=["letter", "length", "padding", "inner", "half", "blank", "newline", "unicode", "one byte", "three bytes"],
)
async def test_what_is_no_audio_is_refused_and_nothing_of_it_is_heard(audio: str, leg: SocketLeg):
    with pytest.raises(AudioError):
        await leg.hear(audio)
    assert listener(leg).samples == 0


async def test_a_long_append_with_a_fault_at_its_end_is_refused_whole(leg: SocketLeg):
    long = text(np.zeros(PIECE, np.int16))
    assert len(long) > PIECE
    with pytest.raises(AudioError):
        await leg.hear(long + "*")
    with pytest.raises(AudioError):
        await leg.hear("AAA=" + long)
    with pytest.raises(AudioError, match="15 MiB"):
        await leg.hear("A" * (MAX_APPEND_BYTES * 4 // 3 + 8))
    assert listener(leg).samples == 0


async def test_how_a_recording_is_cut_does_not_change_what_is_heard():
    whole, pieces = SocketLeg(), SocketLeg()
    recording = np.tile(TONE, 3)
    for leg in (whole, pieces):
        leg.attach(Listener())
        leg.open()
    await whole.hear(text(recording))
    for start in range(0, len(recording), 480):
        await pieces.hear(text(recording[start : start + 480]))
    assert np.array_equal(np.concatenate(listener(whole).heard), np.concatenate(listener(pieces).heard))
    assert listener(whole).samples == pytest.approx(48_000, abs=32)


async def test_a_client_that_does_not_read_is_let_go(leg: SocketLeg):
    told = listener(leg)
    for _ in range(17):
        leg.send_text("x" * (1 << 20))
    assert leg.closed == told.closed == "slow_reader"
    assert await leg.unsent() == []
