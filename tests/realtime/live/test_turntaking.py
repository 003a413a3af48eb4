"""Whose turn it is: tables of what happens and the verdict that follows."""

from __future__ import annotations

import pytest

from realtime.live.turntaking import Phase, TurnTaking, Verdict


def drive(*steps: str) -> list[Verdict]:
    """Steps: `+a` starts, `-a` stops after 1 s, `~a` after 200 ms, `a=words`, `a=` none, `a!` failed, `cut`, `lost`."""
    turns = TurnTaking()
    verdicts = []
    for step in steps:
        if step == "cut":
            turns.speech_cut()
        elif step == "lost":
            turns.answer_lost()
        elif step[0] == "+":
            turns.speech_started(step[1:], 1000.0)
        elif step[0] in "-~":
            assert turns.speech_stopped(2000.0 if step[0] == "-" else 1200.0) == step[1:]
        elif step.endswith("!"):
            verdicts.append(turns.transcript_failed(step[:-1]))
        else:
            item, _, words = step.partition("=")
            verdicts.append(turns.transcript(item, words=bool(words)))
    return verdicts


N, A, R = Verdict.NOTHING, Verdict.ANSWER, Verdict.RESUME


@pytest.mark.parametrize(
    ("steps", "verdicts"),
    [
        (["+a", "-a", "a=hi"], [A]),
        (["+a", "-a", "a="], [A]),
        (["+a", "~a", "a="], [N]),
        (["+a", "-a", "a!"], [N]),
        (["+a", "cut", "~a", "a="], [R]),
        (["+a", "cut", "-a", "a="], [R]),
        (["+a", "cut", "~a", "a!"], [R]),
        (["+a", "cut", "-a", "a=stop"], [A]),
        # The caller goes on while the first transcript is awaited: one answer covers both.
        (["+a", "-a", "+b", "a=hi", "-b", "b=there"], [N, A]),
        (["+a", "-a", "+b", "-b", "a=hi", "b="], [N, A]),
        (["+a", "-a", "+b", "-b", "b=there", "a="], [N, A]),
        (["+a", "-a", "a=hi", "+b", "lost", "~b", "b="], [A, A]),
        (["+a", "-a", "+b", "-b", "a!", "b!"], [N, N]),
        # A cut is owed once.
        (["+a", "cut", "~a", "a=", "+b", "~b", "b="], [R, N]),
    ],
)
def test_the_verdict_when_everyone_is_silent(steps, verdicts):
    assert drive(*steps) == verdicts


def test_phases_follow_the_caller():
    turns = TurnTaking()
    assert turns.phase is Phase.LISTENING
    turns.speech_started("a", 0.0)
    assert turns.phase is Phase.SPEAKING
    turns.speech_stopped(900.0)
    assert turns.phase is Phase.SETTLING
    turns.transcript("a", words=True)
    assert turns.phase is Phase.LISTENING


def test_speech_that_stops_without_having_started_is_nothing():
    assert TurnTaking().speech_stopped(100.0) is None
