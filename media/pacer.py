"""One clock for every call of the process, calls spread over the phases of its 20 ms.

Deadlines are absolute, so nothing drifts. After a stall each member is ticked at most once more
than once: what else was missed is dropped, lag never accumulates. Those who speak are ticked every
20 ms, those who wait for something to come every 40 ms, and all four times a second, for reports and
timeouts. The pacer knows nothing about what its members do, starts no task, and costs nothing while
it has no member.

    phases of the period      0   1   2   ...  n-1 | 0   1   2
    members                   a,d     b        c   | a,d     b     one timer: the next phase in use
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from media.audio import FRAME_S
from media.lateness import Lateness

logger = logging.getLogger(__name__)

_FAST_PHASES = 10
"""Phases of 2 ms: fine enough to spread calls, coarse enough that full phases cost few wake-ups."""
_POLL_PERIOD_S = 0.04
"""Seconds between polls: silence that begins is noticed soon enough, and it is the wake-ups that cost."""
_POLL_PHASES = 4
_SLOW_PERIOD_S = 0.25
"""Seconds between slow rounds: timeouts of seconds and reports of about a second need no finer step."""
_SLOW_PHASES = 5
_EARLY_S = 0.0005
"""Seconds by which a timer may be early: event loops round to milliseconds, either way."""
_LATENESS_KEPT = 4096
"""Phases whose lateness is remembered, for the percentile."""


class Paced(Protocol):
    """Gets a tick every 20 ms while it is a member. `now`: `time.monotonic()` seconds."""

    def on_tick(self, now: float) -> None: ...


class Polled(Protocol):
    """Gets a tick every 40 ms while it is polled. `now`: `time.monotonic()` seconds."""

    def on_poll(self, now: float) -> None: ...


class Watched(Protocol):
    """Gets a tick every 250 ms while it is watched. `now`: `time.monotonic()` seconds."""

    def on_watch(self, now: float) -> None: ...


_Member = TypeVar("_Member")


class Timer(Protocol):
    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]
"""`call_later(seconds, callback)`, as an event loop has it."""


def _on_running_loop(delay: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay, callback)


class _Wheel(Generic[_Member]):
    """Members of one period, spread over its phases, behind one timer."""

    def __init__(
        self,
        period_s: float,
        phases: int,
        tick: Callable[[_Member, float], None],
        clock: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self._clock = clock
        self._call_later = call_later
        self._period_s = period_s
        self._step_s = period_s / phases
        self._tick = tick
        self._slots: list[dict[_Member, None]] = [{} for _ in range(phases)]
        self._slot_of: dict[_Member, int] = {}
        self._origin = self._clock()
        self._next_step = 0
        self._timer: Timer | None = None
        self._timer_step = 0
        self._due_at = math.inf
        """When the timer is to go off."""
        self.late = Lateness(_LATENESS_KEPT)

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, member: _Member) -> bool:
        return member in self._slot_of

    def add(self, member: _Member, now: float | None) -> None:
        """Add or move `member`. With `now` its next tick is one period later, at most one phase earlier."""
        # Phases up to here had no members, so nothing was missed in them (unless the timer is late).
        passed = self._step_at(self._clock()) + 1
        self._next_step = max(self._next_step, passed if self._timer is None else min(passed, self._timer_step))
        phases = len(self._slots)
        if now is None:
            slot = min(range(phases), key=lambda index: len(self._slots[index]))
        else:
            slot = self._step_at(now) % phases
        self._forget(member)
        self._slots[slot][member] = None
        self._slot_of[member] = slot
        self._arm()

    def remove(self, member: _Member) -> None:
        self._forget(member)
        if not self._slot_of:
            self.cancel()

    def clear(self) -> None:
        for slot in self._slots:
            slot.clear()
        self._slot_of.clear()
        self.cancel()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_at = math.inf

    def catch_up(self, now: float) -> None:
        """Run what is due, without waiting for the timer."""
        if now >= self._due_at:
            self.cancel()
            self._run()

    def _forget(self, member: _Member) -> None:
        slot = self._slot_of.pop(member, None)
        if slot is not None:
            del self._slots[slot][member]

    def _step_at(self, now: float) -> int:
        return int((now - self._origin) / self._step_s)

    def _arm(self) -> None:
        """Set the timer to the next phase that has members."""
        phases = len(self._slots)
        for ahead in range(phases):
            step = self._next_step + ahead
            if self._slots[step % phases]:
                break
        else:
            self.cancel()
            return
        if self._timer is not None:
            if self._timer_step == step:
                return
            self._timer.cancel()
        self._timer_step = step
        self._due_at = self._origin + step * self._step_s
        self._timer = self._call_later(max(0.0, self._due_at - self._clock()), self._run)

    def _run(self) -> None:
        self._timer, self._due_at = None, math.inf
        now = self._clock()
        phases = len(self._slots)
        current = int((now + _EARLY_S - self._origin) / self._step_s)
        missed = current - self._next_step
        first = self._next_step
        self._next_step = current + 1
        if missed >= 2 * phases:
            # Stalled for long: the last two ticks of each phase are made up for, the rest is dropped.
            self.late.note(now - self._origin - first * self._step_s)
            first = current + 1 - 2 * phases
        for step in range(first, current + 1):
            members = self._slots[step % phases]
            if members:
                self.late.note(now - self._origin - step * self._step_s)
                self._run_slot(list(members), step % phases, now)
        self._arm()

    def _run_slot(self, members: list[_Member], slot: int, now: float) -> None:
        for member in members:
            if self._slot_of.get(member) != slot:
                continue
            try:
                self._tick(member, now)
            except Exception:
                logger.exception("a tick failed; the other calls go on")


class Pacer:
    """The clock of the process. All methods are called on the event loop.

    `clock`: monotonic seconds; `call_later`: the running event loop's unless another one is given.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, call_later: CallLater = _on_running_loop
    ) -> None:
        self._fast: _Wheel[Paced] = _Wheel(
            FRAME_S, _FAST_PHASES, lambda member, now: member.on_tick(now), clock, call_later
        )
        self._poll: _Wheel[Polled] = _Wheel(
            _POLL_PERIOD_S, _POLL_PHASES, lambda member, now: member.on_poll(now), clock, call_later
        )
        self._slow: _Wheel[Watched] = _Wheel(
            _SLOW_PERIOD_S, _SLOW_PHASES, lambda member, now: member.on_watch(now), clock, call_later
        )
        self._running = True

    def start(self) -> None:
        """Take members again after `stop`. A new pacer is started already."""
        self._running = True

    def stop(self) -> None:
        """Drop every member and take no new one."""
        self._running = False
        self._fast.clear()
        self._poll.clear()
        self._slow.clear()

    def add(self, member: Paced, now: float | None = None) -> None:
        """Tick `member` every 20 ms, from one period after `now` or in the emptiest phase. Again: moves it."""
        if self._running:
            self._fast.add(member, now)

    def remove(self, member: Paced) -> None:
        """No further tick, not even one of the round going on. Unknown members are ignored."""
        self._fast.remove(member)

    def poll(self, member: Polled, now: float | None = None) -> None:
        """Tick `member` every 40 ms, from one period after `now` (again: moves it) or in the emptiest phase."""
        if self._running and (now is not None or member not in self._poll):
            self._poll.add(member, now)

    def unpoll(self, member: Polled) -> None:
        self._poll.remove(member)

    def watch(self, member: Watched) -> None:
        """Tick `member` every 250 ms."""
        if self._running and member not in self._slow:
            self._slow.add(member, None)

    def unwatch(self, member: Watched) -> None:
        self._slow.remove(member)

    def catch_up(self, now: float) -> None:
        """Something else is to be done at `now`: first tick those who are due every 20 ms.

        An event loop looks at its timers between two rounds of its sockets, and a round of a hundred calls takes
        several milliseconds: what is to leave must not wait for all that has come. (Polls must: what has come
        may be what they would give up.)
        """
        self._fast.catch_up(now)

    @property
    def members(self) -> int:
        """How many are ticked every 20 ms."""
        return len(self._fast)

    @property
    def polled(self) -> int:
        return len(self._poll)

    @property
    def watched(self) -> int:
        return len(self._slow)

    @property
    def late_ms(self) -> float:
        """The 99th percentile of how late the latest phases were ticked, milliseconds (0 before the first)."""
        return self._fast.late.p99_ms

    @property
    def late(self) -> Lateness:
        """Of every phase ticked so far that had members."""
        return self._fast.late
