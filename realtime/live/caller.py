"""The caller's side of a conversation: speech becomes items, items get their words. Sans-I/O.

    IDLE --speech started--> SPEAKING --stopped (server_vad)--> committed, words awaited --> a verdict
                              |   ^
        stopped (semantic_vad)|   |speech goes on
                              v   |
                            PAUSED --waited long enough--> committed …
    IDLE --audio, no turn detection--> BUFFERING --commit--> committed … / --clear--> IDLE

Everything returns effects; what is owed to the caller when all words are there (`Verdict`) is handed
to `decide`, which the conversation brings along. It never makes a response itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from media.endpoint import SpeechStarted, SpeechStopped
from realtime.live import wire
from realtime.live.config import SemanticVad, SessionConfig
from realtime.live.effects import (
    DropListening,
    Effect,
    EndListening,
    Listen,
    Record,
    ResetDetector,
    Send,
    TranscriptFailed,
    TranscriptHeard,
)
from realtime.live.items import History, Item, Part
from realtime.live.patience import wait_ms
from realtime.live.turntaking import TurnTaking, Verdict
from realtime.live.wire import WireError
from realtime.observe.turns import TurnRecord

UNCLEAR = "[unintelligible speech]"
"""What the chat model reads for speech in which no words were recognised."""

MIN_COMMIT_MS = 100
"""Less audio than this cannot be committed, as with OpenAI."""


@dataclass(slots=True)
class _Utterance:
    """An item of the caller between its first audio and its final transcript."""

    item: Item
    turn: TurnRecord
    start_ms: int
    committed: bool = False
    answers: bool = True
    """False: the client committed it, and asks for the answer itself."""
    partial: str = ""
    early: TranscriptHeard | TranscriptFailed | None = None
    """The recogniser's last word, when it came before the utterance had ended."""
    shown: str = ""
    """The part of its transcript that has gone out as deltas."""


@dataclass(slots=True)
class _Pause:
    """The caller fell silent in a `semantic_vad` turn; perhaps the turn is over."""

    event: SpeechStopped
    since: float


class Caller:
    """`decide(verdict)`: what the conversation does when nobody speaks and all words are there."""

    def __init__(
        self,
        config: SessionConfig,
        history: History,
        turns: TurnTaking,
        engines: Mapping[str, str],
        decide: Callable[[Verdict], list[Effect]],
    ) -> None:
        self.last_turn: TurnRecord | None = None
        """Of the utterance whose words came last; an answer takes it over."""
        self._config = config
        self._history = history
        self._turns = turns
        self._engines = engines
        self._decide = decide
        self._utterances: dict[str, _Utterance] = {}
        self._pause: _Pause | None = None
        self._buffering: _Utterance | None = None

    @property
    def buffering(self) -> bool:
        """Audio without turn detection is being collected for a commit."""
        return self._buffering is not None

    @property
    def awaits_words(self) -> bool:
        """Something was committed whose transcript has not come yet."""
        return any(utterance.committed for utterance in self._utterances.values())

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds at which a pause is long enough to be the end of a turn."""
        pause, turn = self._pause, self._config.turn_detection
        if pause is None:
            return None
        if not isinstance(turn, SemanticVad):
            return pause.since
        speaking = self._turns.speaking
        partial = self._utterances[speaking].partial if speaking else ""
        return pause.since + wait_ms(turn.eagerness, partial) / 1000

    # --- speech, as the detector hears it -----------------------------------------------------

    def speech_started(self, event: SpeechStarted) -> tuple[list[Effect], bool]:
        """The effects, and whether this is a new utterance (not one that goes on after a pause)."""
        if self._pause is not None:
            self._pause = None
            return [], False
        utterance = self._begin(event.audio_start_ms)
        self._turns.speech_started(utterance.item.id, event.onset_ms)
        started = wire.SpeechStartedEvent(item_id=utterance.item.id, audio_start_ms=event.audio_start_ms)
        return [Send(started), Listen(utterance.item.id, event.audio_start_ms)], True

    def _begin(self, start_ms: int) -> _Utterance:
        item = Item("message", role="user", parts=[Part("input_audio")])
        utterance = _Utterance(item, TurnRecord(item_id=item.id, engines=dict(self._engines)), start_ms)
        self._utterances[item.id] = utterance
        return utterance

    def speech_stopped(self, event: SpeechStopped, now: float) -> list[Effect]:
        if self._turns.speaking is None:
            return []
        if isinstance(self._config.turn_detection, SemanticVad):
            self._pause = _Pause(event, now)
            return self.tick(now)
        return self._end(event, now)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: a pause may have become the end of the turn."""
        deadline = self.deadline
        if self._pause is None or deadline is None or now < deadline:
            return []
        pause, self._pause = self._pause, None
        return self._end(pause.event, now, waited_ms=(now - pause.since) * 1000)

    def _end(self, event: SpeechStopped, now: float, *, waited_ms: float = 0.0) -> list[Effect]:
        item_id = self._turns.speech_stopped(event.ended_ms)
        if item_id is None:
            return []
        utterance = self._utterances[item_id]
        utterance.turn.ended_at = event.ended_at
        utterance.turn.endpoint_at = now
        end_ms = event.audio_end_ms + round(waited_ms)
        stopped = Send(wire.SpeechStoppedEvent(item_id=item_id, audio_end_ms=end_ms))
        return [stopped, *self._commit(utterance, end_ms, now)]

    def _commit(self, utterance: _Utterance, end_ms: int, now: float) -> list[Effect]:
        utterance.committed = True
        utterance.item.parts[0].audio_ms = max(0, end_ms - utterance.start_ms)
        previous = self._history.append(utterance.item)
        wired = utterance.item.to_wire()
        effects: list[Effect] = [
            Send(wire.Committed(item_id=utterance.item.id, previous_item_id=previous)),
            Send(wire.ItemAdded(item=wired, previous_item_id=previous)),
            Send(wire.ItemDone(item=wired, previous_item_id=previous)),
            EndListening(utterance.item.id),
        ]
        match utterance.early:
            case TranscriptHeard():
                effects += self.transcript(utterance.early, now)
            case TranscriptFailed():
                effects += self.transcript_failed(utterance.early)
        return effects

    # --- the input buffer, as the client sees it ----------------------------------------------

    def audio_arrived(self, position_ms: float) -> list[Effect]:
        """Audio came while nobody detects turns: collect it until the client commits."""
        if self._buffering is not None or self._config.turn_detection is not None:
            return []
        self._buffering = self._begin(round(position_ms))
        self._buffering.answers = False
        return [Listen(self._buffering.item.id, self._buffering.start_ms)]

    def commit(self, position_ms: float, now: float) -> list[Effect]:
        """The client ends the turn. Raises `WireError` when there is nothing to commit."""
        utterance = self._buffering or self._utterances.get(self._turns.speaking or "")
        if utterance is None or position_ms - utterance.start_ms < MIN_COMMIT_MS:
            raise WireError(
                f"The input audio buffer holds less than {MIN_COMMIT_MS} ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        effects: list[Effect] = []
        if self._buffering is None:
            self._turns.speech_stopped(position_ms)
            self._pause = None
            effects += [ResetDetector(), _stopped(utterance, position_ms)]
        self._buffering = None
        utterance.answers = False
        utterance.turn.ended_at = utterance.turn.endpoint_at = now
        return effects + self._commit(utterance, round(position_ms), now)

    def clear(self, position_ms: float) -> list[Effect]:
        """The client throws away what was said and not yet committed."""
        utterance = self._buffering or self._utterances.get(self._turns.speaking or "")
        detected = self._buffering is None
        self._buffering = self._pause = None
        effects: list[Effect] = [ResetDetector()]
        if utterance is not None:
            self._turns.speech_dropped()
            del self._utterances[utterance.item.id]
            effects.append(DropListening(utterance.item.id))
            effects += [_stopped(utterance, position_ms)] if detected else []
        return [*effects, Send(wire.Cleared())]

    def silent_turn(self, start_ms: int, end_ms: int, now: float) -> tuple[str, list[Effect]]:
        """Nobody has said anything for so long that the silence itself is taken for a turn."""
        utterance = self._begin(start_ms)
        del self._utterances[utterance.item.id]
        utterance.item.parts[0].text = ""
        utterance.item.parts[0].note = "[silence]"
        self.last_turn = utterance.turn
        return utterance.item.id, self._commit(utterance, end_ms, now)[:-1]

    def forget(self, item_id: str) -> list[Effect]:
        """The client deleted the item: nothing is owed for it, and no words of it are wanted."""
        utterance = self._utterances.pop(item_id, None)
        if utterance is None:
            return []
        verdict = self._turns.transcript_failed(item_id)
        return [DropListening(item_id), *(self._decide(verdict) if utterance.answers else [])]

    # --- words --------------------------------------------------------------------------------

    def transcript(self, event: TranscriptHeard, now: float) -> list[Effect]:
        utterance = self._utterances.get(event.item_id)
        if utterance is None:
            return []
        if event.final and not utterance.committed:
            utterance.early = event
            return []
        text = event.text.strip() if event.spoken else ""
        utterance.partial = text
        effects = self._partial_transcript(utterance, text, final=event.final)
        if not event.final:
            return effects
        part = utterance.item.parts[0]
        part.text = text
        part.note = UNCLEAR if event.spoken else event.text
        utterance.turn.transcript_at = now
        del self._utterances[event.item_id]
        self.last_turn = utterance.turn
        effects.append(
            Send(
                wire.TranscriptionCompleted(
                    item_id=event.item_id,
                    content_index=0,
                    transcript=text,
                    usage={"type": "duration", "seconds": round(part.audio_ms / 1000, 3)},
                )
            )
        )
        verdict = self._turns.transcript(event.item_id, words=bool(text) or not event.spoken)
        return effects + self._decide(verdict) if utterance.answers else effects

    def _partial_transcript(self, utterance: _Utterance, text: str, *, final: bool) -> list[Effect]:
        """Deltas may only append: what a recogniser takes back is left to the completed transcript."""
        effects: list[Effect] = []
        if not final and self._config.includes("realtime.input_transcript.partial"):
            effects.append(Send(wire.PartialTranscript(item_id=utterance.item.id, text=text)))
        if utterance.committed and text.startswith(utterance.shown) and len(text) > len(utterance.shown):
            delta = text[len(utterance.shown) :]
            utterance.shown = text
            effects.append(Send(wire.TranscriptionDelta(item_id=utterance.item.id, content_index=0, delta=delta)))
        return effects

    def transcript_failed(self, event: TranscriptFailed) -> list[Effect]:
        utterance = self._utterances.get(event.item_id)
        if utterance is None:
            return []
        if not utterance.committed:
            utterance.early = event
            return []
        del self._utterances[event.item_id]
        error = {"type": "server_error", "code": event.code, "message": event.message}
        failed = wire.TranscriptionFailed(item_id=event.item_id, content_index=0, error=error)
        utterance.turn.status = "failed"
        effects: list[Effect] = [
            Send(failed),
            Send(wire.ErrorEvent.make(event.message, code=event.code, kind="server_error")),
            Record(utterance.turn),
        ]
        verdict = self._turns.transcript_failed(event.item_id)
        return effects + self._decide(verdict) if utterance.answers else effects


def _stopped(utterance: _Utterance, position_ms: float) -> Send:
    """The client ended speech that was heard to start: to it, what started has stopped."""
    return Send(wire.SpeechStoppedEvent(item_id=utterance.item.id, audio_end_ms=round(position_ms)))
