"""How late the event loop runs, and what held it up.

One timer on the loop beats every 20 ms: how late each beat comes is the loop's lag, which admission
and the status page read. One thread of the process looks at the beats: when none has come for 100 ms
it logs the stack of the loop's thread, with the innermost line that is neither Python's nor an
installed package's first, because that is the line its author can change. Each hold-up is logged
once, and once more when it is over, with its length.

    BEATING --no beat for 100 ms--> HELD (stack logged) --beat--> BEATING (length logged)
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import sysconfig
import threading
import time
import traceback
from enum import Enum
from pathlib import Path
from traceback import FrameSummary

from media.lateness import Lateness

log = logging.getLogger("realtime.watchdog")

BEAT_S = 0.02
HELD_S = 0.1
"""Without a beat for longer than this: every call of the process has missed five packets."""
_LOOK_S = 0.025
"""Seconds between looks at the beats."""
_KEPT = 500
"""Beats whose lateness is remembered, 10 s: long enough to forgive one hold-up, short enough to notice overload."""
_ENOUGH = 100
"""Beats, 2 s, before which the 99th percentile says nothing."""
_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


_WAITING = (str(Path(asyncio.__file__).parent), selectors.__file__)
"""Where the innermost line of a loop is that waits for something to do."""


class _State(Enum):
    BEATING = "beating"
    HELD = "held"


class Watchdog:
    """`start` and `stop` are called on the event loop that is watched. `held_s`: seconds without a beat.

    `name`: what the log calls the loop.
    """

    def __init__(self, *, held_s: float = HELD_S, name: str = "the event loop") -> None:
        self._held_s = held_s
        self._name = name
        self.late = Lateness(_KEPT)
        """Of every beat."""
        self._beat_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.hold_ups = 0
        """Hold-ups logged since the start."""

    @property
    def lag_ms(self) -> float:
        """The 99th percentile of the loop's lag over the last 10 s, milliseconds; 0 until 2 s are known."""
        return self.late.p99_ms if self.late.known >= _ENOUGH else 0.0

    def start(self) -> None:
        """Watch the running loop. A stopped watchdog may be started again."""
        if self._thread is not None:
            return
        self._loop = asyncio.get_running_loop()
        self.late.forget()
        self._stopping = threading.Event()
        self._beat_at = time.monotonic()
        self._timer = self._loop.call_later(BEAT_S, self._beat, self._beat_at + BEAT_S)
        loop_thread = threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(loop_thread, self._stopping), name="watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """The thread has ended when this returns. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._timer = self._thread = self._loop = None

    def _beat(self, due: float) -> None:
        now = self._beat_at = time.monotonic()
        self.late.note(now - due)
        if self._loop is not None:
            self._timer = self._loop.call_later(BEAT_S, self._beat, now + BEAT_S)

    def _watch(self, loop_thread: int, stopping: threading.Event) -> None:
        state, seen = _State.BEATING, self._beat_at
        looked = time.monotonic()
        while not stopping.wait(_LOOK_S):
            now, before = time.monotonic(), looked
            looked = now
            beat = self._beat_at
            if beat != seen:
                if state is _State.HELD:
                    log.warning("%s goes on; it stood still for %.0f ms", self._name, (beat - seen) * 1000)
                state, seen = _State.BEATING, beat
            elif now - before > 2 * _LOOK_S:
                # This thread did not run either: not yet a proof against the loop. The next look tells.
                continue
            elif state is _State.BEATING and now - beat > self._held_s:
                state = _State.HELD
                self.hold_ups += 1
                self._report(loop_thread, now - beat)

    def _report(self, loop_thread: int, held_s: float) -> None:
        frame = sys._current_frames().get(loop_thread)
        if frame is None:
            return
        stack = traceback.extract_stack(frame)
        if stack[-1].filename.startswith(_WAITING):
            log.warning("%s has not run for %.0f ms, and runs no code: the machine is busy", self._name, held_s * 1000)
            return
        log.warning(
            "%s has been held up for %.0f ms by %s\n%s",
            self._name,
            held_s * 1000,
            _place(_culprit(stack)),
            "".join(traceback.format_list(stack)).rstrip(),
        )


def _culprit(stack: list[FrameSummary]) -> FrameSummary:
    """The innermost line that its author can change: neither Python's own nor an installed package's."""
    own = [line for line in stack if not line.filename.startswith((*_INSTALLED, "<"))]
    return own[-1] if own else stack[-1]


def _place(line: FrameSummary) -> str:
    return f"{Path(line.filename)}:{line.lineno} in {line.name}"
