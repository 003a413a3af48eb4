"""The record of a turn."""

from __future__ import annotations

from realtime.observe.turns import TurnRecord


def test_two_steps_at_one_moment_are_nothing_apart_and_never_less():
    record = TurnRecord(ended_at=1.0, first_token_at=1.2, first_audio_at=1.2, first_packet_at=1.199_99)
    numbers = record.metrics(0.0)
    assert str(numbers["first_packet_ms"]) == str(numbers["speech_first_audio_ms"]) == "0.0"
    assert numbers["chat_first_token_ms"] == 200.0
