"""Voice to voice, barge-in and set-up, as a caller in another process sees them on the wire.

    python -m benchmarks.latency [--turns 20] [--barge-ins 20] [--set-ups 20] [--json FILE]

The server runs `--engines instant` (an answer is 5 s of tone), so that what is left is the product's
own: network, jitter buffer, decoding, voice activity, turn taking, encoding, pacing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks import report, speech
from benchmarks.apart import measured
from benchmarks.figures import Json, percentile, summary
from benchmarks.server import Server
from benchmarks.wire_client import FRAME_S, Answer, Call, Caller, Spoken

SILENCE_MS = 200
"""Configured silence that ends a turn, as in the measurement of the peers."""
ANSWER_S = 5.0
"""Length of an instant answer."""
TURN_S = 5.0
"""An answer that has not begun this long after the end of speech has failed."""
PAUSE_S = 0.4
"""Quiet between turns: the server has seen the end of the old one."""
QUIET_S = 0.05
CLASSES: dict[str, tuple[float, float]] = {
    "first_second": (0.1, 1.0),
    "middle": (1.5, 3.5),
    "last_300_ms": (ANSWER_S - 0.3, ANSWER_S - 0.05),
}
"""Seconds after an answer's first packet between which the caller begins to talk over it."""
OFF_GRID_S = 0.03
"""A moment is met within half a packet, and the machine's own delay."""
OFF_LENGTH_S = 0.5
"""An answer is stretched when the server stalls; twice the sound, from two clauses, is another matter."""
CONFIG = '[agents.greeter]\ngreeting = "Hello, how can I help you?"\n'
STEPS = ("endpoint_ms", "transcript_ms", "chat_first_token_ms", "speech_first_audio_ms", "first_packet_ms")
"""Of a turn's own record, in order; they add up to its `voice_to_voice_ms`."""
SEED = 1
"""The moments of talking over are random, and the same in every run."""


@dataclass(frozen=True, slots=True)
class Plan:
    turns: int = 20
    barge_ins: int = 20
    """In each class."""
    set_ups: int = 20


@dataclass(slots=True)
class Results:
    """Milliseconds. A turn that failed is counted, never left out in silence."""

    voice_to_voice: list[float] = field(default_factory=list)
    after_barge_in: list[float] = field(default_factory=list)
    """Voice to voice of the utterances that had talked over an answer."""
    barge_in: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CLASSES})
    cleared: list[float] = field(default_factory=list)
    """Speech onset to the event `output_audio_buffer.cleared`."""
    ran_out: int = 0
    """Answers that came to their own end before the cut."""
    answered: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    greeting: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    records: list[Json] = field(default_factory=list)
    """The server's own `realtime.turn.metrics`."""
    lateness: list[float] = field(default_factory=list)
    """How long after their deadlines the caller's packets left."""
    lost: int = 0
    stalls: list[float] = field(default_factory=list)
    """Gaps of more than 100 ms inside an answer."""


class Conversation:
    """The turns of one call."""

    def __init__(self, call: Call, utterances: Iterator[speech.Utterance], results: Results) -> None:
        self._call = call
        self._arrivals = call.arrivals
        self._utterances = utterances
        self._results = results
        self._packets_before = 0
        """Packets the caller had sent when it began the latest utterance."""

    async def configure(self) -> None:
        detection = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
        session = {
            "type": "realtime",
            "audio": {"input": {"turn_detection": detection}},
            "include": ["realtime.turn.metrics"],
        }
        await self._arrivals.wait_for("session.created", TURN_S)
        self._call.send({"type": "session.update", "session": session})
        updated = await self._arrivals.wait_for("session.updated", TURN_S)
        silence = updated["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"]
        if silence != SILENCE_MS:
            raise RuntimeError(f"the server waits for {silence} ms of silence, not {SILENCE_MS}")

    async def turn(self) -> None:
        """Speak into the quiet, measure, and have the answer stopped by an event."""
        await asyncio.sleep(PAUSE_S)
        index = len(self._arrivals.answers)
        spoken = self._say(time.monotonic() + 0.15)
        answer = await self._answer_to(spoken, index, self._results.voice_to_voice)
        if answer is not None:
            # By then the instant response is complete; only its sound is still going on.
            await asyncio.sleep(0.1)
            self._call.send({"type": "output_audio_buffer.clear"})
            if not await self._arrivals.finished(answer, ANSWER_S + 1):
                self._fail("an answer did not stop when it was told to")

    async def talk_over(self, answer: Answer, kind: str, after_s: float) -> Answer | None:
        """Speak `after_s` after the answer began; the answer to that, which the next call talks over."""
        index = len(self._arrivals.answers)
        spoken = self._say(answer.first_at + after_s)
        await spoken.onset.wait()
        assert spoken.onset_at is not None
        missed = spoken.onset_at - answer.first_at - after_s
        if abs(missed) > OFF_GRID_S:
            self._fail(f"the caller began {1000 * missed:.0f} ms beside the moment meant")
        if not await self._arrivals.finished(answer, ANSWER_S + 1):
            self._fail("an answer went on although it was talked over")
        cleared = self._arrivals.between("output_audio_buffer.cleared", spoken.onset_at, time.monotonic())
        heard_s = answer.last_at - answer.first_at
        if cleared or heard_s > ANSWER_S - 2.5 * FRAME_S:
            self._results.barge_in[kind].append(1000 * (answer.last_at - spoken.onset_at))
            self._results.cleared += [1000 * (at - spoken.onset_at) for at in cleared[:1]]
            self._results.ran_out += not cleared
        else:
            self._fail(f"an answer stopped after {heard_s:.2f} s and was not reported cut")
        return await self._answer_to(spoken, index, self._results.after_barge_in)

    async def whole_answer(self) -> None:
        """Hear one answer to its end: the classes of barge-in rest on its length. Raises `RuntimeError`."""
        answer = await self.opening()
        if answer is None:
            raise RuntimeError("no answer to measure the length of")
        if not await self._arrivals.finished(answer, 3 * ANSWER_S):
            raise RuntimeError("an instant answer does not end, or is not reported ended")
        seconds = answer.last_at - answer.first_at + FRAME_S
        if abs(seconds - ANSWER_S) > OFF_LENGTH_S:
            raise RuntimeError(f"an instant answer lasts {seconds:.2f} s, not {ANSWER_S:g} s")

    async def opening(self) -> Answer | None:
        """An answer to be talked over."""
        await asyncio.sleep(PAUSE_S)
        index = len(self._arrivals.answers)
        spoken = self._say(time.monotonic() + 0.15)
        return await self._answer_to(spoken, index, self._results.voice_to_voice)

    async def _answer_to(self, spoken: Spoken, index: int, measured: list[float]) -> Answer | None:
        await spoken.ended.wait()
        assert spoken.ended_at is not None
        name = spoken.utterance.name
        try:
            answer = await self._arrivals.answer(index, TURN_S)
        except TimeoutError:
            self._fail(f"no answer to {name} within {TURN_S:.0f} s")
            return None
        finally:
            await spoken.over.wait()
        if answer.first_at < spoken.ended_at:
            self._fail(f"{name} was answered before it ended")
            await self._arrivals.finished(answer, ANSWER_S + 1)
            return None
        measured.append(1000 * (answer.first_at - spoken.ended_at))
        return answer

    def _say(self, onset_at: float) -> Spoken:
        self._packets_before = len(self._call.track.lateness_s)
        return self._call.say(next(self._utterances), onset_at)

    def _fail(self, message: str) -> None:
        """The caller's own delay is named with it: on a busy machine the fault may be there."""
        late = 1000 * max(self._call.track.lateness_s[self._packets_before :], default=0.0)
        self._results.failures.append(f"{message} (the caller's packets left up to {late:.0f} ms late)")


async def _converse(caller: Caller, plan: Plan, results: Results, say: Callable[[str], None]) -> None:
    utterances = itertools.cycle(speech.load())
    async with caller.call() as call:
        conversation = Conversation(call, utterances, results)
        await conversation.configure()
        for number in range(plan.turns):
            say(f"turn {number + 1} of {plan.turns}")
            await conversation.turn()
        if plan.barge_ins:
            await conversation.whole_answer()
        kinds = [kind for kind in CLASSES for _ in range(plan.barge_ins)]
        moments = random.Random(SEED)
        moments.shuffle(kinds)
        answer: Answer | None = None
        for number, kind in enumerate(kinds):
            say(f"barge-in {number + 1} of {len(kinds)}")
            if answer is None:
                answer = await conversation.opening()
            if answer is not None:
                answer = await conversation.talk_over(answer, kind, moments.uniform(*CLASSES[kind]))
        if answer is not None:
            # The record of a turn comes when its answer was heard to the end.
            await call.arrivals.finished(answer, ANSWER_S + 1)
            await asyncio.sleep(PAUSE_S)
        results.lateness += [1000 * late for late in call.track.lateness_s]
        results.lost += call.arrivals.lost
        results.stalls += [1000 * gap for gap in call.arrivals.stalls_s]
        events = (event for _, event in call.arrivals.events)
        results.records += [event["metrics"] for event in events if event["type"] == "realtime.turn.metrics"]
        errors = (event for _, event in call.arrivals.events if event["type"] == "error")
        results.failures += [f"error event: {event['error'].get('message')}" for event in errors]


async def _set_up(caller: Caller, results: Results) -> None:
    async with caller.call(agent="greeter") as call:
        began = call.set_up.offered_at
        results.answered.append(1000 * (call.set_up.answered_at - began))
        results.connected.append(1000 * (call.set_up.connected_at - began))
        try:
            greeting = await call.arrivals.answer(0, TURN_S)
        except TimeoutError:
            results.failures.append(f"no greeting within {TURN_S:.0f} s")
            return
        results.greeting.append(1000 * (greeting.first_at - began))


async def _run(server: Server, plan: Plan, say: Callable[[str], None]) -> Results:
    results = Results()
    async with Caller(server.url, server.api_key) as caller:
        for number in range(plan.set_ups):
            say(f"set-up {number + 1} of {plan.set_ups}")
            await _set_up(caller, results)
            await asyncio.sleep(QUIET_S)
        if plan.turns or plan.barge_ins:
            await _converse(caller, plan, results, say)
    return results


def _as_json(plan: Plan, results: Results) -> Json:
    over = [value - SILENCE_MS for value in results.voice_to_voice]
    cut = {name: summary(values) for name, values in results.barge_in.items()}
    everything = [value for values in results.barge_in.values() for value in values]
    steps = {
        step: summary(record[step] for record in results.records if record.get(step) is not None)
        for step in (*STEPS, "voice_to_voice_ms", "barge_in_ms")
    }
    late = results.lateness
    return {
        "conditions": {
            "engines": "instant",
            "silence_ms": SILENCE_MS,
            "answer_s": ANSWER_S,
            "turns": plan.turns,
            "barge_ins_per_class": plan.barge_ins,
            "set_ups": plan.set_ups,
        },
        "voice_to_voice_ms": summary(results.voice_to_voice),
        "voice_to_voice_over_silence_ms": summary(over),
        "voice_to_voice_after_barge_in_ms": summary(results.after_barge_in),
        "barge_in_ms": cut | {"all": summary(everything)},
        "set_up_ms": {
            "offer_to_answer": summary(results.answered),
            "offer_to_connected": summary(results.connected),
            "offer_to_greeting": summary(results.greeting),
        },
        "server_record_ms": steps,
        "checks": {
            "failures": results.failures,
            "answers_cleared": len(results.cleared),
            "onset_to_cleared_event_ms": summary(results.cleared),
            "answers_ended_before_the_cut": results.ran_out,
            "packets_lost": results.lost,
            "gaps_inside_answers_ms": summary(results.stalls),
            "caller_late_p99_ms": round(percentile(late, 99), 2) if late else None,
            "caller_late_max_ms": round(max(late), 2) if late else None,
        },
    }


def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Json:
    """Start a server, measure it, stop it."""
    results, circumstances = measured(CONFIG, lambda server: _run(server, plan, say), collecting=False)
    return _as_json(plan, results) | circumstances


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.partition("\n")[0])
    usual = Plan()
    parser.add_argument("--turns", type=int, default=usual.turns, help="turns into the quiet (default %(default)s)")
    parser.add_argument("--barge-ins", type=int, default=usual.barge_ins, help="in each class (default %(default)s)")
    parser.add_argument("--set-ups", type=int, default=usual.set_ups, help="calls opened (default %(default)s)")
    report.add_options(parser)
    options = parser.parse_args()
    say = report.progress(options)
    report.finish({"latency": measure(Plan(options.turns, options.barge_ins, options.set_ups), say)}, options)


if __name__ == "__main__":
    main()
