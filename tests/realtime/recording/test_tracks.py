"""Two tracks on one timeline: what is where, what a cut takes back, what a pause hides, and what is bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.recording.tracks import HOLD_MS, MAX_WAITING_MS, Block, Tracks

T = 500.0


def caller(ms: int, value: int = 1000) -> np.ndarray:
    return np.full(ms * 16, value, np.int16)


def bot(ms: int, value: int = 2000) -> np.ndarray:
    return np.full(ms * 24, value, np.int16)


def whole(blocks: list[Block]) -> tuple[np.ndarray, np.ndarray]:
    """Each side by the millisecond: the loudest sample."""
    left = np.concatenate([np.zeros(0, np.int16), *(block.caller for block in blocks)])
    right = np.concatenate([np.zeros(0, np.int16), *(block.bot for block in blocks)])
    assert len(left) // 16 == len(right) // 24 == sum(block.ms for block in blocks)
    return np.abs(left.reshape(-1, 16)).max(axis=1), np.abs(right.reshape(-1, 24)).max(axis=1)


def spans(track: np.ndarray) -> list[tuple[int, int]]:
    """From and until when there is sound."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], track != 0, [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_both_sides_lie_where_they_were_heard() -> None:
    tracks = Tracks(T)
    for ms in range(0, 400, 20):
        tracks.caller(caller(20), T + (ms + 20) / 1000)
    for ms in range(300, 500, 20):
        tracks.bot(bot(20), T + ms / 1000)
    left, right = whole(tracks.finish(T + 1))
    assert spans(left) == [(0, 400)]
    assert spans(right) == [(300, 500)]
    assert len(left) == 1000


def test_jitter_shifts_nothing_and_a_long_pause_is_silence() -> None:
    tracks = Tracks(T)
    for number, late in enumerate((0, 90, 30, 150, 0)):
        tracks.caller(caller(20), T + 0.02 * (number + 1) + late / 1000)
    tracks.caller(caller(20), T + 1.02)
    left, _ = whole(tracks.finish(T + 2))
    assert spans(left) == [(0, 100), (1000, 1020)]


def test_a_recording_that_is_sent_at_once_takes_its_own_time() -> None:
    tracks = Tracks(T)
    for _ in range(300):
        tracks.caller(caller(32), T + 0.1)
    tracks.bot(bot(100), T + 0.2)  # the answer comes after it, not under it
    left, right = whole(tracks.finish(T + 0.5))
    assert spans(left) == [(0, 9600)]
    [(begins, ends)] = spans(right)
    assert begins >= 8600 - 1
    assert ends - begins == 100


def test_what_a_cut_takes_back_is_not_heard() -> None:
    tracks = Tracks(T)
    tracks.bot(bot(800), T + 0.1)
    tracks.discard(T + 0.4)
    tracks.bot(bot(100, 3000), T + 0.6)
    _, right = whole(tracks.finish(T + 1))
    assert spans(right) == [(100, 400), (600, 700)]
    tracks = Tracks(T)
    tracks.bot(bot(800), T + 0.1)
    _, right = whole(tracks.finish(T + 0.3))  # the call ended while it was being said
    assert spans(right) == [(100, 300)]


def test_a_pause_hides_both_sides_and_time_goes_on() -> None:
    tracks = Tracks(T)
    tracks.bot(bot(900), T)
    for ms in range(0, 900, 20):
        tracks.caller(caller(20), T + (ms + 20) / 1000)
    tracks.pause(T + 0.3)
    tracks.pause(T + 0.4)
    assert tracks.is_paused
    tracks.resume(T + 0.5)
    tracks.resume(T + 0.6)
    tracks.pause(T + 0.8)
    left, right = whole(tracks.finish(T + 0.9))
    assert spans(left) == spans(right) == [(0, 300), (500, 800)]
    assert tracks.paused_ms == 300
    tracks = Tracks(T)
    tracks.pause(T + 1)
    assert not np.any(whole(tracks.take(T + 10))[0])
    assert tracks.paused_ms == 8000


def test_nothing_is_handed_out_before_it_is_settled_and_little_is_held() -> None:
    tracks = Tracks(T)
    assert tracks.take(T + HOLD_MS / 1000) == []
    tracks.bot(bot(1000), T)
    [block] = tracks.take(T + HOLD_MS / 1000 + 0.3)
    assert block.ms == 300
    assert [block.ms for block in tracks.take(T + HOLD_MS / 1000 + 2.8)] == [1000, 1000, 500]
    for _ in range(2 * MAX_WAITING_MS // 1000):
        tracks.bot(bot(1000), T + 4)
    assert tracks.dropped_ms >= MAX_WAITING_MS - 10_000
    tracks.discard(T)  # too late: it has been handed out
    assert tracks.length_ms == 2800


@given(
    st.lists(
        st.tuples(st.sampled_from(["caller", "bot", "take", "discard", "pause", "resume"]), st.integers(1, 700)),
        max_size=60,
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_both_sides_are_as_long_as_time_was(steps: list[tuple[str, int]]) -> None:
    tracks, blocks, now = Tracks(T), [], T
    for what, ms in steps:
        now += ms / 1000
        match what:
            case "caller":
                tracks.caller(caller(ms % 120 + 1), now)
            case "bot":
                tracks.bot(bot(ms), now + (ms % 7) / 10)
            case "take":
                blocks += tracks.take(now)
            case "discard":
                tracks.discard(now)
            case "pause":
                tracks.pause(now)
            case "resume":
                tracks.resume(now)
    blocks += tracks.finish(now)
    left, _ = whole(blocks)
    assert abs(len(left) - (now - T) * 1000) <= 1.01 or any(what == "caller" for what, _ in steps)


def test_what_has_gathered_is_handed_out_a_little_at_a_time() -> None:
    tracks, once = Tracks(T), Tracks(T)
    for each in (tracks, once):
        for second in range(10):
            each.caller(caller(1000, second + 1), T + second + 1)
    found: list[Block] = []
    while blocks := tracks.finish(T + 10, 4):
        assert len(blocks) <= 4
        found += blocks
    assert np.array_equal(whole(found)[0], whole(once.finish(T + 10))[0])
