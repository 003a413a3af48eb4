"""What was heard of audio sent ahead: by the clock, by marks, and after a cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.playout import Heard, PlayoutEventKind
from signaling.telephony.playout import CarrierPlayout

SECOND = np.ones(24_000, np.int16)


class Line:
    """A playout, its clock, and a carrier that plays what it is given after `delay` seconds."""

    def __init__(self, *, marks: bool = True, flushes: bool = True, delay: float = 0.0) -> None:
        self.now = 100.0
        self.playout = CarrierPlayout(marks=marks, flushes=flushes, clock=lambda: self.now)
        self.flushed = 0
        self.playout.on_cut = self._cut
        self.delay = delay
        self.asked: list[tuple[float, str]] = []
        self.told: list[tuple[str, int]] = []
        self._empty_at = 0.0

    def _cut(self) -> None:
        self.flushed += 1

    def send(self, ahead_ms: float = 600.0) -> int:
        """Frames sent until the carrier has this much."""
        count = 0
        while self.playout.lead_ms(self.now) < ahead_ms:
            frame, events = self.playout.next_frame(self.now)
            self._tell(events)
            if frame is not None:
                count += 1
                self._empty_at = max(self._empty_at, self.now + self.delay) + 0.02
            name = self.playout.ask(self.now, 400)
            if name is not None:
                self.asked.append((self._empty_at, name))
            if frame is None:
                break
        return count

    def run(self, seconds: float) -> None:
        """Time passes: audio is sent, marks come back."""
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            while self.asked and self.asked[0][0] <= self.now:
                self.playout.marked(self.asked.pop(0)[1], self.now)
            self.send()
            self._tell(self.playout.heard(self.now))

    def _tell(self, events: list) -> None:  # type: ignore[type-arg]
        self.told += [(event.kind.value, event.generation) for event in events]


def test_no_more_than_asked_is_sent_ahead() -> None:
    line = Line()
    line.playout.push(1, SECOND)
    assert line.send(601) == 31
    assert line.playout.lead_ms(line.now) == pytest.approx(620)
    line.now += 0.1
    assert line.send(601) == 5


def test_an_utterance_is_done_when_its_last_mark_came_back() -> None:
    line = Line(delay=0.2)
    line.playout.push(1, SECOND)
    line.playout.finish(1)
    line.send()
    line.run(1.0)
    assert ("done", 1) not in line.told, "it was sent, and not heard to its end"
    line.run(0.3)
    assert line.told[-1] == ("done", 1)
    assert line.playout.heard_ms(1) == 1000
    assert not line.playout.is_waiting


def test_a_cut_counts_what_was_heard_and_flushes() -> None:
    line = Line(delay=0.1)
    line.playout.push(1, SECOND.copy())
    line.playout.push(1, SECOND.copy())
    line.send()
    line.run(0.8)
    heard = line.playout.cut(1)
    assert [entry.generation for entry in heard] == [1]
    assert heard[0].heard_ms == pytest.approx(700, abs=50)
    assert line.flushed == 1
    assert not line.playout.fading
    assert line.playout.next_frame(line.now) == (None, [])
    assert line.playout.push(1, SECOND.copy()) is False
    assert line.playout.heard_ms(1) == heard[0].heard_ms


def test_marks_that_a_flush_brings_back_say_nothing() -> None:
    line = Line()
    line.playout.push(1, SECOND.copy())
    line.send()
    line.run(0.2)
    heard = line.playout.cut(1)[0].heard_ms
    assert heard < 300
    for _, name in line.asked:
        line.playout.marked(name, line.now)
    assert line.playout.heard_ms(1) == heard
    line.asked.clear()
    line.playout.push(2, SECOND.copy())
    line.send()
    assert line.playout.heard_ms(2) < 1


def test_the_clock_never_runs_past_a_mark_that_has_not_come_back() -> None:
    line = Line()
    line.playout.push(1, SECOND.copy())
    line.send()
    assert len(line.asked) == 1
    line.now += 1.5
    assert line.playout.heard_ms(1) <= 400


def test_where_no_mark_ever_comes_back_the_clock_counts() -> None:
    line = Line()
    line.playout.push(1, SECOND.copy())
    line.playout.finish(1)
    line.send()
    line.asked.clear()
    for _ in range(200):
        line.now += 0.02
        line.send()
        line.asked.clear()
        line._tell(line.playout.heard(line.now))
    assert line.told[-1] == ("done", 1)
    assert not line.playout.answers_marks


def test_without_marks_the_clock_alone_counts_and_a_cut_fades() -> None:
    line = Line(marks=False, flushes=False)
    line.playout.push(1, SECOND.copy())
    line.send(10)
    line.run(0.0)
    for _ in range(10):
        line.now += 0.02
        line.send(10)
    assert line.playout.cut(1)[0].heard_ms == pytest.approx(200, abs=25)
    assert line.flushed == 0
    frame, events = line.playout.next_frame(line.now)
    assert frame is not None
    assert [event.kind for event in events] == [PlayoutEventKind.CUT]
    assert line.playout.next_frame(line.now) == (None, [])


def test_an_utterance_without_sound_is_done_after_those_before_it() -> None:
    line = Line()
    line.playout.push(1, SECOND.copy())
    line.playout.finish(1)
    line.playout.finish(2)
    line.send()
    line.run(2.0)
    assert [entry for entry in line.told if entry[0] == "done"] == [("done", 1), ("done", 2)]


@given(st.lists(st.tuples(st.sampled_from(["push", "finish", "run", "cut", "lose"]), st.integers(1, 60)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_never_more_is_heard_than_was_sent_and_every_utterance_ends_once(steps: list[tuple[str, int]]) -> None:
    line = Line(delay=0.05)
    generation, made, ended = 1, {1: 0}, set()
    for step, size in steps:
        match step:
            case "push":
                made[generation] = made.get(generation, 0) + 20 * size
                line.playout.push(generation, np.ones(480 * size, np.int16))
            case "finish":
                line.playout.finish(generation)
                generation += 1
            case "run":
                line.run(size / 30)
            case "cut":
                for heard in line.playout.cut(generation):
                    assert isinstance(heard, Heard)
                    assert 0 <= heard.heard_ms <= made.get(heard.generation, 0)
                    assert heard.generation not in ended
                    ended.add(heard.generation)
                line.asked.clear()
                line._empty_at = 0.0
                generation += 1
            case "lose":
                line.asked = line.asked[1:]
    done = [generation for kind, generation in line.told if kind == "done"]
    assert len(done) == len(set(done))
    assert not set(done) & ended
