"""Recorded speech as Opus packets, encoded before anything is measured.

A clip is cut to what is spoken, laid on the 20 ms grid in several alignments, and encoded between
silence by one encoder, so that a decoder hears no seam. Speech begins in the packet that holds the
first sample over 1 % of full scale, and ends in the one that holds the last.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

CLIPS = Path(__file__).parent.parent / "tests" / "audio"
RATE = 16_000
PACKET = 320
"""Samples in 20 ms."""
VOICED = 328
"""1 % of int16 full scale, rounded up: a sample over it is voice."""
LEAD = 3
TAIL = 5
"""Packets of silence around the voice, encoded with it: 60 ms and 100 ms, less than any answer takes to come."""
WARM_UP = 20
"""Packets after which an encoder's silence is steady."""
ALIGNMENTS = (0, 80, 160, 240)
"""Samples by which the same clip is shifted against the packet grid: 0, 5, 10 and 15 ms."""
BITRATE = 32_000
"""What browsers send for mono speech."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """`first`, `last`: indices of the packets in which speech begins and ends."""

    name: str
    packets: tuple[bytes, ...]
    first: int
    last: int

    @property
    def seconds(self) -> float:
        return len(self.packets) * PACKET / RATE


def load(folder: Path = CLIPS) -> list[Utterance]:
    """Every clip in every alignment; neighbours in the list differ in both."""
    clips = voices(folder)
    return [encode(f"{name}+{shift * 1000 // RATE}ms", clips[name], shift) for shift in ALIGNMENTS for name in clips]


def voices(folder: Path = CLIPS) -> dict[str, npt.NDArray[np.int16]]:
    """Every clip, cut to what is spoken: 16 kHz mono."""
    clips = {path.stem: _voice(_read(path)) for path in sorted(folder.glob("synth_flite_*.wav"))}
    if not clips:
        raise FileNotFoundError(f"no clips in {folder}")
    return clips


def silence() -> bytes:
    """One packet of steady encoded silence."""
    return _encoded(np.zeros(WARM_UP * PACKET, np.int16))[-1]


def encode(name: str, voice: npt.NDArray[np.int16], shift: int) -> Utterance:
    """`voice` begins and ends with a voiced sample; `shift`: samples after a packet's start at which it begins."""
    body = LEAD * PACKET + shift + len(voice)
    total = (-(-body // PACKET) + TAIL) * PACKET
    samples = np.zeros(total, np.int16)
    samples[LEAD * PACKET + shift : body] = voice
    voiced = np.flatnonzero(np.abs(samples.astype(np.int32)) >= VOICED)
    return Utterance(name, tuple(_encoded(samples)), int(voiced[0]) // PACKET, int(voiced[-1]) // PACKET)


def _voice(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    voiced = np.flatnonzero(np.abs(samples.astype(np.int32)) >= VOICED)
    return samples[voiced[0] : voiced[-1] + 1]


def _read(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path.name} is not 16 kHz mono int16")
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def _encoded(samples: npt.NDArray[np.int16]) -> list[bytes]:
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate = RATE
    encoder.layout = "mono"
    encoder.format = "s16"
    encoder.bit_rate = BITRATE
    encoder.options = {"application": "voip", "frame_duration": "20"}
    packets: list[bytes] = []
    for start in range(0, len(samples), PACKET):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + PACKET], format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    if len(packets) != len(samples) // PACKET:
        raise RuntimeError("the encoder does not give one packet a frame")
    return packets
