"""What the embedded recogniser understands of a recording: an ear that is the same for everybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SAID = {
    "synth_flite_slt_how_are_you": "hello how are you today",
    "synth_flite_rms_weather_london": "what is the weather like in london tomorrow",
}
"""The words of the clips in `tests/audio`."""
_PEAK = 10_000


class Recogniser:
    """pocketsphinx as the product runs it; each recording is its first."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder: Any = Decoder(fwdflat=False, bestpath=True, loglevel="FATAL")
        self._cold = self._decoder.get_cmn(False)

    def understand(self, pcm: npt.NDArray[np.int16]) -> str:
        """`pcm`: 16 kHz mono."""
        loudest = max(1, int(np.abs(pcm.astype(np.int32)).max(initial=0)))
        level = (pcm.astype(np.float32) * (_PEAK / loudest)).astype(np.int16)
        self._decoder.set_cmn(self._cold)
        self._decoder.start_utt()
        self._decoder.process_raw(level.tobytes(), False, False)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return str(found.hypstr) if found is not None else ""
