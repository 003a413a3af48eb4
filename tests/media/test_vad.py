"""Speech found in real audio, whatever the chunks, the company in a batch and the noise around it."""

import asyncio
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from media.endpoint import EndpointSettings, SpeechStarted, SpeechStopped
from media.vad import Vad
from media.voice_model import BATCH, CONTEXT, WINDOW, SileroModel, VoiceWindow

OWN = Path(__file__).parents[1] / "audio"
SHARED = Path(__file__).parents[2].parent / "shared" / "audio"
FLITE = ["synth_flite_slt_how_are_you", "synth_flite_rms_weather_london"]
HUMAN = ["human_librivox_ill_disposed", "human_go_forward_ten_meters", "human_cards_eight_of_spades"]
LEAD_MS = 500


def clip(name):
    path = OWN / f"{name}.wav"
    if not path.exists():
        path = SHARED / f"{name}.wav"
    if not path.exists():
        pytest.skip(f"the shared speech fixture {name}.wav is not beside this checkout")
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def noise(samples, rms, seed=0):
    return np.random.default_rng(seed).standard_normal(samples) * rms


def as_pcm(samples):
    return np.clip(np.round(samples), -32768, 32767).astype(np.int16)


def call(name, room=8.0):
    """The clip in a room with a faint hiss: 0.5 s before it, 1.5 s after it."""
    speech = np.concatenate([np.zeros(LEAD_MS * 16), clip(name).astype(float), np.zeros(24_000)])
    return as_pcm(speech + noise(len(speech), room))


def truth(name):
    """Media time of the first and the last sample over 1 % of full scale."""
    (loud,) = np.nonzero(np.abs(clip(name).astype(int)) > 327)
    return LEAD_MS + loud[0] / 16, LEAD_MS + (loud[-1] + 1) / 16


@dataclass
class Noticed:
    event: SpeechStarted | SpeechStopped
    at_ms: float


def quietly(delay_s, callback):
    """A scheduler that never runs anything: the test flushes."""


@pytest.fixture(scope="module")
def model():
    return SileroModel()


def listen(vad, pcm, chunk=320, **changed):
    """Everything a detector says about `pcm`, and the media time at which it said it."""
    noticed = []
    shape = EndpointSettings(**changed)
    detector = vad.detector(shape, lambda event: noticed.append(Noticed(event, detector.position_ms)))
    for start in range(0, len(pcm), chunk):
        part = pcm[start : start + chunk]
        detector.push(part, (start + len(part)) / 16_000)
        vad.flush()
    detector.close()
    return noticed


@pytest.fixture
def vad(model):
    return Vad(model=model, schedule=quietly)


# -- real speech


@pytest.mark.parametrize("silence", [200, 500])
@pytest.mark.parametrize("name", FLITE)
@pytest.mark.parametrize("room", [0.0, 8.0])
def test_a_sentence_is_one_turn_noticed_at_once_and_ended_on_time(vad, name, silence, room):
    onset, end = truth(name)
    started, stopped = listen(vad, call(name, room), silence_duration_ms=silence)
    assert abs(started.event.onset_ms - onset) <= 40
    assert started.at_ms - onset <= 110
    assert started.event.audio_start_ms == pytest.approx(started.event.onset_ms - 300, abs=1)
    assert abs(stopped.event.ended_ms - end) <= 40
    assert stopped.event.audio_end_ms - stopped.event.ended_ms == pytest.approx(silence, abs=8)
    assert -40 <= stopped.at_ms - (end + silence) <= 60


@pytest.mark.parametrize("name", HUMAN)
def test_a_human_sentence_is_one_turn(vad, name):
    """Breath and clicks around it pass the 1 % mark as well, so the bounds are wider than for clean voices."""
    onset, end = truth(name)
    started, stopped = listen(vad, call(name), silence_duration_ms=500)
    assert -40 <= started.event.onset_ms - onset <= 300
    assert started.at_ms - started.event.onset_ms <= 260
    assert -150 <= stopped.event.ended_ms - end <= 40
    assert stopped.at_ms - end <= 560


def test_an_orator_in_a_reverberant_hall_is_heard_phrase_by_phrase(vad):
    name = "human_inaugural_1961_ask_not"
    _, end = truth(name)
    noticed = listen(vad, call(name), silence_duration_ms=500)
    kinds = [type(each.event) for each in noticed]
    assert kinds == [SpeechStarted, SpeechStopped] * (len(kinds) // 2)
    assert 2 <= len(kinds) // 2 <= 6
    assert noticed[-1].event.ended_ms <= end + 40


@pytest.mark.parametrize("name", FLITE)
@pytest.mark.parametrize("kind", ["white", "pink"])
def test_speech_is_found_ten_decibels_over_noise(vad, name, kind):
    speech = clip(name).astype(float)
    hiss = noise(len(speech) + 80_000, 1.0, seed=1)
    if kind == "pink":
        spectrum = np.fft.rfft(hiss)
        hiss = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), len(hiss))
    active = speech[np.abs(speech) > 100]
    hiss *= np.sqrt(np.mean(active**2) / np.mean(hiss**2) / 10)
    hiss[48_000 : 48_000 + len(speech)] += speech
    started, stopped = listen(vad, as_pcm(hiss), silence_duration_ms=500)
    onset, end = (each - LEAD_MS + 3000 for each in truth(name))
    assert -50 <= started.at_ms - onset <= 250
    assert abs(stopped.event.ended_ms - end) <= 200


def clicks(kind, samples):
    random = np.random.default_rng(7)
    sound = random.standard_normal(samples) * 30
    for start in random.integers(0, samples - 2000, 40):
        if kind == "ticks":
            sound[start : start + 8] += 20_000
        elif kind == "keys":
            sound[start : start + 480] += random.standard_normal(480) * np.exp(-np.arange(480) / 80) * 12_000
        else:
            ring = random.standard_normal(1600) + np.sin(2 * np.pi * 120 * np.arange(1600) / 16_000)
            sound[start : start + 1600] += ring * np.exp(-np.arange(1600) / 400) * 10_000
    return sound


@pytest.mark.parametrize("sound", ["silence", "hiss", "loud noise", "rumble", "tone", "ticks", "keys", "bangs"])
def test_what_is_not_a_voice_starts_nothing(vad, sound):
    samples = 16_000 * 8
    time = np.arange(samples) / 16_000
    made = {
        "silence": lambda: np.zeros(samples),
        "hiss": lambda: noise(samples, 30),
        "loud noise": lambda: noise(samples, 3000),
        "rumble": lambda: np.cumsum(noise(samples, 20)) * 0.5,
        "tone": lambda: 8230 * np.sin(2 * np.pi * 440 * time) * (time % 2 < 1),
    }
    pcm = as_pcm(made[sound]() if sound in made else clicks(sound, samples))
    assert listen(vad, pcm, silence_duration_ms=200) == []


def test_speech_after_half_a_minute_of_noise_is_found_as_fast(vad):
    name = FLITE[1]
    before = noise(16_000 * 30, 100, seed=3) * (1 + np.sin(np.arange(16_000 * 30) / 4000))
    pcm = np.concatenate([as_pcm(before), call(name, room=50.0)])
    started = listen(vad, pcm)[0]
    assert abs(started.at_ms - 30_000 - truth(name)[0]) <= 130


# -- chunks and batches


def test_events_are_the_same_whatever_the_chunks(vad):
    pcm = call(FLITE[0])
    expected = listen(vad, pcm, 320, silence_duration_ms=200)
    assert len(expected) == 2
    for chunk in (1, 160, 777, 1920):
        started, stopped = (each.event for each in listen(vad, pcm, chunk, silence_duration_ms=200))
        for name in ("audio_start_ms", "onset_ms"):
            assert getattr(started, name) == getattr(expected[0].event, name)
        for name in ("audio_end_ms", "ended_ms"):
            assert getattr(stopped, name) == getattr(expected[1].event, name)


def test_calls_that_share_batches_hear_what_each_alone_hears(vad):
    calls = [call(FLITE[0]), call(FLITE[1]), np.roll(call(FLITE[1]), -4321)]
    alone = [[each.event for each in listen(vad, pcm, 320)] for pcm in calls]
    together = [[] for _ in calls]
    detectors = [vad.detector(EndpointSettings(), events.append) for events in together]
    for start in range(0, max(map(len, calls)), 320):
        for detector, pcm in zip(detectors, calls, strict=True):
            part = pcm[start : start + 320]
            if len(part):
                detector.push(part, (start + len(part)) / 16_000)
        vad.flush()
    assert together == alone


def test_a_batch_computes_what_single_runs_compute(model):
    pcm = call(FLITE[1])
    starts = [CONTEXT + WINDOW * k for k in range(20, 20 + BATCH)]
    windows = [pcm[start - CONTEXT : start + WINDOW] for start in starts]
    singles = [model.memory() for _ in windows]
    shared = [model.memory() for _ in windows]
    for _ in range(3):
        one = [model.run([VoiceWindow(samples, memory)])[0] for samples, memory in zip(windows, singles, strict=True)]
        many = model.run([VoiceWindow(samples, memory) for samples, memory in zip(windows, shared, strict=True)])
        assert many == pytest.approx(one, abs=1e-4)
        assert 0 <= min(one) < 0.2 < 0.7 < max(one) <= 1


# -- the mechanics, with a network that only takes notes


class Memory:
    def __init__(self):
        self.cleared = 0

    def clear(self):
        self.cleared += 1


class Notes:
    """A model that remembers what it was shown and answers by rule."""

    def __init__(self, rule=lambda samples: 0.9):
        self.rule = rule
        self.batches = []
        self.windows = []
        self.memories = []

    def memory(self):
        self.memories.append(Memory())
        return self.memories[-1]

    def run(self, batch):
        self.batches.append(len(batch))
        self.windows += [window.samples.copy() for window in batch]
        return [self.rule(window.samples) for window in batch]


def ramp(samples, level=3000):
    """Loud, and every sample tells where it is."""
    return (np.arange(samples) % 997 + level).astype(np.int16)


def test_silence_is_never_shown_to_the_network():
    notes = Notes()
    vad = Vad(model=notes, schedule=quietly)
    assert listen(vad, np.zeros(160_000, np.int16)) == []
    assert notes.batches == []
    assert vad.windows_gated == 160_000 // WINDOW


def test_steady_noise_is_hidden_from_the_network_once_it_is_known():
    vad = Vad(model=Notes(lambda samples: 0.01), schedule=quietly)
    listen(vad, as_pcm(noise(16_000 * 4, 300)))
    before = vad.windows_run
    assert before < 60
    listen(vad, as_pcm(noise(16_000 * 20, 300)))
    assert vad.windows_run - before < 60


def test_the_windows_before_the_gate_opened_are_shown_first_with_their_context():
    notes = Notes()
    vad = Vad(model=notes, schedule=quietly)
    faint = (np.arange(WINDOW * 10) % 7).astype(np.int16)
    pcm = np.concatenate([faint, ramp(WINDOW * 3)])
    listen(vad, pcm)
    assert notes.memories[0].cleared == 1
    for shown, first in zip(notes.windows, range(8, 13), strict=True):
        np.testing.assert_array_equal(shown, pcm[first * WINDOW - CONTEXT : (first + 1) * WINDOW])


def test_every_window_is_shown_once_and_in_order_over_a_long_call():
    notes = Notes()
    vad = Vad(model=notes, schedule=quietly)
    pcm = ramp(16_000 * 12)
    listen(vad, pcm, chunk=777)
    shown = np.concatenate([samples[CONTEXT:] for samples in notes.windows[2:]])
    np.testing.assert_array_equal(shown, pcm[: len(shown)])
    assert len(shown) == len(pcm) // WINDOW * WINDOW
    assert vad.windows_skipped == 0


def test_the_memory_is_cleared_every_two_seconds_in_noise_but_never_in_speech():
    restless = as_pcm(noise(160_000, 200) * np.tile(np.repeat([1, 20], 1600), 50))
    in_noise, in_speech = Notes(lambda samples: 0.02), Notes(lambda samples: 0.9)
    for notes in (in_noise, in_speech):
        listen(Vad(model=notes, schedule=quietly), restless)
    assert 4 <= in_noise.memories[0].cleared <= 6
    assert in_speech.memories[0].cleared == 1


def test_windows_ready_at_once_run_in_batches_of_at_most_16_one_a_turn():
    notes, turns = Notes(), []
    vad = Vad(model=notes, schedule=lambda delay_s, turn: turns.append(turn))
    detectors = [vad.detector(EndpointSettings(), lambda event: None) for _ in range(40)]
    for detector in detectors:
        detector.push(ramp(WINDOW), 0.0)
    assert len(turns) == 1
    while turns:
        turns.pop()()
        assert len(turns) <= 1
    assert notes.batches == [16] * 7 + [8]


@pytest.mark.parametrize(("calls", "waits_s"), [(7, 0.0), (8, 0.004)])
def test_only_among_many_calls_does_a_window_wait_for_others(calls, waits_s):
    delays, turns = [], []
    vad = Vad(model=Notes(), schedule=lambda delay_s, turn: (delays.append(delay_s), turns.append(turn)))
    detectors = [vad.detector(EndpointSettings(), lambda event: None) for _ in range(calls)]
    for detector in detectors:
        detector.push(ramp(WINDOW), 0.0)
    assert delays == [waits_s]
    turns.pop()()
    assert delays == [waits_s, 0.0], "what was shown first because the gate opened waits no more"


def test_a_loop_that_falls_behind_skips_the_oldest_windows_and_keeps_the_time():
    notes, events = Notes(), []
    vad = Vad(model=notes, schedule=quietly)
    detector = vad.detector(EndpointSettings(), events.append)
    for _ in range(8):
        detector.push(ramp(320), 0.1)
        vad.flush()
    shown = len(notes.windows)
    for _ in range(500):
        detector.push(ramp(320), 1.0)
    assert detector.position_ms == 508 * 20
    assert vad.windows_skipped >= 250
    vad.flush()
    assert len(notes.windows) - shown <= 34
    assert [type(event) for event in events] == [SpeechStarted]
    for _ in range(60):
        detector.push(np.zeros(320, np.int16), 2.0)
        vad.flush()
    # A sound so even counts as the floor by now, so its end is known to 144 ms only.
    assert 508 * 20 - 150 <= events[1].ended_ms <= 508 * 20 + 8


def test_a_second_in_one_push_is_heard_completely():
    notes = Notes()
    vad = Vad(model=notes, schedule=quietly)
    detector = vad.detector(EndpointSettings(), lambda event: None)
    detector.push(ramp(16_000), 1.0)
    vad.flush()
    assert detector.position_ms == 1000
    assert vad.windows_skipped == 0
    assert len(notes.windows) == 16_000 // WINDOW + 2


def test_a_closed_detector_leaves_the_queue_and_says_nothing():
    notes, events = Notes(), []
    vad = Vad(model=notes, schedule=quietly)
    detector = vad.detector(EndpointSettings(), events.append)
    detector.push(ramp(16_000), 0.0)
    assert vad.detectors == 1
    detector.close()
    detector.close()
    detector.push(ramp(16_000), 0.0)
    vad.flush()
    assert (events, notes.windows, vad.detectors) == ([], [], 0)


def test_a_listener_may_close_its_detector():
    events = []
    vad = Vad(model=Notes(), schedule=quietly)

    def listener(event):
        events.append(event)
        detector.close()

    detector = vad.detector(EndpointSettings(silence_duration_ms=100), listener)
    detector.push(np.concatenate([ramp(4000), np.zeros(10_000, np.int16)]), 0.0)
    vad.flush()
    assert [type(event) for event in events] == [SpeechStarted]


def test_reset_forgets_the_turn_and_what_waits_but_not_the_time():
    events = []
    vad = Vad(model=Notes(), schedule=quietly)
    detector = vad.detector(EndpointSettings(prefix_padding_ms=300), events.append)
    detector.push(ramp(8000), 0.0)
    vad.flush()
    assert detector.in_turn
    detector.push(ramp(8100), 0.0)
    detector.reset()
    vad.flush()
    assert not detector.in_turn
    assert len(events) == 1
    detector.push(ramp(8000), 0.0)
    vad.flush()
    assert detector.position_ms == 24_100 / 16
    assert events[1].audio_start_ms >= 16_100 / 16


def test_configure_takes_effect_at_once():
    events = []
    vad = Vad(model=Notes(lambda samples: 0.9 if samples.any() else 0.0), schedule=quietly)
    detector = vad.detector(EndpointSettings(silence_duration_ms=5000), events.append)
    detector.push(ramp(8000), 0.0)
    detector.push(np.zeros(8000, np.int16), 0.0)
    vad.flush()
    assert len(events) == 1
    detector.configure(EndpointSettings(silence_duration_ms=200))
    detector.push(np.zeros(320, np.int16), 0.0)
    vad.flush()
    assert isinstance(events[1], SpeechStopped)
    assert events[1].ended_ms == pytest.approx(500, abs=8)


def test_one_call_that_raises_does_not_cost_another_its_answer():
    heard = []
    vad = Vad(model=Notes(), schedule=quietly)

    def broken(event):
        raise LookupError("no such call")

    first = vad.detector(EndpointSettings(), broken)
    second = vad.detector(EndpointSettings(), heard.append)
    for detector in (first, second):
        detector.push(ramp(WINDOW * 8), 0.0)
    with pytest.raises(LookupError):
        vad.flush()
    vad.flush()
    assert len(heard) == 1


def test_a_run_that_fails_costs_one_window_and_not_the_call():
    failures, events = [RuntimeError("out of memory")], []

    def rule(samples):
        if failures:
            raise failures.pop()
        return 0.9

    vad = Vad(model=Notes(rule), schedule=quietly)
    detector = vad.detector(EndpointSettings(), events.append)
    detector.push(ramp(WINDOW * 10), 0.0)
    with pytest.raises(RuntimeError):
        vad.flush()
    vad.flush()
    assert len(events) == 1


async def test_on_the_running_loop_events_come_without_a_flush(model):
    vad = Vad(model=model)
    started = asyncio.get_running_loop().create_future()
    detector = vad.detector(EndpointSettings(), started.set_result)
    detector.push(call(FLITE[0])[: 16_000 * 3 // 2][-16_000:], 1.0)
    assert not started.done()
    assert isinstance(await asyncio.wait_for(started, 5), SpeechStarted)
