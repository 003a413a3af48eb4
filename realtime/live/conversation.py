"""The conversation of one call: events in, effects out. Sans-I/O.

One contract: every input goes through `handle(input, now)`, and the effects it gives are carried
out, in order, before the next input. The conversation owns the history, whose turn it is, and the
one response under way; of sound it knows only how much was made and, through the playout, how much
was heard. After a cut nothing of the old generation is accepted or said.

It never touches samples, sockets or clocks; `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from media.endpoint import SpeechStarted, SpeechStopped
from media.playout import Heard, PlayoutEvent, PlayoutEventKind
from realtime.adapters.base import ChatEnd, ChatRequest, TextDelta, ToolCallDelta
from realtime.live import wire
from realtime.live.config import ResponseConfig, SessionConfig
from realtime.live.effects import (
    AudioOpened,
    ChatFailed,
    ChatProduced,
    ClientMessage,
    Configure,
    Effect,
    EndListening,
    Input,
    Listen,
    Record,
    Send,
    SpeechFailed,
    SpeechFinished,
    SpeechProduced,
    Stop,
    Think,
    TranscriptFailed,
    TranscriptHeard,
)
from realtime.live.items import History, HistoryError, Item, ItemStatus, Part
from realtime.live.responses import Phase, Purpose, Response, Status
from realtime.live.turntaking import TurnTaking, Verdict
from realtime.live.wire import Json, WireError
from realtime.observe.turns import TurnRecord

UNCLEAR = "[unintelligible speech]"
"""What the chat model reads for speech in which no words were recognised."""


class CutPlayout(Protocol):
    """What the conversation needs of `media.playout.Playout`."""

    def cut(self, through: int | None = None) -> list[Heard]: ...

    def finish(self, generation: int) -> None: ...

    def heard_ms(self, generation: int) -> float: ...

    @property
    def fading(self) -> bool: ...


@dataclass(slots=True)
class _Utterance:
    """An item of the caller between its first voiced frame and its final transcript."""

    item: Item
    turn: TurnRecord
    start_ms: int
    committed: bool = False
    early: TranscriptHeard | TranscriptFailed | None = None
    """The recogniser's last word, when it came before the utterance had ended."""
    shown: str = ""
    """The part of its transcript that has gone out as deltas."""


class Conversation:
    """`greeting`: said as soon as the caller can hear. `engines`: names for the turn records."""

    def __init__(
        self,
        config: SessionConfig,
        playout: CutPlayout,
        *,
        greeting: str | None = None,
        engines: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.history = History()
        self._playout = playout
        self._greeting = greeting
        self._engines = dict(engines or {})
        self._turns = TurnTaking()
        self._utterances: dict[str, _Utterance] = {}
        self._last_turn: TurnRecord | None = None
        self._response: Response | None = None
        self._sounding: dict[int, Response] = {}
        """Responses with audio that has not all been heard, by generation."""
        self._fading: tuple[Response, float] | None = None
        """A response whose end is just leaving, and when it was cut."""
        self._generation = 0
        self._answer_waits = False
        self._unheard = ""
        """What the last false start cut off, kept until the caller has said something."""

    @property
    def active(self) -> Response | None:
        """The response being made, if any."""
        return self._response

    def start(self) -> list[Effect]:
        """Before anything else: the session as it is."""
        return [Send(wire.SessionCreated(session=self.config.to_wire())), Configure(self.config.endpoint)]

    def handle(self, event: Input, now: float) -> list[Effect]:
        match event:
            case ClientMessage():
                return self._client(event.event, now)
            case SpeechStarted():
                return self._speech_started(event, now)
            case SpeechStopped():
                return self._speech_stopped(event, now)
            case TranscriptHeard():
                return self._transcript(event, now)
            case TranscriptFailed():
                return self._transcript_failed(event, now)
            case ChatProduced():
                return self._chat(event, now)
            case SpeechProduced():
                return self._speech(event, now)
            case SpeechFinished():
                return self._speech_finished(event)
            case ChatFailed() | SpeechFailed():
                return self._engine_failed(event)
            case PlayoutEvent():
                return self._played(event)
            case AudioOpened():
                greeting, self._greeting = self._greeting, None
                return self._say(greeting) if greeting else []

    # --- the caller's speech ------------------------------------------------------------------

    def _speech_started(self, event: SpeechStarted, now: float) -> list[Effect]:
        item = Item("message", role="user", parts=[Part("input_audio")])
        turn = TurnRecord(item_id=item.id, engines=self._engines)
        self._utterances[item.id] = _Utterance(item, turn, event.audio_start_ms)
        self._turns.speech_started(item.id, event.onset_ms)
        effects: list[Effect] = [
            Send(wire.SpeechStartedEvent(item_id=item.id, audio_start_ms=event.audio_start_ms)),
            Listen(item.id, event.audio_start_ms),
        ]
        turn_detection = self.config.turn_detection
        if turn_detection is not None and turn_detection.interrupt_response:
            effects += self._interrupt(event.onset_at, now)
        return effects

    def _interrupt(self, onset_at: float, now: float) -> list[Effect]:
        """The caller speaks over the bot: cut it, and note what is owed if that was a false start."""
        target = self._response or next(reversed(self._sounding.values()), None)
        if target is None:
            return []
        if self._answer_waits:
            self._answer_waits = False
            self._turns.answer_lost()
        whole = (target.part.text or "") if target.part else ""
        if target.generation in self._sounding:
            target.turn.barge_in_ms = (now - onset_at) * 1000
        effects = self._cut("turn_detected", now)
        heard = (target.part.text or "") if target.part else ""
        unheard = whole[len(heard) :].strip()
        if not heard and target.purpose is Purpose.ANSWER:
            self._turns.answer_lost()
        elif unheard:
            self._unheard = unheard
            self._turns.speech_cut()
        return effects

    def _speech_stopped(self, event: SpeechStopped, now: float) -> list[Effect]:
        item_id = self._turns.speech_stopped(event.ended_ms)
        if item_id is None:
            return []
        utterance = self._utterances[item_id]
        utterance.committed = True
        utterance.item.parts[0].audio_ms = event.audio_end_ms - utterance.start_ms
        utterance.turn.ended_at = event.ended_at
        utterance.turn.endpoint_at = now
        previous = self.history.insert(utterance.item)
        wired = utterance.item.to_wire()
        effects: list[Effect] = [
            Send(wire.SpeechStoppedEvent(item_id=item_id, audio_end_ms=event.audio_end_ms)),
            Send(wire.Committed(item_id=item_id, previous_item_id=previous)),
            Send(wire.ItemAdded(item=wired, previous_item_id=previous)),
            Send(wire.ItemDone(item=wired, previous_item_id=previous)),
            EndListening(item_id),
        ]
        return effects + self.handle(utterance.early, now) if utterance.early else effects

    def _transcript(self, event: TranscriptHeard, now: float) -> list[Effect]:
        utterance = self._utterances.get(event.item_id)
        if utterance is None:
            return []
        if event.final and not utterance.committed:
            utterance.early = event
            return []
        text = event.text.strip() if event.spoken else ""
        effects = self._partial_transcript(utterance, text, final=event.final)
        if not event.final:
            return effects
        part = utterance.item.parts[0]
        part.text = text
        part.note = UNCLEAR if event.spoken else event.text
        utterance.turn.transcript_at = now
        del self._utterances[event.item_id]
        self._last_turn = utterance.turn
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
        return effects + self._decide(verdict)

    def _partial_transcript(self, utterance: _Utterance, text: str, *, final: bool) -> list[Effect]:
        """Deltas may only append: what a recogniser takes back is left to the completed transcript."""
        effects: list[Effect] = []
        if not final and self.config.includes("realtime.input_transcript.partial"):
            effects.append(Send(wire.PartialTranscript(item_id=utterance.item.id, text=text)))
        if utterance.committed and text.startswith(utterance.shown) and len(text) > len(utterance.shown):
            delta = text[len(utterance.shown) :]
            utterance.shown = text
            effects.append(Send(wire.TranscriptionDelta(item_id=utterance.item.id, content_index=0, delta=delta)))
        return effects

    def _transcript_failed(self, event: TranscriptFailed, now: float) -> list[Effect]:
        utterance = self._utterances.get(event.item_id)
        if utterance is None:
            return []
        if not utterance.committed:
            utterance.early = event
            return []
        del self._utterances[event.item_id]
        error = {"type": "server_error", "code": event.code, "message": event.message}
        failed = wire.TranscriptionFailed(item_id=event.item_id, content_index=0, error=error)
        effects: list[Effect] = [Send(failed), _error(event.message, event.code)]
        utterance.turn.status = "failed"
        effects.append(Record(utterance.turn))
        return effects + self._decide(self._turns.transcript_failed(event.item_id))

    def _decide(self, verdict: Verdict) -> list[Effect]:
        turn_detection = self.config.turn_detection
        unheard = self._unheard
        if verdict is not Verdict.NOTHING:
            self._unheard = ""
        if verdict is Verdict.NOTHING or turn_detection is None or not turn_detection.create_response:
            return []
        if verdict is Verdict.RESUME:
            return self._say(unheard)
        if self._response is not None:
            self._answer_waits = True
            return []
        return self._answer()

    # --- responses ----------------------------------------------------------------------------

    def _answer(self) -> list[Effect]:
        turn, self._last_turn = self._last_turn, None
        return self._respond(Purpose.ANSWER, ResponseConfig.of(self.config, None, None), turn)

    def _respond(self, purpose: Purpose, config: ResponseConfig, turn: TurnRecord | None) -> list[Effect]:
        response = self._open(purpose, config, turn)
        request = ChatRequest(
            messages=self.history.messages(config.instructions),
            tools=config.tools,
            tool_choice=config.tool_choice,
            max_tokens=config.max_output_tokens,
            session=self.config.id,
        )
        return [*response.open(), Think(response.generation, request)]

    def _say(self, text: str) -> list[Effect]:
        """Speak a given text as a response of its own."""
        config = replace(ResponseConfig.of(self.config, None, None), modality="audio")
        response = self._open(Purpose.FIXED, config, None)
        return [*response.open(), *response.add_text(text), *response.end_chat(ChatEnd("stop"))]

    def _open(self, purpose: Purpose, config: ResponseConfig, turn: TurnRecord | None) -> Response:
        self._generation += 1
        self._turns.answered()
        turn = turn or TurnRecord(engines=self._engines)
        response = Response(self._generation, purpose, config, self.history, turn)
        turn.response_id = response.id
        self._response = response
        return response

    def _current(self, generation: int) -> Response | None:
        response = self._response
        return response if response is not None and response.generation == generation else None

    def _chat(self, event: ChatProduced, now: float) -> list[Effect]:
        response = self._current(event.generation)
        if response is None or response.phase is not Phase.GENERATING:
            return []
        if response.turn.first_token_at is None:
            response.turn.first_token_at = now
        match event.delta:
            case TextDelta(text):
                effects = response.add_text(text)
                if response.too_long:
                    effects += [Stop(response.generation), *self._end_chat(response, ChatEnd("length"))]
                return effects
            case ToolCallDelta():
                return response.add_tool_delta(event.delta)
            case ChatEnd():
                return self._end_chat(response, event.delta)

    def _end_chat(self, response: Response, ending: ChatEnd) -> list[Effect]:
        effects = response.end_chat(ending)
        return effects + self._close(response, "completed") if response.voiced else effects

    def _speech(self, event: SpeechProduced, now: float) -> list[Effect]:
        response = self._current(event.generation)
        if response is None:
            return []
        self.config.voice_fixed = True
        self._sounding[event.generation] = response
        if response.turn.first_audio_at is None and event.ms:
            response.turn.first_audio_at = now
        response.add_speech(event.clause, event.ms, event.words)
        return []

    def _speech_finished(self, event: SpeechFinished) -> list[Effect]:
        response = self._current(event.generation)
        return self._close(response, "completed") if response else []

    def _engine_failed(self, event: ChatFailed | SpeechFailed) -> list[Effect]:
        response = self._current(event.generation)
        if response is None:
            return []
        error = {"type": "server_error", "code": event.code, "message": event.message}
        self._playout.finish(event.generation)  # what was already made may still be heard
        self._keep_made(response)
        return [
            Stop(event.generation),
            *self._close(response, "failed", error=error),
            _error(event.message, event.code),
        ]

    def _keep_made(self, response: Response) -> None:
        """No more will be spoken: the text is what there is audio for."""
        part = response.part
        if part is not None and response.speaks:
            part.cut(part.audio_ms)

    def _close(
        self, response: Response, status: Status, *, reason: str | None = None, error: Json | None = None
    ) -> list[Effect]:
        self._response = None
        effects = response.close(status, reason=reason, error=error)
        if response.generation not in self._sounding and not self._is_fading(response):
            effects.append(Record(response.turn))
        if self._answer_waits and status != "cancelled":
            self._answer_waits = False
            effects += self._answer()
        return effects

    def _cut(self, reason: str, now: float) -> list[Effect]:
        """Silence, now: streams closed, playout cut, every item left with what was heard of it."""
        effects: list[Effect] = []
        active = self._response
        if active is not None:
            effects.append(Stop(active.generation))
        heard = {entry.generation: entry.heard_ms for entry in self._playout.cut(self._generation)}
        sounding, self._sounding = self._sounding, {}
        if sounding and self._playout.fading:
            self._fading = next(iter(sounding.values())), now
        truncated: list[Effect] = []
        for generation, response in sounding.items():
            if response.turn.first_packet_at is not None:
                cleared = wire.OutputBufferEvent(type="output_audio_buffer.cleared", response_id=response.id)
                effects.append(Send(cleared))
            truncated += self._truncate(response, heard.get(generation, self._playout.heard_ms(generation)))
            if response is not active and not self._is_fading(response):
                truncated.append(Record(response.turn))
        if active is not None:
            if active.generation not in sounding:
                truncated += self._truncate(active, 0.0)
            effects += self._close(active, "cancelled", reason=reason)
        return effects + truncated

    def _is_fading(self, response: Response) -> bool:
        return self._fading is not None and self._fading[0] is response

    def _truncate(self, response: Response, heard_ms: float) -> list[Effect]:
        part, message = response.part, response.message
        if part is None or message is None or not response.speaks:
            return []
        response.turn.heard_ms = heard_ms
        had_audio = part.audio_ms > 0
        part.cut(heard_ms)
        if not had_audio:
            return []
        return [Send(wire.ItemTruncated(item_id=message.id, content_index=0, audio_end_ms=round(part.audio_ms)))]

    def _played(self, event: PlayoutEvent) -> list[Effect]:
        if event.kind is PlayoutEventKind.CUT and self._fading is not None:
            (cut, cut_at), self._fading = self._fading, None
            if cut.turn.barge_in_ms is not None:
                cut.turn.barge_in_ms += (event.at - cut_at) * 1000
            return [Record(cut.turn)]
        response = self._sounding.get(event.generation)
        if response is None:
            return []
        if event.kind is PlayoutEventKind.STARTED:
            response.turn.first_packet_at = event.at
            return [Send(wire.OutputBufferEvent(type="output_audio_buffer.started", response_id=response.id))]
        if event.kind is PlayoutEventKind.DONE:
            del self._sounding[event.generation]
            response.turn.heard_ms = event.heard_ms
            stopped = wire.OutputBufferEvent(type="output_audio_buffer.stopped", response_id=response.id)
            return [Send(stopped), Record(response.turn)]
        return []

    # --- what the client asks -----------------------------------------------------------------

    def _client(self, event: wire.AnyClientEvent | WireError, now: float) -> list[Effect]:
        if isinstance(event, WireError):
            return [_refusal(event)]
        try:
            return self._obey(event, now)
        except WireError as error:
            error.event_id = error.event_id or event.event_id
            return [_refusal(error)]
        except HistoryError as error:
            return [_refusal(WireError(str(error), code=error.code, param=error.param, event_id=event.event_id))]

    def _obey(self, event: wire.AnyClientEvent, now: float) -> list[Effect]:
        match event:
            case wire.SessionUpdate():
                self.config.update(event.session, event.event_id)
                updated = wire.SessionUpdated(session=self.config.to_wire())
                return [Send(updated), Configure(self.config.endpoint)]
            case wire.ItemCreate():
                return self._create_item(event)
            case wire.ItemRetrieve():
                return [Send(wire.ItemRetrieved(item=self.history.require(event.item_id).to_wire()))]
            case wire.ItemTruncate():
                return self._truncate_item(event, now)
            case wire.ItemDelete():
                if self.history.require(event.item_id).status is ItemStatus.IN_PROGRESS:
                    raise WireError("The item is still being made.", code="item_in_progress", param="item_id")
                self.history.delete(event.item_id)
                return [Send(wire.ItemDeleted(item_id=event.item_id))]
            case wire.ResponseCreate():
                return self._create_response(event)
            case wire.ResponseCancel():
                return self._cancel_response(event)
            case wire.OutputAudioBufferClear():
                return self._cut("client_cancelled", now)
            case _:
                raise WireError(f"{event.type} does not apply to this call.", code="unsupported_event", param="type")

    def _create_item(self, event: wire.ItemCreate) -> list[Effect]:
        item = Item.from_param(event.item)
        previous = self.history.insert(item, event.previous_item_id)
        wired = item.to_wire()
        return [
            Send(wire.ItemAdded(item=wired, previous_item_id=previous)),
            Send(wire.ItemDone(item=wired, previous_item_id=previous)),
        ]

    def _truncate_item(self, event: wire.ItemTruncate, now: float) -> list[Effect]:
        item = self.history.require(event.item_id)
        if item.role != "assistant" or not item.parts or item.parts[0].kind != "output_audio":
            raise WireError("Only an assistant's audio can be truncated.", code="invalid_value", param="item_id")
        if event.content_index >= len(item.parts):
            raise WireError("There is no such content part.", code="invalid_value", param="content_index")
        part = item.parts[event.content_index]
        sounding = next((response for response in self._sounding.values() if response.message is item), None)
        effects = self._cut("client_cancelled", now) if sounding else []
        part.cut(event.audio_end_ms)  # clamped rather than refused: clients overshoot by a frame
        truncated = wire.ItemTruncated(
            item_id=item.id, content_index=event.content_index, audio_end_ms=round(part.audio_ms)
        )
        return [
            *(effect for effect in effects if not _truncates(effect, item.id)),
            Send(truncated),
        ]

    def _create_response(self, event: wire.ResponseCreate) -> list[Effect]:
        config = ResponseConfig.of(self.config, event.response, event.event_id)
        if self._response is not None:
            raise WireError(
                f"The conversation already has a response in progress: {self._response.id}.",
                code="conversation_already_has_active_response",
                event_id=event.event_id,
            )
        turn, self._last_turn = self._last_turn, None
        return self._respond(Purpose.REQUESTED, config, turn)

    def _cancel_response(self, event: wire.ResponseCancel) -> list[Effect]:
        """Stop making it. What is already in the caller's line is heard, unless the buffer is cleared too."""
        response = self._response
        if response is None or event.response_id not in (None, response.id):
            raise WireError("There is no such response in progress.", code="response_cancel_not_active")
        self._playout.finish(response.generation)
        self._keep_made(response)
        return [Stop(response.generation), *self._close(response, "cancelled", reason="client_cancelled")]


def _truncates(effect: Effect, item_id: str) -> bool:
    return isinstance(effect, Send) and isinstance(effect.event, wire.ItemTruncated) and effect.event.item_id == item_id


def _refusal(error: WireError) -> Send:
    return Send(wire.ErrorEvent.make(error.message, code=error.code, param=error.param, event_id=error.event_id))


def _error(message: str, code: str) -> Send:
    return Send(wire.ErrorEvent.make(message, code=code, kind="server_error"))
