"""Simulated calls under a virtual clock: random speech, engine delays, cuts and failures."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.live.effects import ClientMessage, Think
from realtime.live.wire import WireError, parse
from tests.realtime.live.simulation import TICK, WORD_MS, EnginePlan, Simulation

plans = st.builds(
    EnginePlan,
    transcript_delay=st.floats(0.0, 0.8),
    token_delay=st.floats(0.001, 0.2),
    voice_delay=st.floats(0.0, 0.5),
    no_words=st.sampled_from([0.0, 0.3, 1.0]),
    transcript_fails=st.sampled_from([0.0, 0.2]),
    chat_fails=st.sampled_from([0.0, 0.3]),
    voice_fails=st.sampled_from([0.0, 0.3]),
    calls_tool=st.sampled_from([0.0, 0.3]),
    answer_words=st.integers(1, 30),
)
speeches = st.lists(st.tuples(st.floats(0.05, 4.0), st.floats(0.1, 2.5)), max_size=6)
client_events = st.lists(
    st.tuples(
        st.floats(0.0, 12.0),
        st.sampled_from(
            [
                {"type": "response.create"},
                {"type": "response.cancel"},
                {"type": "output_audio_buffer.clear"},
                {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": []}},
                {"type": "conversation.item.truncate", "item_id": "?", "audio_end_ms": 700},
                {"type": "conversation.item.delete", "item_id": "?"},
                {"type": "conversation.item.retrieve", "item_id": "?"},
                {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}},
                {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["audio"]}},
                {"type": "response.create", "response": {"conversation": "none", "output_modalities": ["text"]}},
                {"type": "response.create", "response": {"conversation": "none", "input": []}},
                {"type": "response.create", "response": {"tool_choice": "none", "max_output_tokens": 3}},
                {"type": "input_audio_buffer.commit"},
                {"type": "input_audio_buffer.clear"},
                {
                    "type": "conversation.item.create",
                    "item": {"type": "function_call_output", "call_id": "?", "output": "42"},
                },
                {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
                {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}},
                {"type": "session.update", "session": {"audio": {"input": {"transcription": None}}}},
                {"type": "nonsense"},
            ]
        ),
    ),
    max_size=6,
)


def run(
    seed: int, plan: EnginePlan, spoken: list[tuple[float, float]], client=(), greeting=None, gone_at=None
) -> Simulation:
    """`gone_at`: seconds after which the caller hangs up."""
    call = Simulation(seed=seed, plan=plan, greeting=greeting)
    begin = 0.0
    for pause, seconds in spoken:
        begin += pause
        call.speak(begin, seconds)
        begin += seconds + 0.45

    def send(event: dict) -> None:
        if event.get("item_id") == "?":
            known = [item.id for item in call.conversation.history] or ["item_none"]
            event = event | {"item_id": call.random.choice(known)}
        if event.get("item", {}).get("call_id") == "?":
            asked = [item.call_id for item in call.conversation.history if item.type == "function_call"] or [
                "call_none"
            ]
            event = event | {"item": event["item"] | {"call_id": call.random.choice(asked)}}
        try:
            call.tell(ClientMessage(parse(json.dumps(event)), call.media_ms()))
        except WireError as error:
            call.tell(ClientMessage(error))

    for at, event in client:
        call.at(at, lambda event=event: send(event))
    call.run(begin + 60.0 if gone_at is None else gone_at)
    return call


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), plans, speeches, client_events, st.sampled_from([None, "Hello, how are you?"]))
def test_whatever_happens_events_come_in_a_legal_order_and_everything_ends(seed, plan, spoken, client, greeting):
    call = run(seed, plan, spoken, client, greeting)
    call.orders.finish()
    assert call.conversation.active is None
    assert call.playout.speaking is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), plans, speeches, client_events, st.floats(0.0, 20.0))
def test_hanging_up_at_any_moment_leaves_each_answer_recorded_once(seed, plan, spoken, client, gone_at):
    call = run(seed, plan, spoken, client, "Hello, how are you?", gone_at)
    ended = call.conversation.ended()
    asked = [event["response"]["id"] for event in call.of("response.created")]
    answered = [turn.response_id for turn in [*call.turns, *ended] if turn.response_id]  # words may not be found
    assert sorted(answered) == sorted(asked)
    assert {turn.status for turn in ended} <= {"completed", "cancelled", "incomplete", "failed"}
    for turn in ended:
        assert turn.heard_ms is None or turn.heard_ms >= 0


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), plans, speeches)
def test_nothing_of_an_old_generation_sounds_after_a_cut(seed, plan, spoken):
    call = run(seed, plan, spoken)
    for cut_at, generation in call.playout.cuts:
        late = [
            (at, frame)
            for at, frame in call.frames
            if at > cut_at + 1e-9 and frame.any() and int(frame.max()) <= generation
        ]
        # One frame may follow, whose first 10 ms fade out.
        assert len(late) <= 1
        for at, frame in late:
            assert at <= cut_at + TICK + 1e-9
            assert not frame[240:].any()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), plans, speeches)
def test_the_history_says_what_was_heard(seed, plan, spoken):
    call = run(seed, plan, spoken)
    generations = [effect.generation for effect in call.effects if isinstance(effect, Think)]
    answers = {
        response_id: item
        for event in call.of("response.done")
        for response_id, item in [(event["response"]["id"], next(iter(event["response"]["output"]), None))]
    }
    order = [event["response"]["id"] for event in call.of("response.created")]
    heard = call.heard_words()
    for generation in generations:
        item = answers[order[generation - 1]]
        if item is None or item["type"] != "message":
            continue
        kept = call.conversation.history.require(item["id"]).text.split()
        played_words = heard.get(generation, 0.0) / WORD_MS
        # A word counts from its middle on; the fade after a cut is up to 10 ms more on the wire.
        assert abs(len(kept) - played_words) <= 0.5 + 11 / WORD_MS, (kept, played_words)


@pytest.mark.parametrize("seed", range(20))
def test_words_are_always_answered(seed: int):
    plan = EnginePlan(transcript_delay=0.3, token_delay=0.05)
    call = run(seed, plan, [(0.2, 1.0), (0.9, 0.8), (1.5, 0.5)])
    last_words = max(i for i, kind in enumerate(call.types()) if kind.endswith("transcription.completed"))
    assert "response.created" in call.types()[last_words:]
    assert call.of("response.done")[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize("seed", range(20))
def test_a_false_start_resumes_what_it_cut_off(seed: int):
    call = Simulation(seed=seed, greeting="one two three four five six seven eight nine ten.")
    call.plan = EnginePlan(no_words=1.0)
    call.speak(0.5 + seed * 0.03, 0.3)
    call.run(30)
    call.orders.finish()
    said = [item.text for item in call.conversation.history if item.role == "assistant"]
    assert " ".join(said) == "one two three four five six seven eight nine ten."
    assert len(said) == 2
    assert len(call.of("output_audio_buffer.cleared")) == 1
    assert len(call.of("output_audio_buffer.stopped")) == 1


def test_without_transcription_the_words_are_heard_but_not_told():
    call = Simulation()
    audio = {"input": {"transcription": None}}
    call.client(type="session.update", session={"type": "realtime", "audio": audio})
    call.speak(0.2, 1.0)
    call.run(20)
    assert not [kind for kind in call.types() if "input_audio_transcription" in kind]
    assert call.of("response.done")[-1]["response"]["status"] == "completed"
