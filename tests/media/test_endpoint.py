"""Turns out of probabilities and levels, in media time."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.endpoint import (
    SUBFRAME_MS,
    SUBFRAMES,
    Endpointer,
    EndpointSettings,
    EndpointState,
    NoiseFloor,
    SpeechEvent,
    SpeechStarted,
    SpeechStopped,
)

WINDOW_MS = SUBFRAME_MS * SUBFRAMES


def power(dbfs: float) -> float:
    return 32768.0**2 * 10 ** (dbfs / 10)


@dataclass
class Noticed:
    event: SpeechEvent
    at_ms: float


class Caller:
    """Feeds an endpointer window by window; arrival is media time plus a fixed 50 ms."""

    def __init__(self, room: float = -70.0, lead: int = 20, **changed: float) -> None:
        self.endpointer = Endpointer(EndpointSettings(**changed))
        self.noticed: list[Noticed] = []
        self.room = room
        self.windows(lead, 0.0, room)

    def hear(self, *levels: float) -> None:
        for level in levels:
            arrived_at = (self.endpointer.position_ms + SUBFRAME_MS) / 1000 + 0.05
            self._note(self.endpointer.hear(power(level), arrived_at))

    def judge(self, probability: float) -> None:
        self._note(self.endpointer.judge(probability))

    def window(self, probability: float, *levels: float) -> None:
        self.hear(*(levels if len(levels) == SUBFRAMES else levels * SUBFRAMES))
        self.judge(probability)

    def windows(self, count: int, probability: float, level: float) -> None:
        for _ in range(count):
            self.window(probability, level)

    @property
    def events(self) -> list[SpeechEvent]:
        return [noticed.event for noticed in self.noticed]

    @property
    def now(self) -> float:
        return self.endpointer.position_ms

    def _note(self, event: SpeechEvent | None) -> None:
        if event is not None:
            self.noticed.append(Noticed(event, self.now))


def talking(**changed: float) -> Caller:
    """A caller 320 ms into a turn."""
    caller = Caller(**changed)
    caller.windows(10, 0.98, -20.0)
    assert [type(event) for event in caller.events] == [SpeechStarted]
    return caller


@pytest.mark.parametrize(
    ("probabilities", "starts"),
    [
        ([0.6, 0.6], True),
        ([0.5, 0.5], True),
        ([0.4, 0.9], True),
        ([0.6, 0.2, 0.6, 0.2], False),
        ([0.84, 0.1, 0.84, 0.1], False),
        ([0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4], False),
        ([0.45, 0.6, 0.45], False),
        ([0.49, 0.49], False),
    ],
)
def test_two_likely_windows_start_a_turn_and_one_does_not(probabilities, starts):
    caller = Caller()
    for probability in probabilities:
        caller.window(probability, -25.0)
    assert [type(event) for event in caller.events] == [SpeechStarted] * starts


def test_a_sure_window_needs_only_a_voiced_start_of_the_next():
    caller = Caller()
    caller.window(0.1, -70, -70, -40, -25)
    caller.window(0.95, -20.0)
    assert caller.events == []
    caller.hear(-20, -20)
    assert len(caller.events) == 1
    assert caller.noticed[0].at_ms - caller.events[0].onset_ms <= 64


def test_a_bang_that_rings_for_less_than_two_windows_starts_nothing():
    caller = Caller()
    caller.window(0.95, -70, -10, -30, -50)
    caller.window(0.2, -65, -70, -70, -70)
    caller.windows(20, 0.0, -70)
    assert caller.events == []
    assert caller.endpointer.state is EndpointState.QUIET


def test_a_network_that_hears_speech_in_silence_starts_nothing():
    caller = Caller()
    caller.windows(20, 0.99, -90.0)
    assert caller.events == []


def test_a_high_threshold_is_obeyed_by_sure_windows_too():
    caller = Caller(threshold=0.95)
    caller.windows(10, 0.9, -20.0)
    assert caller.events == []
    caller.windows(2, 0.96, -20.0)
    assert len(caller.events) == 1


def test_the_onset_is_the_first_voiced_subframe_even_before_the_first_likely_window():
    caller = Caller()
    caller.window(0.1, -70, -70, -45, -40)
    onset = caller.now - 2 * SUBFRAME_MS
    caller.window(0.6, -30.0)
    caller.window(0.9, -20.0)
    (started,) = caller.events
    assert started.onset_ms == onset
    assert started.onset_at == pytest.approx((onset + SUBFRAME_MS) / 1000 + 0.05)


def test_the_onset_is_found_inside_the_first_likely_window():
    caller = Caller()
    onset = caller.now + 2 * SUBFRAME_MS
    caller.window(0.6, -70, -70, -30, -20)
    caller.window(0.9, -20.0)
    assert caller.events[0].onset_ms == onset


def test_the_onset_is_sought_near_the_word_and_not_where_the_first_doubt_was():
    caller = Caller()
    caller.windows(30, 0.4, -45.0)
    word = caller.now
    caller.windows(3, 0.98, -15.0)
    assert word - 330 <= caller.events[0].onset_ms <= word


def test_a_stop_in_the_middle_of_a_window_is_not_answered_by_a_start_before_it():
    """The network still hears the voice that the silence of 8 ms has just ended."""
    caller = talking(silence_duration_ms=8)
    caller.window(0.0, -20, -20, -20, -95)
    caller.window(0.2, -20, -20, -95, -95)
    caller.window(0.9, -20, -95, -95, -95)
    caller.windows(4, 0.98, -95.0)
    caller.windows(10, 0.98, -20.0)
    for before, after in zip(caller.events, caller.events[1:], strict=False):
        if isinstance(before, SpeechStopped):
            assert after.onset_ms >= before.audio_end_ms


def test_prefix_padding_never_reaches_before_the_call_or_the_previous_stop():
    caller = Caller(lead=2, prefix_padding_ms=300, silence_duration_ms=200)
    caller.windows(5, 0.98, -20.0)
    assert caller.events[0].audio_start_ms == 0
    caller.windows(8, 0.05, -70.0)
    caller.windows(5, 0.98, -20.0)
    _, stopped, again = caller.events
    assert isinstance(stopped, SpeechStopped)
    assert again.onset_ms > stopped.audio_end_ms > again.onset_ms - 300
    assert again.audio_start_ms == stopped.audio_end_ms


def test_padding_is_counted_back_from_the_onset():
    caller = talking(lead=40, prefix_padding_ms=120)
    assert caller.events[0].audio_start_ms == caller.events[0].onset_ms - 120


@pytest.mark.parametrize("silence", [80, 200, 480, 500, 1000])
@pytest.mark.parametrize("last_voiced", [1, 2, 3, 4])
def test_the_stop_comes_one_subframe_sharp_after_the_silence_though_the_network_lags(silence, last_voiced):
    """The voice ends inside a window and the probability stays high for two more."""
    caller = talking(silence_duration_ms=silence)
    caller.window(0.98, *([-20.0] * last_voiced + [-70.0] * (SUBFRAMES - last_voiced)))
    ended = caller.now - (SUBFRAMES - last_voiced) * SUBFRAME_MS
    for probability in [0.95, 0.7] + [0.05] * 40:
        caller.window(probability, -70.0)
    _, stopped = caller.events
    assert stopped.ended_ms == ended
    assert stopped.ended_at == pytest.approx(ended / 1000 + 0.05)
    assert 0 <= caller.noticed[1].at_ms - (ended + silence) < SUBFRAME_MS
    assert stopped.audio_end_ms == caller.noticed[1].at_ms


def test_reverberation_under_the_talker_is_not_the_end_of_the_word():
    caller = talking(silence_duration_ms=200)
    ended = caller.now
    caller.window(0.98, -50.0)
    caller.window(0.8, -55.0)
    caller.windows(20, 0.05, -70.0)
    assert caller.events[1].ended_ms == ended


def test_a_voice_that_goes_on_softly_is_not_cut_while_the_network_hears_it():
    caller = talking(silence_duration_ms=200)
    caller.windows(30, 0.9, -52.0)
    assert len(caller.events) == 1
    soft_end = caller.now
    caller.windows(20, 0.05, -70.0)
    stopped = caller.events[1]
    assert soft_end - 150 <= stopped.ended_ms <= soft_end


def test_a_voice_buried_in_the_noise_of_a_loud_room_is_not_cut_while_the_network_hears_it():
    caller = Caller(room=-30.0, lead=100, silence_duration_ms=200)
    caller.windows(10, 0.95, -20.0)
    caller.windows(20, 0.9, -30.0)
    assert len(caller.events) == 1
    caller.windows(20, 0.05, -30.0)
    assert len(caller.events) == 2


def test_clear_silence_ends_a_turn_though_the_network_sticks():
    caller = talking(silence_duration_ms=300)
    ended = caller.now
    caller.windows(9, 0.9, -95.0)
    assert len(caller.events) == 1
    caller.windows(4, 0.9, -95.0)
    assert caller.events[1].ended_ms == ended
    caller.windows(30, 0.9, -95.0)
    assert len(caller.events) == 2


def test_a_pause_between_words_shorter_than_the_silence_does_not_split():
    caller = talking(silence_duration_ms=200)
    for _ in range(5):
        caller.windows(5, 0.3, -70.0)
        caller.windows(5, 0.98, -20.0)
    assert len(caller.events) == 1


def test_sound_that_comes_back_just_before_the_stop_waits_for_the_network():
    """The voice returns 192 ms into 200 ms of silence; the network needs a window to hear it."""
    caller = talking(silence_duration_ms=200)
    caller.windows(6, 0.1, -70.0)
    caller.window(0.2, -25.0)
    caller.window(0.7, -20.0)
    caller.windows(5, 0.98, -20.0)
    assert len(caller.events) == 1


def test_noise_that_the_network_rejects_delays_the_stop_by_at_most_100_ms():
    caller = talking(silence_duration_ms=200)
    ended = caller.now
    for probability in [0.9, 0.4, 0.1, 0.05, 0.05, 0.05] + [0.02] * 20:
        caller.window(probability, -70.0 if probability > 0.35 else -25.0)
    stopped = caller.noticed[1]
    assert stopped.event.ended_ms == ended
    assert 200 <= stopped.at_ms - ended <= 300


def test_new_settings_apply_in_the_middle_of_a_pause():
    caller = talking(silence_duration_ms=2000)
    ended = caller.now
    caller.windows(12, 0.02, -70.0)
    assert len(caller.events) == 1
    caller.endpointer.configure(EndpointSettings(silence_duration_ms=300))
    caller.hear(-70)
    assert caller.events[1].ended_ms == ended
    assert caller.events[1].audio_end_ms == caller.now


def test_reset_forgets_the_turn_without_an_event_and_keeps_media_time():
    caller = talking()
    position = caller.now + 5.5
    caller.endpointer.reset(position)
    assert caller.now == position
    assert not caller.endpointer.in_turn
    caller.windows(10, 0.98, -20.0)
    again = caller.events[1]
    assert isinstance(again, SpeechStarted)
    assert again.onset_ms >= position
    assert again.audio_start_ms >= position


def test_the_states_follow_the_voice():
    caller = Caller(silence_duration_ms=200)
    seen = [caller.endpointer.state]
    for probability, level in [(0.6, -20), (0.7, -20), (0.9, -70), (0.9, -20)] + [(0.1, -70)] * 8:
        caller.window(probability, level)
        if caller.endpointer.state is not seen[-1]:
            seen.append(caller.endpointer.state)
    quiet, rising, speaking, pausing = EndpointState
    assert seen == [quiet, rising, speaking, pausing, speaking, pausing, quiet]


def test_the_floor_follows_a_room_that_gets_louder_and_one_that_gets_quieter():
    floor = NoiseFloor()
    for _ in range(150):
        floor.update(power(-60))
    assert floor.power == pytest.approx(power(-60))
    for _ in range(100):
        floor.update(power(-45))
    assert floor.power == pytest.approx(power(-45))
    floor.update(power(-55))
    assert floor.power == pytest.approx(power(-55))


def test_the_floor_is_not_raised_by_a_call_that_begins_with_a_word_or_by_speech_with_gaps():
    floor = NoiseFloor()
    for _ in range(10):
        floor.update(power(-20))
    assert floor.power < power(-70)
    for index in range(300):
        floor.update(power(-60 if index % 20 == 0 else -20))
    assert floor.power == pytest.approx(power(-60))


step = st.tuples(
    st.sampled_from([0.0, 0.05, 0.2, 0.34, 0.36, 0.5, 0.7, 0.9, 1.0]),
    st.sampled_from([-120.0, -75.0, -60.0, -50.0, -40.0, -30.0, -20.0, -6.0]),
    st.integers(1, 15),
)
shape = st.builds(
    EndpointSettings,
    threshold=st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]),
    prefix_padding_ms=st.integers(0, 1000),
    silence_duration_ms=st.integers(0, 800),
)


@settings(max_examples=150, deadline=None)
@given(shape, st.lists(step, max_size=60))
def test_starts_and_stops_alternate_in_monotone_media_time(shape, steps):
    caller = Caller(
        lead=1,
        threshold=shape.threshold,
        prefix_padding_ms=shape.prefix_padding_ms,
        silence_duration_ms=shape.silence_duration_ms,
    )
    for probability, level, count in steps:
        caller.windows(count, probability, level)
    previous_end = 0
    for index, noticed in enumerate(caller.noticed):
        event = noticed.event
        if index % 2 == 0:
            assert isinstance(event, SpeechStarted)
            assert previous_end <= event.audio_start_ms <= math.ceil(event.onset_ms)
            assert previous_end <= event.onset_ms < noticed.at_ms
            assert event.onset_at <= noticed.at_ms / 1000 + 0.0501
            onset = event.onset_ms
        else:
            assert isinstance(event, SpeechStopped)
            assert onset < event.ended_ms <= noticed.at_ms
            assert event.ended_at == pytest.approx(event.ended_ms / 1000 + 0.05)
            assert event.audio_end_ms - event.ended_ms >= shape.silence_duration_ms
            assert event.audio_end_ms == math.ceil(noticed.at_ms)
            previous_end = event.audio_end_ms


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(step, shape, st.floats(0, 40)), max_size=60))
def test_settings_and_resets_at_any_time_leave_media_time_monotone(actions):
    caller = Caller(lead=1)
    last = 0.0
    for action in actions:
        if isinstance(action, EndpointSettings):
            caller.endpointer.configure(action)
        elif isinstance(action, float):
            caller.endpointer.reset(caller.now + action)
            last = caller.now
        else:
            caller.windows(action[2], action[0], action[1])
        for noticed in caller.noticed:
            event = noticed.event
            begin = event.onset_ms if isinstance(event, SpeechStarted) else event.ended_ms
            assert last <= begin <= noticed.at_ms
            last = begin
        caller.noticed.clear()
