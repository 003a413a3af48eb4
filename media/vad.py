"""Voice activity detection for every call of the process: one Silero model, small batches, a cheap gate.

`Vad` is process-wide; `Vad.detector` gives one call its `SpeechDetector`, which takes the call's
audio and reports `SpeechStarted` and `SpeechStopped`. Windows of all calls that became ready at about
the same time run in one batch of at most 16, inline, so the loop is never held for more than about
1 ms. In clear silence a gate on the level of the sound spares the network. Nothing here
starts a thread, and the model is part of this package.

A window alone costs the network more than twice what it costs among five, so in a process with many calls the
first of a batch waits some milliseconds for others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from media.audio import RATE_IN, Pcm
from media.endpoint import SUBFRAME, SUBFRAMES, Endpointer, EndpointSettings, SpeechEvent
from media.voice_model import BATCH, CONTEXT, STALE, WINDOW, SileroModel, VoiceMemory, VoiceModel, VoiceWindow

_CROWD: Final = 8
"""Calls from which a window waits for company."""

_COMPANY_S: Final = 0.004
"""Seconds that it waits: at a hundred calls six come meanwhile."""

BACKLOG: Final = 32
"""Windows (1 s) a call may lag behind before its oldest ones are skipped."""

_REPLAY: Final = 2
"""Windows before the gate opened that are run first, so that the network knows how the word began."""

REVIEW: Final = 4 * WINDOW
"""Samples kept for a `Guard`: the window and 96 ms before it."""

_OVER_FLOOR: Final = 4.0
"""Power ratio (6 dB) of one sub-frame to the floor that opens the gate."""

_HANGOVER: Final = 10
"""Windows (320 ms) that the gate stays open after the last sound or trace of voice."""

_TRUSTED: Final = 15
"""Windows (0.5 s) of a turn under way for which a `Guard` that heard a talker is not asked again."""

_TRACE: Final = 0.1
"""Probability under which a window is clear non-speech."""

_CALM: Final = 5
"""Windows of clear non-speech in a row before the recurrent state may be forgotten."""


class Guard(Protocol):
    """Knows what is played to the caller: `media.echo.EchoGuard`."""

    @property
    def span(self) -> int:
        """Samples that `explains` is given, a window and what came before it; at most `REVIEW`."""

    def explains(self, samples: Pcm, arrived_at: float) -> bool:
        """Whether the window that ends `samples` is playout coming back. Asked of those with sound, in order;
        of one in sixteen while a turn is under way and the last one asked of was a talker's."""

    def quiet(self, power: float, arrived_at: float) -> None:
        """The window had no sound over the room's noise: its loudest 8 ms had this mean square."""


Schedule: TypeAlias = Callable[[float, Callable[[], None]], object]


class Vad:
    """`load()` once at start, then one `detector` per call.

    `model`: in place of the installed one. `schedule`: runs a callback once, after so many seconds, on
    the event loop; by default `call_later` of the loop that is running when it is first needed. Not
    thread-safe.
    """

    def __init__(self, *, model: VoiceModel | None = None, schedule: Schedule | None = None) -> None:
        self._model = model
        self._schedule = schedule
        self._waiting: deque[SpeechDetector] = deque()
        self._scheduled = False
        self.detectors = 0
        """Open detectors."""
        self.windows_run = 0
        """Windows that the network has judged since the start."""
        self.windows_gated = 0
        """Windows that were too quiet to be shown to it."""
        self.windows_skipped = 0
        """Windows dropped because the loop fell behind."""

    def load(self) -> None:
        """Load the model and run it once, so that the first call pays nothing."""
        if self._model is None:
            self._model = SileroModel()
        silence = VoiceWindow(np.zeros(CONTEXT + WINDOW, np.int16), self._model.memory())
        for size in (1, BATCH):
            self._model.run([silence] * size)

    def detector(
        self,
        settings: EndpointSettings,
        on_event: Callable[[SpeechEvent], None],
        *,
        guard: Guard | None = None,
    ) -> SpeechDetector:
        """`guard`: what it explains is not speech, whatever the network says."""
        if self._model is None:
            self.load()
        assert self._model is not None
        self.detectors += 1
        return SpeechDetector(self, self._model.memory(), settings, on_event, guard)

    def flush(self) -> None:
        """Judge everything that waits, now. For tests and tools; the loop does it in portions."""
        while self._waiting:
            self._run_batch()

    def _await(self, detector: SpeechDetector) -> None:
        """`detector` has a window for the network."""
        self._waiting.append(detector)
        self._wake(_COMPANY_S if self.detectors >= _CROWD else 0.0)

    def _forget(self, detector: SpeechDetector) -> None:
        if detector in self._waiting:
            self._waiting.remove(detector)

    def _wake(self, delay_s: float) -> None:
        if not self._scheduled and self._waiting:
            if self._schedule is None:
                self._schedule = asyncio.get_running_loop().call_later
            self._scheduled = True
            self._schedule(delay_s, self._turn)

    def _turn(self) -> None:
        try:
            self._run_batch()
        finally:
            # What the batch itself left waiting has waited enough.
            self._scheduled = False
            self._wake(0.0)

    def _run_batch(self) -> None:
        """One run of the network over at most `BATCH` calls, one window each.

        What a listener or the model raises reaches the loop's exception handler after every other
        call of the batch has got its answer.
        """
        waiting = self._waiting
        batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
        if not batch:
            return
        assert self._model is not None
        errors: list[Exception] = []
        probabilities: Sequence[float | None] = [None] * len(batch)
        try:
            probabilities = self._model.run([detector._next_window() for detector in batch])
        except Exception as error:
            errors.append(error)
        self.windows_run += len(batch)
        for detector, probability in zip(batch, probabilities, strict=True):
            try:
                detector._answer(probability)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup("voice activity detection", errors)


_KEPT: Final = max(CONTEXT + _REPLAY * WINDOW, REVIEW - WINDOW)
"""Samples before the next window that stay in the buffer."""

_CAPACITY: Final = _KEPT + (BACKLOG + 1) * WINDOW
"""Samples in a call's buffer: 36 KiB."""


class SpeechDetector:
    """The detector of one call. `on_event` is called on the event loop, soon after the audio that caused it.

    Audio lies in one buffer. Sub-frames are heard by the endpointer in order; at each full window
    the gate either answers 0 or the detector waits for the network, and what follows in the buffer
    waits with it. So the events do not depend on chunk sizes or on who shares the batch.
    """

    def __init__(
        self,
        vad: Vad,
        memory: VoiceMemory,
        settings: EndpointSettings,
        on_event: Callable[[SpeechEvent], None],
        guard: Guard | None = None,
    ) -> None:
        self._vad = vad
        self._memory = memory
        self._on_event = on_event
        self._guard = guard
        self._is_echo = False
        """The guard explains the window at `_read`, or explained the last one with sound."""
        self._trusted = 0
        """Windows for which it need not be asked."""
        self._endpointer = Endpointer(settings)
        self._samples = 0
        self._buffer: Pcm = np.zeros(_CAPACITY, np.int16)
        self._read = _KEPT
        """Buffer index of the window to be judged next."""
        self._metered = _KEPT
        """Sub-frames before this index have a level."""
        self._write = _KEPT
        self._levels: deque[tuple[float, float]] = deque()
        """(mean square, arrival) of sub-frames the endpointer has not heard yet."""
        self._arrived_at = 0.0
        """Of the latest sub-frame heard."""
        self._heard = 0
        """Sub-frames heard of the window at `_read`."""
        self._loudest = 0.0
        self._awaited = False
        """The window at `_read` is in the queue for the network."""
        self._replay = 0
        """Windows before it that the network is to hear first."""
        self._open = 0
        """Windows for which the gate stays open without sound."""
        self._listening = False
        """The network judged the previous window."""
        self._probability = 0.0
        self._calm = 0
        self._since_clear = 0
        self._closed = False

    @property
    def position_ms(self) -> float:
        """Media time: all audio ever pushed."""
        return self._samples * 1000 / RATE_IN

    @property
    def in_turn(self) -> bool:
        """A `SpeechStarted` was reported and its `SpeechStopped` was not."""
        return self._endpointer.in_turn

    def push(self, pcm: Pcm, arrived_at: float) -> None:
        """16 kHz samples, any length; `arrived_at` monotonic seconds of its last sample's packet.

        Of more than a second at once, only the last second is sure to be shown to the network.
        """
        if self._closed:
            return
        self._samples += len(pcm)
        if len(pcm) <= WINDOW:
            self._take(pcm, arrived_at)
            return
        for part in _parts(pcm):
            if self._closed:
                return
            self._take(part, arrived_at)

    def configure(self, settings: EndpointSettings) -> None:
        """Takes effect at once; speech under way goes on."""
        self._endpointer.configure(settings)

    def reset(self) -> None:
        """Forget speech under way (the buffer was cleared); media time goes on."""
        self._read = self._metered = self._write
        self._levels.clear()
        self._heard = self._replay = 0
        self._loudest = self._probability = 0.0
        self._leave_queue()
        self._endpointer.reset(self.position_ms)

    def close(self) -> None:
        """No event comes after this. Idempotent."""
        if not self._closed:
            self._closed = True
            self._leave_queue()
            self._vad.detectors -= 1

    def _leave_queue(self) -> None:
        if self._awaited:
            self._awaited = False
            self._vad._forget(self)

    def _take(self, pcm: Pcm, arrived_at: float) -> None:
        """At most one window of samples."""
        size = len(pcm)
        if self._write + size > _CAPACITY:
            self._make_room(size)
        self._buffer[self._write : self._write + size] = pcm
        self._write += size
        count = (self._write - self._metered) // SUBFRAME
        if not count:
            return
        end = self._metered + count * SUBFRAME
        block: npt.NDArray[np.float32] = self._buffer[self._metered : end].reshape(count, SUBFRAME).astype(np.float32)
        self._metered = end
        for energy in np.vecdot(block, block).tolist():
            self._levels.append((energy / SUBFRAME, arrived_at))
        if not self._awaited:
            self._advance()

    def _make_room(self, size: int) -> None:
        """Move what is still needed to the front; skip the oldest windows if the network is too far behind."""
        while self._write - self._read + size > _CAPACITY - _KEPT and self._awaited:
            self._vad.windows_skipped += 1
            self._replay = 0
            self._judge(self._probability)
            self._hear()
        start = self._read - _KEPT
        kept = self._write - start
        self._buffer[:kept] = self._buffer[start : self._write].copy()
        self._read -= start
        self._metered -= start
        self._write -= start

    def _advance(self) -> None:
        """Hear what there is until the network is needed."""
        while not self._closed and self._hear():
            if not self._gate():
                self._vad.windows_gated += 1
                self._judge(0.0)
                continue
            self._awaited = True
            self._vad._await(self)
            return

    def _hear(self) -> bool:
        """Give sub-frames to the endpointer; whether the window at `_read` is complete."""
        levels = self._levels
        while self._heard < SUBFRAMES and levels:
            power, self._arrived_at = levels.popleft()
            self._heard += 1
            if power > self._loudest:
                self._loudest = power
            self._tell(self._endpointer.hear(power, self._arrived_at))
        return self._heard == SUBFRAMES

    def _gate(self) -> bool:
        """Whether the network must hear the window at `_read`."""
        has_sound = self._loudest > self._endpointer.floor * _OVER_FLOOR
        if self._guard is not None:
            self._ask(self._guard, has_sound)
        if has_sound:
            self._open = _HANGOVER
        elif self._open:
            self._open -= 1
        if not self._open and not self._endpointer.in_turn:
            self._listening = False
        elif not self._listening:
            self._listening = True
            self._memory.clear()
            self._since_clear = 0
            self._replay = _REPLAY
        return self._listening

    def _ask(self, guard: Guard, has_sound: bool) -> None:
        """Quiet windows shortly after echo go with it: the network is slow to forget what it heard."""
        if has_sound:
            if self._trusted and self._endpointer.in_turn:
                self._trusted -= 1
                return
            end = self._read + WINDOW
            self._is_echo = guard.explains(self._buffer[end - guard.span : end], self._arrived_at)
            self._trusted = 0 if self._is_echo else _TRUSTED
        else:
            guard.quiet(self._loudest, self._arrived_at)
            self._is_echo = self._is_echo and self._open > 0

    def _next_window(self) -> VoiceWindow:
        start = self._read - self._replay * WINDOW
        return VoiceWindow(self._buffer[start - CONTEXT : start + WINDOW], self._memory)

    def _answer(self, probability: float | None) -> None:
        """The network's answer; None if it failed: the last one is carried on."""
        if not self._awaited:
            return
        if self._replay:
            self._replay -= 1
            self._vad._await(self)
            return
        self._awaited = False
        self._remember(self._probability if probability is None else probability)
        self._advance()

    def _remember(self, probability: float) -> None:
        """Judge the window; clear the network's memory now and then while nobody speaks."""
        if probability < _TRACE:
            self._calm += 1
        else:
            self._calm = 0
            self._open = _HANGOVER
        self._since_clear += 1
        self._judge(probability)
        if self._since_clear >= STALE and self._calm >= _CALM and self._endpointer.quiet:
            self._memory.clear()
            self._since_clear = 0

    def _judge(self, probability: float) -> None:
        self._probability = probability
        self._read += WINDOW
        self._heard = 0
        self._loudest = 0.0
        self._tell(self._endpointer.judge(0.0 if self._is_echo else probability, is_foreign=self._is_echo))

    def _tell(self, event: SpeechEvent | None) -> None:
        if event is not None and not self._closed:
            self._on_event(event)


def _parts(pcm: Pcm) -> Iterator[Pcm]:
    for start in range(0, len(pcm), WINDOW):
        yield pcm[start : start + WINDOW]
