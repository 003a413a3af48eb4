"""What a caller has heard of audio that was sent ahead. Sans-I/O but for the clock that `cut` has to ask.

A carrier keeps a queue: we send up to a second ahead of what sounds, and after a flush it throws the rest away.
So what left us is not what was heard. Two things say more: the clock (the carrier plays a second in a second)
and marks, which come back when everything before them was played. A mark that came back is the truth, the clock
tells where between two marks the caller is, and never runs past a mark that has not come back.

    sent     |=========== heard ===========|~~~~ at the carrier, lead ~~~~|
    marks            1           2                  3            4
                  came back   came back        outstanding    outstanding

Marks that come back after our own flush say nothing: the flush brings them back too. A carrier that never
answers marks is found out by the first one that is `_OVERDUE_S` late; from then on the clock alone counts.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from media.audio import RATE_OUT, Pcm
from media.playout import Heard, Playout, PlayoutEvent, PlayoutEventKind

_OVERDUE_S = 2.0
"""Seconds by which a mark may be later than the clock makes it: networks, and a carrier's own buffer."""
_MOST_DELAY_S = 1.0
"""Seconds between sending and hearing that are believed."""
_REMEMBERED = 256
_MS = RATE_OUT // 1000


@dataclass(slots=True)
class _Span:
    """One utterance on the carrier's line; positions in samples since the call began."""

    generation: int
    begin: int
    end: int
    done: bool = False
    """Its last sample was sent."""


@dataclass(frozen=True, slots=True)
class _Mark:
    name: str
    position: int
    due_at: float
    """When the clock would have it played."""


class CarrierPlayout(Playout):
    """`marks`: the carrier says what was played. `flushes`: it can be told to throw away what it holds; then a cut
    needs no fade. `clock()`: monotonic seconds.
    """

    def __init__(self, *, marks: bool, flushes: bool, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._marks = marks
        self._flushes = flushes
        self._clock = clock
        self._spans: deque[_Span] = deque()
        self._over: OrderedDict[int, float] = OrderedDict()
        """What was heard of utterances that the carrier has played or thrown away."""
        self._asked: deque[_Mark] = deque()
        self._marked_at = 0
        """The position of the latest mark."""
        self._count = 0
        self._sent = 0
        self._played = 0
        """By the marks that came back."""
        self._empty_at = float("-inf")
        """When the carrier will have played everything, by the clock."""
        self._delay_s = 0.0
        """How much later than by the clock the latest mark came back."""
        self.on_cut: Callable[[], None] = lambda: None
        """Called when a cut leaves something at the carrier that is not to be heard."""

    # --- sending ------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Something was sent of which it is not known yet whether it was heard."""
        return bool(self._spans)

    @property
    def has_ended(self) -> bool:
        """The utterance sent last has been sent to its end."""
        return bool(self._spans) and self._spans[-1].done

    @property
    def answers_marks(self) -> bool:
        return self._marks

    def lead_ms(self, now: float) -> float:
        """How much of what was sent has not been played, by the clock."""
        return max(0.0, (self._empty_at - now) * 1000)

    def next_frame(self, now: float) -> tuple[Pcm | None, list[PlayoutEvent]]:
        """20 ms to be sent now. DONE is kept back until the caller has heard the utterance (`heard`)."""
        frame, happened = super().next_frame(now)
        events = []
        for event in happened:
            if event.kind is PlayoutEventKind.STARTED:
                self._spans.append(_Span(event.generation, self._sent, self._sent))
            if event.kind is PlayoutEventKind.DONE:
                continue
            events.append(event)
        if frame is not None:
            self._sent += len(frame)
            begins = max(self._empty_at, now)
            self._empty_at = begins + len(frame) / RATE_OUT
            if self.tap is not None:
                self.tap(frame, begins)
            if self._spans and not self._spans[-1].done:
                self._spans[-1].end = self._sent
        for event in happened:
            if event.kind is PlayoutEventKind.DONE:
                self._sent_all(event.generation)
        return frame, events

    def beside(self, frame: Pcm, now: float) -> Pcm:
        """`frame` is sent, and belongs to no utterance."""
        self._sent += len(frame)
        self._empty_at = max(self._empty_at, now) + len(frame) / RATE_OUT
        if self._spans and not self._spans[-1].done:
            self._spans[-1].begin += len(frame)
            self._spans[-1].end = self._sent
        return frame

    def _sent_all(self, generation: int) -> None:
        for span in self._spans:
            if span.generation == generation:
                span.done = True
                return
        # Nothing was ever pushed for it: it is over when what is before it has been heard.
        self._spans.append(_Span(generation, self._sent, self._sent, done=True))

    def ask(self, now: float, every_ms: int) -> str | None:
        """The name of a mark that is due now: so much was sent since the last one, or an utterance has ended."""
        unmarked = self._sent - self._marked_at
        if not self._marks or not unmarked or (unmarked < every_ms * _MS and not self.has_ended):
            return None
        self._count += 1
        self._marked_at = self._sent
        self._asked.append(_Mark(f"m{self._count}", self._sent, max(self._empty_at, now)))
        return self._asked[-1].name

    # --- hearing ------------------------------------------------------------------------------

    def marked(self, name: str, now: float) -> None:
        """A mark came back. One that is not waited for (dropped by a flush, unknown) says nothing."""
        if not any(mark.name == name for mark in self._asked):
            return
        while self._asked:
            mark = self._asked.popleft()
            self._played = mark.position
            self._delay_s = min(max(0.0, now - mark.due_at), _MOST_DELAY_S)
            if mark.name == name:
                return

    def heard(self, now: float) -> list[PlayoutEvent]:
        """DONE for each utterance that the caller has heard to its end."""
        if self._asked and now > self._asked[0].due_at + _OVERDUE_S:
            self._marks = False
            self._asked.clear()
        events = []
        played = self._played if self._marks else self._position(now)
        while self._spans and self._spans[0].done and self._spans[0].end <= played:
            span = self._spans.popleft()
            self._settle(span.generation, super().heard_ms(span.generation))
            events.append(PlayoutEvent(PlayoutEventKind.DONE, span.generation, self._over[span.generation], now))
        return events

    def _position(self, now: float) -> int:
        """Samples that the caller has heard, as far as can be known."""
        lead = max(0.0, self._empty_at + self._delay_s - now) * RATE_OUT
        most = self._asked[0].position if self._asked else self._sent
        return max(self._played, min(self._sent - int(lead), most))

    def _span_heard_ms(self, span: _Span, position: int) -> float:
        """Without the silence that fills up an utterance's last frame."""
        return min(max(0, position - span.begin) / _MS, super().heard_ms(span.generation))

    def heard_ms(self, generation: int) -> float:
        for span in self._spans:
            if span.generation == generation:
                return self._span_heard_ms(span, self._position(self._clock()))
        return self._over.get(generation, 0.0)

    # --- cutting ------------------------------------------------------------------------------

    def cut(self, through: int | None = None) -> list[Heard]:
        """As `Playout.cut`, but of what was sent only that counts which was heard."""
        now = self._clock()
        position = self._position(now)
        spans = list(self._spans)
        heard = {span.generation: self._span_heard_ms(span, position) for span in spans}
        heard |= {entry.generation: heard.get(entry.generation, 0.0) for entry in super().cut(through)}
        for generation, ms in heard.items():
            self._settle(generation, ms)
        self._spans.clear()
        self._asked.clear()
        self._played = self._marked_at = self._sent
        if self._flushes:
            self._fade = None
            self._empty_at = now
            if self.untap is not None:
                self.untap(now - self._delay_s)
            if spans:
                self.on_cut()
        return [Heard(generation, ms) for generation, ms in sorted(heard.items())]

    def _settle(self, generation: int, ms: float) -> None:
        self._over[generation] = ms
        while len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
