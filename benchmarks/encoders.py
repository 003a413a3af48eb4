"""How well speech sounds after each encoder setting, by what a recogniser understands of it.

    python -m benchmarks.encoders [--seeds 4] [--write docs/media.md]

Both test clips, at two levels and in four alignments to the packet grid, are encoded, lose packets by a seed, and are
decoded by the product's decoder, copies in the next packet used where there are any. Judged are the words that
pocketsphinx makes of the result (word error rate), and how far the spectrum is from what went in (log-spectral
distance: dB over 20 ms frames that hold speech, 0 to 8 kHz).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import machine, report, section, speech
from benchmarks.figures import Json
from benchmarks.recogniser import SAID, Recogniser
from media import libopus
from media.audio import RATE_IN, RATE_OUT
from media.opus import OpusDecoder
from tests.media.lossy import Link
from tests.words import word_errors

Pcm = npt.NDArray[np.int16]

LEVELS = (1.0, 0.3)
LOSSES = {"nothing lost": Link(), "5 % lost": Link(loss=0.05), "10 % in runs of 2": Link(loss=0.1, burst=2)}
FRAME = RATE_IN // 50
_PAD = np.zeros(RATE_IN // 2, np.int16)


@dataclass(frozen=True)
class Setting:
    name: str
    application: int
    bitrate: int
    complexity: int = 5
    copies: bool = False
    rate: int = RATE_OUT
    channels: int = 1


SETTINGS = (
    Setting("low delay, 56 kbit/s, complexity 1 (sent by default)", libopus.APPLICATION_RESTRICTED_LOWDELAY, 56_000, 1),
    Setting("low delay, 48 kbit/s, complexity 5", libopus.APPLICATION_RESTRICTED_LOWDELAY, 48_000),
    Setting("low delay, 32 kbit/s, complexity 5", libopus.APPLICATION_RESTRICTED_LOWDELAY, 32_000),
    Setting("SILK, 24 kbit/s", libopus.APPLICATION_VOIP, 24_000),
    Setting("SILK with copies, 40 kbit/s (sent while packets get lost)", libopus.APPLICATION_VOIP, 40_000, copies=True),
    Setting("stock aiortc: 96 kbit/s stereo, complexity 10", libopus.APPLICATION_VOIP, 96_000, 10, False, 48_000, 2),
)


class Encoder:
    def __init__(self, setting: Setting) -> None:
        opus = libopus.library()
        self._setting = setting
        self._state = ctypes.create_string_buffer(opus.opus_encoder_get_size(setting.channels))
        self._packet = ctypes.create_string_buffer(1500)
        if opus.opus_encoder_init(self._state, setting.rate, setting.channels, setting.application) != libopus.OK:
            raise RuntimeError(setting.name)
        wanted = [(libopus.SET_BITRATE, setting.bitrate), (libopus.SET_COMPLEXITY, setting.complexity)]
        if setting.copies:
            wanted += [(libopus.SET_INBAND_FEC, 1), (libopus.SET_PACKET_LOSS_PERC, 10)]
        for request, value in wanted:
            if opus.opus_encoder_ctl(self._state, request, ctypes.c_int(value)) != libopus.OK:
                raise RuntimeError(setting.name)

    def encode(self, pcm: Pcm) -> list[bytes]:
        """Mono at the setting's rate in."""
        setting, size = self._setting, self._setting.rate // 50
        packets = []
        for start in range(0, len(pcm) - size + 1, size):
            frame = np.repeat(pcm[start : start + size], setting.channels).tobytes()
            got = libopus.library().opus_encode(self._state, frame, size, self._packet, len(self._packet))
            packets.append(ctypes.string_at(self._packet, got))
        return packets


def _resampled(pcm: Pcm, rate: int) -> Pcm:
    """By its spectrum: no filter of ours is in what is judged."""
    spectrum = np.fft.rfft(pcm.astype(np.float64))
    whole = np.zeros(len(pcm) * rate // RATE_IN // 2 + 1, np.complex128)
    whole[: len(spectrum)] = spectrum
    return np.clip(np.fft.irfft(whole) * rate / RATE_IN, -32768, 32767).astype(np.int16)


def decode(packets: list[bytes], link: Link, seed: str) -> Pcm:
    decoder, fates = OpusDecoder(), link.fates(seed)
    lost = [not next(fates) for _ in packets]
    sound = []
    for index, packet in enumerate(packets):
        if not lost[index]:
            sound.append(decoder.decode(packet))
            continue
        is_last = index + 1 == len(packets) or lost[index + 1]
        copy = None if is_last else decoder.recover(960, packets[index + 1])
        sound.append(decoder.conceal(960) if copy is None else copy)
    return np.concatenate(sound)


def distance(before: Pcm, after: Pcm) -> float:
    """Log-spectral distance in dB, at the shift (the codec's look-ahead, below 20 ms) at which it is least."""
    speaks = [
        start
        for start in range(FRAME, len(before) - 2 * FRAME, FRAME)
        if np.abs(before[start : start + FRAME].astype(np.int32)).max() > speech.VOICED
    ]
    window = np.hanning(FRAME)

    def spectra(pcm: Pcm, shift: int) -> npt.NDArray[np.float64]:
        frames = np.stack([pcm[start + shift : start + shift + FRAME] for start in speaks]) * window
        return 10 * np.log10(np.abs(np.fft.rfft(frames)) ** 2 + 1e4)

    wanted = spectra(before, 0)
    return min(
        float(np.mean(np.sqrt(np.mean((spectra(after, shift) - wanted) ** 2, axis=1)))) for shift in range(0, 200, 4)
    )


def _utterances() -> list[tuple[str, Pcm]]:
    voices = speech.voices()
    return [
        (SAID[name], np.concatenate([_PAD[shift:], (voices[name] * level).astype(np.int16), _PAD]))
        for name in SAID
        for level in LEVELS
        for shift in speech.ALIGNMENTS
    ]


def measure(seeds: int, say: Callable[[str], None]) -> Json:
    ear, utterances, result = Recogniser(), _utterances(), {}
    for setting in SETTINGS:
        say(setting.name)
        raised = [_resampled(pcm, setting.rate) for _, pcm in utterances]
        began, encoded = time.thread_time(), [Encoder(setting).encode(pcm) for pcm in raised]
        count = sum(map(len, encoded))
        one: Json = {"us_per_packet": round((time.thread_time() - began) / count * 1e6)}
        one["kbit_per_second"] = round(sum(len(packet) for packets in encoded for packet in packets) / count * 0.4, 1)
        for name, link in LOSSES.items():
            wrong = words = 0
            distances = []
            for number, ((said, pcm), packets) in enumerate(zip(utterances, encoded, strict=True)):
                for seed in range(seeds if link.loss else 1):
                    heard = decode(packets, link, f"{number} {seed}")
                    wrong += word_errors(said, ear.understand(heard))
                    words += len(said.split())
                    distances.append(distance(pcm, heard))
            one[name] = {"word_errors": round(wrong / words, 3), "distance_db": round(float(np.mean(distances)), 2)}
        result[setting.name] = one
    return result


def page(result: Json) -> str:
    head = ["encoder", "kbit/s on average", "µs a packet", *(f"{name}: word errors, dB" for name in LOSSES)]
    rows = [
        [name, one["kbit_per_second"], one["us_per_packet"]]
        + [f"{one[loss]['word_errors']:.3f}, {one[loss]['distance_db']:.1f}" for loss in LOSSES]
        for name, one in result.items()
    ]
    return f"""## Encoder settings

`python -m benchmarks.encoders`: both test clips at two levels and in four alignments, encoded, with packets lost by a
seed, decoded to 16 kHz. Word errors are those of pocketsphinx (general English); dB is the log-spectral distance from
what went in, over frames that hold speech. Neither is a listening test.

{section.table(head, rows)}"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoders", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="losses tried of each utterance")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    result = measure(options.seeds, report.progress(options))
    whole = {"machine": machine.describe(), "encoders": result}
    print(json.dumps(whole, indent=2))
    print(page(result), file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    if options.write:
        section.put(options.write, "encoders", page(result))


if __name__ == "__main__":
    main()
