"""One call under a virtual clock: the real conversation and playout, engines and caller by a seeded plan.

The voice speaks every word as 200 ms of samples whose value is the generation, so that what reaches
the wire names the response it belongs to. Streams that were stopped go on delivering for a while, as
real ones may: the conversation has to ignore them.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from media.endpoint import SpeechStarted, SpeechStopped
from media.playout import Heard, Playout
from realtime.adapters.base import ChatEnd, TextDelta, ToolCallDelta, Usage, Word
from realtime.live import wire
from realtime.live.agent import Filler
from realtime.live.config import SessionConfig
from realtime.live.conversation import Conversation
from realtime.live.effects import (
    AudioArrived,
    AudioOpened,
    ChatFailed,
    ChatProduced,
    ClientMessage,
    Effect,
    EndListening,
    FinishSpeaking,
    Input,
    Listen,
    Record,
    Send,
    Speak,
    SpeechFailed,
    SpeechFinished,
    SpeechProduced,
    Stop,
    Think,
    Tick,
    TranscriptFailed,
    TranscriptHeard,
)
from realtime.observe.turns import TurnRecord
from realtime.settings import AgentSettings, TurnDetectionSettings
from tests.realtime.live.orders import OrderChecker

WORD_MS = 200
TICK = 0.02


@dataclass(frozen=True)
class EnginePlan:
    """How the engines behave; delays in seconds, chances 0 to 1."""

    transcript_delay: float = 0.05
    token_delay: float = 0.01
    voice_delay: float = 0.03
    no_words: float = 0.0
    transcript_fails: float = 0.0
    chat_fails: float = 0.0
    voice_fails: float = 0.0
    calls_tool: float = 0.0
    answer_words: int = 12


class CutLog(Playout):
    """A playout that remembers when it was cut, and what it then held or could still have got."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self.cuts: list[tuple[float, int]] = []

    def cut(self, through: int | None = None) -> list[Heard]:
        heard = super().cut(through)
        newest = max([entry.generation for entry in heard] + [through or 0])
        self.cuts.append((self._clock(), newest))
        return heard


@dataclass
class Simulation:
    seed: int = 0
    plan: EnginePlan = field(default_factory=EnginePlan)
    greeting: str | None = None
    filler: Filler | None = None
    turn_detection: TurnDetectionSettings = field(default_factory=TurnDetectionSettings)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 1000.0
        self.playout = CutLog(lambda: self.now)
        agent = AgentSettings(instructions="Be brief.", turn_detection=self.turn_detection)
        config = SessionConfig.of_agent("sess_x", "default", agent, model="demo", voice="alloy")
        self.conversation = Conversation(config, self.playout, greeting=self.greeting, filler=self.filler)
        self.orders = OrderChecker()
        self.events: list[dict[str, Any]] = []
        self.effects: list[Effect] = []
        self.turns: list[TurnRecord] = []
        self.frames: list[tuple[float, np.ndarray[Any, Any]]] = []
        self.stopped: set[int] = set()
        self._deadline: float | None = None
        self._queue: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._voice_free: dict[int, float] = {}
        self._failed_items: set[str] = set()
        self._ticking = False
        self._carry_out(self.conversation.start())
        self.at(0.0, AudioOpened())

    # --- driving ------------------------------------------------------------------------------

    def at(self, delay: float, what: Input | Any) -> None:
        """An input, or a function to call, `delay` seconds from now."""
        heapq.heappush(self._queue, (self.now + delay, next(self._order), what))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, what = heapq.heappop(self._queue)
            if callable(what):
                what()
            else:
                self.tell(what)
        self.now = end

    def tell(self, event: Input) -> list[dict[str, Any]]:
        before = len(self.events)
        self._carry_out(self.conversation.handle(event, self.now))
        self.wake()
        self._set_timer()
        return self.events[before:]

    def media_ms(self) -> float:
        return (self.now - 1000.0) * 1000

    def client(self, **event: Any) -> list[dict[str, Any]]:
        return self.tell(ClientMessage(wire.parse(json.dumps(event))))

    def speak(self, delay: float, seconds: float) -> None:
        """The caller speaks: noticed 80 ms after onset, ended 500 ms after the end."""

        def start() -> None:
            if not self.conversation.collects_audio:
                self.tell(AudioArrived(self.media_ms()))
            if self.conversation.config.turn_detection is None:
                return  # as `Session` has it
            onset = self.media_ms() - 80
            self.tell(SpeechStarted(max(0, int(onset - 300)), onset, self.now - 0.08))

        def stop() -> None:
            self.tell(SpeechStopped(int(self.media_ms()), self.media_ms() - 500, self.now - 0.5))

        self.at(delay, start)
        self.at(delay + seconds + 0.42, stop)

    def wake(self) -> None:
        """Run the clock of the playout while it has something to hand out."""
        if not self._ticking and not self.playout.idle:
            self._ticking = True
            ticks = int((self.now - 1000.0) / TICK + 1e-6) + 1
            self.at(1000.0 + ticks * TICK - self.now, self._tick)

    def _set_timer(self) -> None:
        deadline = self.conversation.deadline
        if deadline is not None and deadline != self._deadline:
            self._deadline = deadline
            self.at(max(0.0, deadline - self.now), Tick())

    def _tick(self) -> None:
        self._ticking = False
        frame, events = self.playout.next_frame(self.now)
        if frame is not None:
            self.frames.append((self.now, frame.copy()))
        for event in events:
            self.tell(event)
        self.wake()

    # --- engines ------------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            match effect:
                case Send():
                    event = json.loads(effect.event.serialise())
                    self.events.append(event)
                    self.orders.see(event)
                case Listen():
                    if self._chance(self.plan.transcript_fails):
                        self._failed_items.add(effect.item_id)
                        failed = TranscriptFailed(effect.item_id, "worker_died", "The recogniser died.")
                        self.at(self.random.uniform(0.0, 2.0), failed)
                    else:
                        self.at(0.1, TranscriptHeard(effect.item_id, "some", final=False))
                case EndListening():
                    if effect.item_id not in self._failed_items:
                        self._transcribe(effect.item_id)
                case Think():
                    self._think(effect)
                case Speak():
                    self._speak(effect)
                case FinishSpeaking():
                    self._finish(effect.generation)
                case Stop():
                    self.stopped.add(effect.generation)
                case Record():
                    self.turns.append(effect.turn)

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _jitter(self, delay: float) -> float:
        return delay * self.random.uniform(0.5, 2.0)

    def _transcribe(self, item_id: str) -> None:
        text = "" if self._chance(self.plan.no_words) else "some words here"
        self.at(self._jitter(self.plan.transcript_delay), TranscriptHeard(item_id, text, final=True))

    def _think(self, effect: Think) -> None:
        delay = 0.0
        generation = effect.generation
        if self._chance(self.plan.calls_tool):
            self.at(0.02, ChatProduced(generation, ToolCallDelta(0, "{", f"call_{generation}", "lookup")))
            self.at(0.03, ChatProduced(generation, ToolCallDelta(0, "}")))
            self.at(0.04, ChatProduced(generation, ChatEnd("tool_calls", Usage(3, 1))))
            return
        for number in range(self.random.randint(1, self.plan.answer_words * 2)):
            delay += self._jitter(self.plan.token_delay)
            text = f"word{number}" + self.random.choice([" ", " ", ", ", ". "])
            self.at(delay, ChatProduced(generation, TextDelta(text)))
            if self._chance(self.plan.chat_fails / 10):
                self.at(delay, ChatFailed(generation, "timeout", "The model did not answer."))
                return
        self.at(delay, ChatProduced(generation, ChatEnd("stop", Usage(10, 5))))

    def _speak(self, effect: Speak) -> None:
        begin = max(self.now, self._voice_free.get(effect.generation, 0.0)) + self._jitter(self.plan.voice_delay)
        position = 0
        for number, word in enumerate(effect.text.split()):
            start = effect.text.index(word, position)
            position = start + len(word)
            spoken = Word(start, position, number * WORD_MS)
            begin += 0.002
            self.at(begin - self.now, lambda word=spoken: self._produce(effect, word))
            if self._chance(self.plan.voice_fails / 20):
                self.at(begin - self.now, SpeechFailed(effect.generation, "worker_died", "The voice died."))
        self._voice_free[effect.generation] = begin

    def _produce(self, effect: Speak, word: Word) -> None:
        pcm = np.full(WORD_MS * 24, effect.generation, np.int16)
        pushed = self.playout.push(effect.generation, pcm)
        if pushed or effect.generation in self.stopped:
            self.tell(SpeechProduced(effect.generation, effect.clause, WORD_MS, (word,)))

    def _finish(self, generation: int) -> None:
        def finish() -> None:
            if generation not in self.stopped:
                self.playout.finish(generation)
                self.wake()
            self.tell(SpeechFinished(generation))

        self.at(max(0.0, self._voice_free.get(generation, 0.0) - self.now) + 0.001, finish)

    # --- what came of it ----------------------------------------------------------------------

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def heard_words(self) -> dict[int, float]:
        """Milliseconds of each generation on the wire."""
        heard: dict[int, float] = {}
        for _, frame in self.frames:
            for value in np.unique(frame):
                if value > 0:
                    heard[int(value)] = heard.get(int(value), 0.0) + float(np.count_nonzero(frame == value)) / 24
        return heard
