"""The pocketsphinx decoder, in its worker process: one utterance at a time.

A recogniser hears what it was trained on: speech near full scale, and a channel whose mean it knows.
So the level is set before the decoder (`Level`), and the cepstral mean and the level of a speaker come
with the utterance and go back with its result: they must never pass from one session to another.
A telephone line has nothing above 4 kHz, which the model was not trained for: a little noise fills the
empty bands, and a speaker whose first words are that narrow begins with the mean of such lines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum
from importlib import metadata
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from media.audio import RATE_IN, Pcm
from realtime.adapters.base import EngineError
from realtime.adapters.embedded.worker_main import Output

_PIECE: Final = 640
"""Samples decoded in one step: 40 ms, about 8 ms of work."""
_PARTIAL_EVERY: Final = 1600
"""Samples between two looks at the hypothesis: 100 ms."""
_TAKEN_EVERY: Final = 16_000
"""Bytes worked off between two reports of it: half a second."""
_CMN_LONGEST: Final = 400

PEAK: Final = 10_000.0
"""Sample value that the first words are brought to: what follows is louder still, and whole utterances
are recognised best with their peak near 20,000."""
_COMFORTABLE: Final = (5_000.0, 28_000.0)
"""Peaks that are left as they are: the model hears them as well, and a gain only raises the noise."""
_LOUDEST: Final = 30_000.0
_MAX_GAIN: Final = 10.0
"""20 dB; beyond it noise is made into speech."""
_ONSET: Final = 500
"""Sample value that counts as the beginning of speech when the level is unknown."""
_HISS: Final = 10.0
"""Standard deviation of the noise that is added: -70 dBFS. It changes nothing of what a microphone gives; over
G.711 it makes the difference between three words in four and none."""
_TELEPHONE: Final = "40,8,-10,10,-5,0,3,-7,5,-4,1,2,-2"
"""The cepstral mean of speech over G.711 with that noise, rounded."""
_NARROW_HZ: Final = 4600
_NARROW: Final = 1e-5
"""Share of the power above `_NARROW_HZ` below which it is a telephone line: there it is 1e-6 and less, from
microphones 3e-5 and more."""
_LOOK_S: Final = 0.4
"""Seconds of speech that are looked at before the level is decided."""
_LOOK_MAX_S: Final = 1.2
"""Seconds after which it is decided even if nothing loud came."""


class LevelState(Enum):
    LOOKING = "looking"
    SET = "set"


class Level:
    """Brings speech to one level without hearing the end of it first.

    LOOKING --enough speech seen, or flush--> SET. While looking it holds the audio back; then the gain
    stays, except that what would clip lowers it. A speaker's earlier `peak` skips the looking.
    """

    def __init__(self, peak: float | None = None) -> None:
        self.peak = 0
        """Of this utterance."""
        self._held: list[Pcm] = []
        self._seen = 0
        self._speech = 0
        self._gain = _gain(peak) if peak else 1.0
        self._state = LevelState.SET if peak else LevelState.LOOKING
        self.is_narrow = False
        """What was looked at has nothing above the band of a telephone line."""

    def push(self, pcm: Pcm) -> Pcm:
        peak = int(np.abs(pcm.astype(np.int32)).max(initial=0))
        self.peak = max(self.peak, peak)
        if self._state is LevelState.SET:
            if peak * self._gain > _LOUDEST:
                self._gain = _LOUDEST / peak
            return self._applied(pcm)
        self._held.append(pcm)
        self._seen += len(pcm)
        if self._speech or peak >= _ONSET:
            self._speech += len(pcm)
        if self._speech >= _LOOK_S * RATE_IN or self._seen >= _LOOK_MAX_S * RATE_IN:
            return self.flush()
        return pcm[:0]

    def flush(self) -> Pcm:
        """What was held back: decided with what there is."""
        if self._state is LevelState.LOOKING:
            self._state = LevelState.SET
            self._gain = _gain(self.peak)
        held, self._held = self._held, []
        if not held:
            return np.zeros(0, np.int16)
        pcm = np.concatenate(held)
        self.is_narrow = _is_narrow(pcm)
        return self._applied(pcm)

    def _applied(self, pcm: Pcm) -> Pcm:
        scaled: npt.NDArray[np.float32] = pcm.astype(np.float32) * np.float32(self._gain)
        return np.clip(scaled, -32768, 32767).astype(np.int16)


def _gain(peak: float) -> float:
    if _COMFORTABLE[0] <= peak <= _COMFORTABLE[1]:
        return 1.0
    return min(PEAK / max(peak, 1.0), _MAX_GAIN)


def _is_narrow(pcm: Pcm) -> bool:
    if not len(pcm):
        return False
    windowed = pcm.astype(np.float32) * np.hanning(len(pcm)).astype(np.float32)
    power = np.abs(np.fft.rfft(windowed)) ** 2
    whole = float(power.sum())
    return whole > 0 and float(power[len(pcm) * _NARROW_HZ // RATE_IN :].sum()) < _NARROW * whole


class PocketsphinxEngine:
    def __init__(self) -> None:
        from pocketsphinx import Decoder

        began = time.monotonic()
        # The second pass (fwdflat) would cost up to half a second after the end of speech. The last one, over the
        # lattice, costs some 5 ms and makes words survive Opus: 1 of 62 encodings of the test sentences was
        # misheard with it, 19 without.
        self._decoder = Decoder(fwdflat=False, bestpath=True, loglevel="FATAL")
        self._cold: str = self._decoder.get_cmn(False)
        self._job: Utterance | None = None
        self._warm_up()
        self._load_ms = round((time.monotonic() - began) * 1000)

    def describe(self) -> Mapping[str, Any]:
        return {"version": metadata.version("pocketsphinx"), "load_ms": self._load_ms}

    def open(self, head: Mapping[str, Any], body: bytes, out: Output) -> Utterance:
        if self._job is not None and not self._job.closed:
            raise EngineError("the decoder is in use", code="recogniser_busy")
        cmn, peak = head.get("cmn"), head.get("peak")
        known = isinstance(cmn, str) and 0 < len(cmn) <= _CMN_LONGEST
        self._decoder.set_cmn(cmn if known else self._cold)
        level = Level(float(peak) if isinstance(peak, int | float) and peak > 0 else None)
        self._job = Utterance(self._decoder, out, level, is_known=known)
        return self._job

    def _warm_up(self) -> None:
        """The first utterance pages the language model in: let it be nobody's."""
        noise = np.random.default_rng(1).normal(0, 800, RATE_IN // 2).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(noise.tobytes(), False, False)
        self._decoder.end_utt()
        self._decoder.set_cmn(self._cold)


class Utterance:
    """A `Job`: items are `{text, final}`, the final one with the speaker's `cmn` and `peak`. `is_known`: the
    decoder has this speaker's mean."""

    def __init__(self, decoder: Any, out: Output, level: Level, *, is_known: bool) -> None:
        self.closed = False
        self._decoder = decoder
        self._out = out
        self._level = level
        self._is_known = is_known
        self._noise = np.random.default_rng(1)
        self._waiting = bytearray()
        self._taken = 0
        self._since_partial = 0
        self._shown = ""
        self._finishing = False
        # The front end's noise estimate would else be the last speaker's.
        decoder.start_stream()
        decoder.start_utt()

    def data(self, payload: bytes) -> None:
        self._waiting += payload

    def finish(self) -> None:
        self._finishing = True

    def step(self) -> bool:
        if len(self._waiting) >= 2 * _PIECE or (self._finishing and len(self._waiting) > 1):
            piece = bytes(self._waiting[: 2 * _PIECE])[: len(self._waiting) & ~1]
            del self._waiting[: len(piece)]
            self._decode(self._level.push(np.frombuffer(piece, np.int16)))
            self._taken += len(piece)
            if self._taken >= _TAKEN_EVERY:
                self._out.taken(self._taken)
                self._taken = 0
            return True
        if self._finishing:
            self._decode(self._level.flush())
            self._finish()
        return False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._decoder.end_utt()

    def _decode(self, pcm: Pcm) -> None:
        if not len(pcm):
            return
        if not self._is_known:
            self._is_known = True
            if self._level.is_narrow:
                self._decoder.set_cmn(_TELEPHONE)
        hissing = pcm + self._noise.normal(0.0, _HISS, len(pcm)).astype(np.float32)
        self._decoder.process_raw(np.clip(hissing, -32768, 32767).astype(np.int16).tobytes(), False, False)
        self._since_partial += len(pcm)
        if self._since_partial >= _PARTIAL_EVERY and not self._finishing:
            self._since_partial = 0
            text = self._text()
            if text and text != self._shown:
                self._shown = text
                self._out.item({"text": text, "final": False}, droppable=True)

    def _finish(self) -> None:
        self.close()
        head = {"text": self._text(), "final": True, "cmn": self._decoder.get_cmn(True), "peak": self._level.peak}
        self._out.item(head)
        self._out.end()

    def _text(self) -> str:
        hypothesis = self._decoder.hyp()
        return str(hypothesis.hypstr).strip() if hypothesis is not None else ""


def load(options: Mapping[str, Any]) -> PocketsphinxEngine:
    return PocketsphinxEngine()
