"""What is said and what was heard: tables, then a machine that cuts, pushes and listens at random."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from media.playout import Heard, Playout, PlayoutEvent, PlayoutEventKind, PlayoutFull
from media.prepared import Prepared

STARTED, LOW, CUT, DONE = PlayoutEventKind


def ramp(count, start=1):
    """Samples that tell where they stand."""
    return (np.arange(start, start + count) % 30_000 + 1).astype(np.int16)


def level(value, count):
    return np.full(count, value, np.int16)


def drain(playout, limit=10_000):
    """Every frame until there is none, and every event."""
    frames, events = [], []
    for tick in range(limit):
        frame, told = playout.next_frame(tick * 0.02)
        events += told
        if frame is None:
            return frames, events
        frames.append(frame)
    raise AssertionError("never ends")


def kinds(events):
    return [(event.kind, event.generation) for event in events]


class TestSpeaking:
    def test_frames_are_the_samples_in_order_however_they_were_pushed(self):
        playout, audio = Playout(), ramp(480 * 7)
        for part in np.split(audio, [1, 3, 481, 482, 2000, 2000, 3000]):
            assert playout.push(1, part)
        playout.finish(1)
        frames, _ = drain(playout)
        assert {frame.shape for frame in frames} == {(480,)}
        np.testing.assert_array_equal(np.concatenate(frames), audio)

    def test_what_comes_in_crumbs_is_heard_whole(self):
        playout, audio = Playout(), ramp(480 * 4)
        for sample in audio:
            playout.push(1, np.array([sample]))
        playout.finish(1)
        np.testing.assert_array_equal(np.concatenate(drain(playout)[0]), audio)

    def test_starts_once_and_ends_once_at_the_frames_that_did_it(self):
        playout = Playout(low_ms=0)
        playout.push(5, ramp(960))
        playout.finish(5)
        _, first = playout.next_frame(1.0)
        _, second = playout.next_frame(1.02)
        assert first == [PlayoutEvent(STARTED, 5, 20.0, 1.0)]
        assert second == [PlayoutEvent(DONE, 5, 40.0, 1.02)]
        assert playout.next_frame(1.04) == (None, [])

    def test_the_last_frame_is_filled_up_with_silence(self):
        playout = Playout()
        playout.push(1, level(20_000, 500))
        playout.finish(1)
        frames, events = drain(playout)
        assert len(frames) == 2
        tail = frames[1]
        assert tail.shape == (480,)
        assert not tail[20:].any()
        assert tail[0] == 20_000
        assert (np.diff(tail[:20].astype(int)) < 0).all()
        assert tail[19] < 2000, "no step from full level to nothing"
        assert events[-1].heard_ms == pytest.approx(500 / 24), "padding is not heard"

    def test_a_quiet_end_is_left_as_it_is(self):
        playout = Playout()
        playout.push(1, level(100, 30))
        playout.finish(1)
        (frame,), _ = drain(playout)
        assert frame[:30].tolist() == [100] * 30

    def test_less_than_a_frame_waits_until_more_comes_or_nothing_will(self):
        playout = Playout()
        playout.push(1, ramp(400))
        assert playout.next_frame(0)[0] is None
        playout.push(1, ramp(100, 401))
        np.testing.assert_array_equal(playout.next_frame(0)[0], ramp(480))
        assert playout.next_frame(0)[0] is None
        playout.finish(1)
        assert playout.next_frame(0)[0] is not None
        assert playout.next_frame(0) == (None, [])

    def test_an_utterance_that_pauses_goes_on_where_it_was(self):
        playout = Playout()
        playout.push(1, ramp(480))
        playout.next_frame(0)
        assert playout.next_frame(0)[0] is None
        assert playout.speaking == 1
        playout.push(1, ramp(480, 481))
        np.testing.assert_array_equal(playout.next_frame(0)[0], ramp(480, 481))
        assert playout.heard_ms(1) == 40

    def test_utterances_follow_each_other_without_a_gap(self):
        playout = Playout(low_ms=0)
        for generation in (1, 4, 9):
            playout.push(generation, level(generation * 1000, 480))
            playout.finish(generation)
        frames, events = drain(playout)
        assert [int(frame[0]) for frame in frames] == [1000, 4000, 9000]
        assert kinds(events) == [(kind, generation) for generation in (1, 4, 9) for kind in (STARTED, DONE)]

    def test_a_later_utterance_waits_for_an_unfinished_one(self):
        playout = Playout()
        playout.push(1, ramp(480))
        playout.push(2, level(2000, 480))
        assert playout.next_frame(0)[0][0] == ramp(1)[0]
        assert playout.next_frame(0)[0] is None
        playout.finish(1)
        frame, events = playout.next_frame(0)
        assert frame[0] == 2000
        assert kinds(events)[:2] == [(DONE, 1), (STARTED, 2)]

    def test_nothing_to_say_is_done_all_the_same(self):
        playout = Playout()
        playout.finish(3)
        assert not playout.idle
        assert kinds(playout.next_frame(0)[1]) == [(DONE, 3)]
        assert playout.idle
        assert playout.next_frame(0) == (None, [])

    def test_pushes_for_finished_or_overtaken_utterances_are_dropped(self):
        playout = Playout()
        playout.push(5, ramp(480))
        playout.finish(5)
        assert not playout.push(5, ramp(480))
        assert not playout.push(4, ramp(480))
        drain(playout)
        assert not playout.push(5, ramp(480))
        assert not playout.push(1, ramp(480))
        playout.finish(1)
        playout.finish(5)
        assert playout.next_frame(0) == (None, [])


class TestLow:
    def test_is_told_once_each_time_the_level_falls(self):
        playout = Playout(low_ms=100)
        playout.push(1, ramp(480 * 8))
        told = [kinds(playout.next_frame(0)[1]) for _ in range(8)]
        assert told == [[(STARTED, 1)], [], [], [(LOW, 1)], [], [], [], []]
        playout.push(1, ramp(480 * 3))
        assert kinds(playout.next_frame(0)[1]) == [], "it has not been above since"
        playout.push(1, ramp(480 * 4))
        assert [kinds(playout.next_frame(0)[1]) for _ in range(3)] == [[], [(LOW, 1)], []]

    def test_is_not_told_of_a_finished_utterance(self):
        playout = Playout(low_ms=1000)
        playout.push(1, ramp(480 * 3))
        playout.finish(1)
        assert LOW not in [kind for kind, _ in kinds(drain(playout)[1])]

    def test_an_utterance_too_short_for_a_frame_asks_for_more(self):
        playout = Playout(low_ms=1000)
        playout.push(1, ramp(10))
        assert not playout.idle
        assert kinds(playout.next_frame(0)[1]) == [(LOW, 1)]
        assert playout.idle


class TestCut:
    def test_leaves_ten_milliseconds_that_fade_from_where_it_was(self):
        playout = Playout()
        playout.push(1, level(20_000, 480 * 5))
        playout.next_frame(0)
        assert not playout.fading
        playout.cut()
        assert playout.fading
        frame, events = playout.next_frame(3.0)
        assert not playout.fading
        assert events == [PlayoutEvent(CUT, 1, 20.0, 3.0)]
        assert frame.shape == (480,)
        assert not frame[240:].any()
        fade = frame[:240].astype(int)
        assert fade[0] == 20_000
        assert (np.diff(fade) < 0).all()
        assert np.abs(np.diff(frame.astype(int))).max() < 200
        assert playout.next_frame(0) == (None, [])

    def test_a_fade_has_no_more_than_what_was_left(self):
        playout = Playout()
        playout.push(1, level(20_000, 480 + 48))
        playout.next_frame(0)
        playout.cut()
        frame, _ = playout.next_frame(0)
        assert np.count_nonzero(frame) <= 48
        playout.push(2, level(20_000, 480))
        playout.next_frame(0)
        playout.cut()
        assert playout.next_frame(0) == (None, [])

    def test_there_is_no_fade_of_what_did_not_sound(self):
        playout = Playout()
        playout.push(1, level(20_000, 480 * 5))
        playout.cut()
        assert playout.idle
        assert playout.next_frame(0) == (None, [])

        playout.push(2, level(20_000, 480 + 100))
        playout.next_frame(0)
        assert playout.next_frame(0)[0] is None, "it has already fallen silent"
        playout.cut()
        assert playout.next_frame(0) == (None, [])

    def test_what_waits_behind_a_finished_utterance_leaves_no_fade(self):
        playout = Playout()
        playout.push(1, level(20_000, 480))
        playout.finish(1)
        playout.push(2, level(20_000, 4800))
        playout.next_frame(0)
        assert playout.cut() == [Heard(2, 0.0)]
        assert playout.next_frame(0) == (None, [])

    def test_a_second_cut_adds_nothing_to_the_fade_of_the_first(self):
        playout = Playout()
        playout.push(1, level(1000, 4800))
        playout.next_frame(0)
        playout.cut()
        playout.push(2, level(-2000, 4800))
        playout.cut()
        frame, _ = playout.next_frame(0)
        assert frame[0] == 1000
        assert (frame >= 0).all()
        assert playout.next_frame(0) == (None, [])

    def test_tells_what_was_heard_of_each_and_leaves_the_fade_out(self):
        playout = Playout()
        playout.push(1, ramp(4800))
        playout.push(2, ramp(4800))
        playout.push(3, ramp(0))
        for _ in range(3):
            playout.next_frame(0)
        assert playout.cut() == [Heard(1, 60.0), Heard(2, 0.0), Heard(3, 0.0)]
        playout.next_frame(0)
        assert [playout.heard_ms(generation) for generation in (1, 2, 3, 4)] == [60, 0, 0, 0]
        assert playout.cut() == []
        assert playout.speaking is None
        assert playout.buffered_ms == 0

    def test_what_was_done_is_not_cut(self):
        playout = Playout()
        playout.push(1, ramp(480))
        playout.finish(1)
        drain(playout)
        assert playout.cut() == []
        assert playout.heard_ms(1) == 20

    def test_nothing_more_of_it_is_ever_heard(self):
        playout = Playout()
        playout.push(3, ramp(4800))
        playout.next_frame(0)
        playout.cut()
        for generation in (3, 2, 1):
            assert not playout.push(generation, ramp(4800))
            playout.finish(generation)
        frames, events = drain(playout)
        assert len(frames) == 1
        assert kinds(events) == [(CUT, 3)]

    def test_speech_on_its_way_can_be_cut_before_it_came(self):
        playout = Playout()
        playout.push(3, ramp(4800))
        playout.cut(through=5)
        assert not playout.push(4, ramp(480))
        assert not playout.push(5, ramp(480))
        assert playout.push(6, ramp(480))
        assert playout.cut(through=2) == [Heard(6, 0.0)]
        assert not playout.push(6, ramp(480))

    def test_the_next_utterance_speaks_after_the_fade(self):
        playout = Playout()
        playout.push(1, level(-8000, 4800))
        playout.next_frame(0)
        playout.cut()
        assert playout.push(2, level(500, 480))
        fade, _ = playout.next_frame(0)
        assert (fade <= 0).all()
        frame, events = playout.next_frame(0)
        assert (frame == 500).all()
        assert (STARTED, 2) in kinds(events)


class TestBounds:
    def test_more_than_the_capacity_is_refused_whole(self):
        playout = Playout(capacity_s=1.0)
        assert playout.push(1, ramp(23_000))
        with pytest.raises(PlayoutFull):
            playout.push(1, ramp(1001))
        assert playout.buffered_ms == pytest.approx(23_000 / 24)
        assert playout.push(1, ramp(1000))
        playout.next_frame(0)
        assert playout.push(2, ramp(480))

    def test_what_would_be_dropped_anyway_is_never_too_much(self):
        playout = Playout(capacity_s=1.0)
        playout.push(2, ramp(24_000))
        playout.finish(2)
        assert not playout.push(2, ramp(480))
        assert not playout.push(1, ramp(480))

    def test_utterances_are_bounded_too(self):
        playout = Playout()
        for generation in range(256):
            playout.push(generation, ramp(0))
        with pytest.raises(PlayoutFull):
            playout.push(256, ramp(0))

    def test_a_long_history_is_forgotten(self):
        playout = Playout()
        for generation in range(2000):
            playout.push(generation, ramp(480))
            playout.finish(generation)
            drain(playout)
        assert playout.heard_ms(1999) == 20
        assert playout.heard_ms(0) == 0

    @pytest.mark.parametrize("pcm", [np.zeros(480), np.zeros((1, 480), np.int16), np.zeros(480, np.int32)])
    def test_only_pcm_is_taken(self, pcm):
        with pytest.raises(ValueError, match="int16"):
            Playout().push(1, pcm)


class Listener(RuleBasedStateMachine):
    """Each generation speaks in samples of its own value, so that whoever hears a frame knows whose it is."""

    @initialize(low_ms=st.sampled_from([0.0, 60.0, 1000.0]))
    def begin(self, low_ms):
        self.playout = Playout(capacity_s=2.0, low_ms=low_ms)
        self.now = 0.0
        self.newest = 0
        self.pushed: dict[int, int] = {}
        self.handed: dict[int, int] = {}
        self.finished: set[int] = set()
        self.over: set[int] = set()
        self.cut_off: set[int] = set()
        self.told: dict[int, list[PlayoutEventKind]] = {}
        self.sounded: int | None = None
        self.fading: int | None = None

    @rule(back=st.integers(0, 3), size=st.one_of(st.integers(0, 600), st.integers(0, 6000)))
    def push(self, back, size):
        generation = max(1, self.newest + 1 - back)
        open_before = generation in self.pushed and generation not in self.finished | self.over
        allowed = open_before or generation > self.newest
        waiting = sum(self.pushed[g] - self.handed.get(g, 0) for g in self.pushed if g not in self.over)
        try:
            taken = self.playout.push(generation, np.full(size, self.value(generation), np.int16))
        except PlayoutFull:
            assert allowed
            assert waiting + size > 48_000
            return
        assert taken == allowed
        if taken:
            assert waiting + size <= 48_000
            self.newest = max(self.newest, generation)
            self.pushed[generation] = self.pushed.get(generation, 0) + size

    @rule(back=st.integers(0, 3))
    def finish(self, back):
        generation = max(1, self.newest - back)
        self.playout.finish(generation)
        if generation not in self.over and (generation in self.pushed or generation > self.newest):
            self.newest = max(self.newest, generation)
            self.pushed.setdefault(generation, 0)
            self.finished.add(generation)

    @rule()
    def cut(self):
        expected = [g for g in sorted(self.pushed) if g not in self.over]
        heard = self.playout.cut()
        assert [h.generation for h in heard] == expected
        for h in heard:
            assert h.heard_ms == self.handed.get(h.generation, 0) / 24
        if self.sounded in expected:
            self.fading = self.sounded
        self.sounded = None
        self.over.update(expected)
        self.cut_off.update(expected)

    @rule(ticks=st.integers(1, 12))
    def listen(self, ticks):
        for _ in range(ticks):
            was_idle = self.playout.idle
            frame, events = self.playout.next_frame(self.now)
            assert not (was_idle and (frame is not None or events)), "idle means nothing to hand out or tell"
            self.hear(frame)
            self.note(events)
            self.now += 0.02

    def hear(self, frame):
        self.sounded = None
        if frame is None:
            self.fading = None
            return
        assert frame.dtype == np.int16
        assert frame.shape == (480,)
        loud = np.flatnonzero(frame)
        if self.fading is not None:
            assert not frame[240:].any()
            assert (np.abs(frame[loud]) <= abs(self.value(self.fading))).all()
            self.fading = None
            return
        assert len(loud)
        generation = self.generation_of(int(frame[0]))
        assert generation not in self.over, "nothing of an old generation after its cut"
        assert generation == min(g for g in self.pushed if g not in self.over and self.left(g))
        size = min(480, self.left(generation))
        assert size == 480 or generation in self.finished, "no torn frame"
        assert (frame[: max(0, size - 48)] == self.value(generation)).all()
        assert not frame[size:].any()
        self.handed[generation] = self.handed.get(generation, 0) + size
        self.sounded = generation

    def note(self, events):
        for event in events:
            told = self.told.setdefault(event.generation, [])
            assert event.at == self.now
            assert event.heard_ms == self.handed.get(event.generation, 0) / 24
            assert DONE not in told, "nothing follows DONE"
            if event.kind is STARTED:
                assert STARTED not in told
                assert self.handed[event.generation]
            if event.kind is DONE:
                assert event.generation in self.finished
                assert self.left(event.generation) == 0
                assert (STARTED in told) == (self.pushed[event.generation] > 0)
                self.over.add(event.generation)
                if self.sounded == event.generation:
                    self.sounded = None
            if event.kind is LOW:
                assert event.generation not in self.finished
            told.append(event.kind)

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "playout"):
            return
        waiting = [g for g in sorted(self.pushed) if g not in self.over]
        assert self.playout.speaking == (waiting[0] if waiting else None)
        assert self.playout.buffered_ms == pytest.approx(sum(self.left(g) for g in waiting) / 24)
        for generation in list(self.pushed)[-3:]:
            assert self.playout.heard_ms(generation) == self.handed.get(generation, 0) / 24

    def teardown(self):
        if not hasattr(self, "playout"):
            return
        for generation in [g for g in self.pushed if g not in self.over]:
            self.finish(self.newest - generation)
        self.listen(110)
        assert self.playout.idle
        for generation in self.pushed:
            assert self.told.get(generation, []).count(DONE) == (generation not in self.cut_off)
        assert self.playout.speaking is None

    def left(self, generation):
        return self.pushed.get(generation, 0) - self.handed.get(generation, 0)

    def value(self, generation):
        return 400 + generation

    def generation_of(self, value):
        return value - 400


Listener.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestListener = Listener.TestCase


def test_the_source_of_a_frame_is_told_while_whole_frames_of_it_are_handed_out():
    playout, prepared = Playout(), Prepared()
    playout.push(1, ramp(960), (prepared, 0))
    playout.push(1, ramp(480), (prepared, 2))
    playout.push(1, ramp(100))
    playout.push(1, ramp(480), (prepared, 7))
    playout.finish(1)
    sources = []
    while playout.next_frame(0)[0] is not None:
        sources.append(playout.source)
    assert sources == [(prepared, 0), (prepared, 1), (prepared, 2), None, None]
    assert playout.source is None


def test_the_fade_of_what_was_cut_is_nobodys():
    playout = Playout()
    playout.push(1, level(20_000, 960), (Prepared(), 0))
    playout.next_frame(0)
    assert playout.source is not None
    playout.cut()
    playout.next_frame(0)
    assert playout.source is None
