"""The conversation of one call: events in, effects out. Sans-I/O.

One contract: every input goes through `handle(input, now)`, and the effects it gives are carried
out, in order, before the next input. `Caller` makes items of what is said, `TurnTaking` says whose
turn it is, `Answering` makes and cuts responses; this puts them together and obeys the client. Of
sound it knows only how much was made and, through the playout, how much was heard.

It never touches samples, sockets or clocks; `now` is monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from media.endpoint import SpeechStarted, SpeechStopped
from media.playout import PlayoutEvent
from realtime.live import wire
from realtime.live.agent import Filler
from realtime.live.answering import Answering, CutPlayout, Rest
from realtime.live.brought import BroughtSound
from realtime.live.caller import UNCLEAR, Caller
from realtime.live.config import ResponseConfig, ServerVad, SessionConfig
from realtime.live.effects import (
    AudioArrived,
    AudioOpened,
    ChatFailed,
    ChatProduced,
    ClientMessage,
    Configure,
    Effect,
    EndCall,
    HandOver,
    HangUp,
    Input,
    IsQuiet,
    KeysPressed,
    SayText,
    Send,
    SpeechFailed,
    SpeechFinished,
    SpeechProduced,
    Tick,
    ToolReturned,
    TranscriptFailed,
    TranscriptHeard,
    UserIdle,
    WhenQuiet,
)
from realtime.live.items import History, HistoryError, Item, ItemStatus, Part
from realtime.live.owned import weakly
from realtime.live.quiet import Goodbye, Idle, Quiet
from realtime.live.responses import Purpose, Response, Status
from realtime.live.toolcalls import Owed, ToolCalls
from realtime.live.turntaking import Phase, TurnTaking, Verdict
from realtime.live.wire import WireError
from realtime.observe.turns import TurnRecord

__all__ = ["UNCLEAR", "Conversation", "CutPlayout"]


MAX_TO_SAY = 20
"""Sentences of the agent's code that wait to be said."""


class Conversation:
    """`greeting`: said as soon as the caller can hear. `engines`: names for the turn records.

    `client_plays`: the other side plays the audio itself, as over a WebSocket. `idle_seconds`: of silence, after which,
    again and again, the agent is told.
    """

    def __init__(
        self,
        config: SessionConfig,
        playout: CutPlayout,
        *,
        greeting: str | None = None,
        filler: Filler | None = None,
        engines: Mapping[str, str] | None = None,
        client_plays: bool = False,
        idle_seconds: float | None = None,
    ) -> None:
        self.config = config
        self.history = History()
        self._greeting = greeting
        self._quiet = Quiet(filler, idle_seconds)
        self._tools = ToolCalls(config, self.history)
        self._to_say: deque[str] = deque(maxlen=MAX_TO_SAY)
        self._client_plays = client_plays
        self._turns = TurnTaking()
        self._caller = Caller(config, self.history, self._turns, engines or {}, weakly(self._decide))
        self._answering = Answering(
            config,
            self.history,
            playout,
            engines or {},
            weakly(self._response_closed),
            weakly(self._tools_called),
            client_plays=client_plays,
        )
        self._answer_waits = False
        self._owed = Owed()
        """What the answer that waits is made of."""
        self._results_wait = False
        """Tools returned while the caller spoke."""
        self._unheard = ""
        """What the last false start cut off, kept until the caller has said something."""
        self._brought = BroughtSound(self.history)
        self._idle_since: float | None = None
        self._position_ms = 0.0
        self._now = 0.0

    @property
    def active(self) -> Response | None:
        """The response being made, if any."""
        return self._answering.active

    def silence_means(self, *, filler: Filler | None, idle_seconds: float | None) -> None:
        """To the agent that answers from here on."""
        self._quiet.filler, self._quiet.idle_seconds = filler, idle_seconds

    @property
    def collects_audio(self) -> bool:
        """Audio goes somewhere; otherwise the conversation wants to be told that some has come."""
        return self.config.turn_detection is not None or self._caller.buffering

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds at which `Tick` is due."""
        due = (self._caller.deadline, self._idle_deadline, self._quiet.deadline)
        return min((at for at in due if at is not None), default=None)

    @property
    def _idle_deadline(self) -> float | None:
        turn = self.config.turn_detection
        if self._idle_since is None or not isinstance(turn, ServerVad) or turn.idle_timeout_ms is None:
            return None
        return self._idle_since + turn.idle_timeout_ms / 1000

    def start(self) -> list[Effect]:
        """Before anything else: the session as it is."""
        return [Send(wire.SessionCreated(session=self.config.to_wire())), self._configuration()]

    def ended(self) -> list[TurnRecord]:
        """After everything else: the turns that hanging up cut off. Their items keep what was heard of them."""
        return self._answering.ended()

    def _configuration(self) -> Configure:
        formats = self.config.audio_format("input"), self.config.audio_format("output")
        return Configure(self.config.endpoint, *formats)

    def handle(self, event: Input, now: float) -> list[Effect]:
        self._now = now
        effects = self._handle(event, now)
        effects += self._say_next() or self._answer_results()
        busy = self._answering.busy or self._turns.speaking is not None
        self._quiet.update(
            now,
            busy=busy,
            unsettled=self._tools.waiting or self._turns.phase is not Phase.LISTENING,
            heard_until=self._idle_since,
            own_filler=self._tools.filler,
        )
        if busy:
            self._idle_since = None
        if self.config.shows_transcripts:
            return effects
        return [effect for effect in effects if not (isinstance(effect, Send) and _tells_words(effect.event))]

    def _handle(self, event: Input, now: float) -> list[Effect]:
        match event:
            case ClientMessage():
                return self._client(event, now)
            case SpeechStarted():
                return self._speech_started(event, now)
            case SpeechStopped():
                return self._caller.speech_stopped(event, now)
            case AudioArrived():
                return self._caller.audio_arrived(event.position_ms)
            case TranscriptHeard() | TranscriptFailed():
                return self._words(event, now)
            case ChatProduced():
                return self._answering.chat(event, now)
            case SpeechProduced():
                return self._answering.speech(event, now)
            case SpeechFinished():
                return self._answering.speech_finished(event)
            case ChatFailed() | SpeechFailed():
                return self._answering.engine_failed(event)
            case PlayoutEvent():
                # A client that plays for itself has only just been given what it is going to play.
                self._idle_since = now + (event.heard_ms / 1000 if self._client_plays else 0.0)
                return self._answering.played(event)
            case Tick():
                return [*self._caller.tick(now), *self._idle(now), *self._break_silence(now)]
            case AudioOpened():
                self._quiet.opened(now)
                greeting, self._greeting = self._greeting, None
                return self._answering.say(greeting) if greeting else []
            case ToolReturned():
                return self._tool_returned(event)
            case SayText():
                self._to_say.append(event.text)
                return []
            case HangUp():
                if event.at_once:
                    return [EndCall(event.reason)]
                self._quiet.hang_up(event.reason)
                return []
            case HandOver():
                return self._hand_over(event)
            case KeysPressed():
                return self._keys_pressed(event, now)
            case WhenQuiet():
                self._quiet.await_quiet(event.token)
                return []

    # --- turns --------------------------------------------------------------------------------

    def _speech_started(self, event: SpeechStarted, now: float) -> list[Effect]:
        effects, is_new = self._caller.speech_started(event)
        turn = self.config.turn_detection
        self._quiet.caller_spoke()
        if not is_new or turn is None or not turn.interrupt_response:
            return effects
        self._to_say.clear()
        if self._answer_waits:
            self._answer_waits = False
            self._turns.answer_lost()
        cut, interrupted = self._answering.interrupt(event.onset_at, now)
        if interrupted.lost:
            self._turns.answer_lost()
        elif interrupted.unheard:
            self._unheard = interrupted.unheard
            self._turns.speech_cut()
        return effects + cut

    def _words(self, event: TranscriptHeard | TranscriptFailed, now: float) -> list[Effect]:
        if self._brought.of(event.item_id):
            effects = self._brought.found(event)
        elif isinstance(event, TranscriptHeard):
            effects = self._caller.transcript(event, now)
        else:
            effects = self._caller.transcript_failed(event)
        return effects + self._release()

    def _release(self) -> list[Effect]:
        """What a held response waited for may be there."""
        return [] if self._holds else self._answering.release()

    @property
    def _holds(self) -> bool:
        """A response that the client asks for has to wait: for words, or for tools that run here."""
        return self._brought.awaits_words or self._caller.awaits_words or self._tools.holds

    def _decide(self, verdict: Verdict) -> list[Effect]:
        unheard = self._unheard
        if verdict is not Verdict.NOTHING:
            self._unheard = ""
        if verdict is Verdict.ANSWER:
            self._tools.new_turn()
        if verdict is Verdict.NOTHING or not self.config.creates_responses:
            return []
        if verdict is Verdict.RESUME:
            self._to_say.appendleft(Rest(unheard))
            return []
        self._quiet.stay()
        cut = self._tools.cut()
        return [*cut, *self._answer_when_free(Owed())]

    def _answer_when_free(self, owed: Owed) -> list[Effect]:
        if self._answering.active is not None:
            self._answer_waits, self._owed = True, owed
            return []
        return self._answer(owed)

    def _answer(self, owed: Owed) -> list[Effect]:
        turn, self._caller.last_turn = self._caller.last_turn, None
        self._turns.answered()
        config = owed.apply(ResponseConfig.of(self.config, None, None), exhausted=self._tools.exhausted)
        return self._respond(Purpose.ANSWER, config, turn)

    def _respond(
        self, purpose: Purpose, config: ResponseConfig, turn: TurnRecord | None, *, hold: bool = False
    ) -> list[Effect]:
        deferred: list[Effect] = []
        if config.in_conversation:
            self._answer_waits = self._results_wait = False
            self._quiet.end_waiting()
            deferred = [] if hold else self._tools.defer()
        return [*deferred, *self._answering.respond(purpose, config, turn, hold=hold)]

    def _response_closed(self, response: Response, status: Status) -> list[Effect]:
        if status == "completed" and response.speaks and response.calls_tools:
            self._quiet.begin_waiting()
        if not self._answer_waits or status == "cancelled":
            return []
        return self._answer(self._owed)

    # --- the agent's own code -----------------------------------------------------------------

    def _tools_called(self, response: Response) -> list[Effect]:
        effects, owed = self._tools.called(response)
        return effects + (self._answer_when_free(owed) if owed else [])

    def _tool_returned(self, event: ToolReturned) -> list[Effect]:
        effects, owed = self._tools.returned(event)
        if owed is None:
            return effects + self._release()
        if self._turns.phase is not Phase.LISTENING:
            self._results_wait = True  # the answer to what the caller is saying will have them
            return effects
        return effects + self._answer_when_free(owed)

    def _say_next(self) -> list[Effect]:
        """What the agent's code wants said, when nothing is being made and the caller's turn is settled."""
        if not self._to_say or self._answering.active is not None or self._turns.phase is not Phase.LISTENING:
            return []
        return self._answering.say(self._to_say.popleft())

    def _answer_results(self) -> list[Effect]:
        """Tools returned while the caller spoke, and what was said then has not been answered."""
        if not self._results_wait or self._answering.active is not None or self._turns.phase is not Phase.LISTENING:
            return []
        return self._answer(Owed())

    def _hand_over(self, event: HandOver) -> list[Effect]:
        self.config.hand_over(event.agent, event.instructions, event.voice, event.tools)
        self._tools.hand_over(greeted=event.greeting is not None, by=event.by)
        effects: list[Effect] = [Send(wire.SessionUpdated(session=self.config.to_wire()))]
        if event.note is not None:
            part = Part("input_text", event.note)
            effects += self._append(Item("message", role="system", parts=[part], fresh=True))
        if event.greeting is not None:
            self._to_say.append(event.greeting)
            self._answer_waits = self._results_wait = False
            return effects
        # The tool that hands over is about to return, and that is answered.
        return effects + ([] if self._tools.waiting else self._answer_when_free(Owed()))

    def _keys_pressed(self, event: KeysPressed, now: float) -> list[Effect]:
        """What the caller has typed is a turn, and ends what is being said."""
        self._quiet.caller_spoke()
        self._quiet.stay()
        self._tools.new_turn()
        self._to_say.clear()
        cut = self._answering.cut("turn_detected", now) if self._answering.busy else []
        text = f"[The caller pressed on the telephone: {event.keys}]"
        added = self._append(Item("message", role="user", parts=[Part("input_text", text)]))
        return [*cut, *added, *(self._answer_when_free(Owed()) if self.config.creates_responses else [])]

    def _append(self, item: Item) -> list[Effect]:
        previous = self.history.append(item)
        wired = item.to_wire()
        return [
            Send(wire.ItemAdded(item=wired, previous_item_id=previous)),
            Send(wire.ItemDone(item=wired, previous_item_id=previous)),
        ]

    def _break_silence(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while (due := self._quiet.due(now)) is not None:
            match due:
                case Filler():
                    effects += self._answering.say(due.text)
                case Idle():
                    effects.append(UserIdle(due.seconds))
                case Goodbye():
                    effects.append(EndCall(due.reason))
                case IsQuiet():
                    effects.append(due)
        return effects

    def _idle(self, now: float) -> list[Effect]:
        """Nobody has said anything since the bot fell silent: ask the model what to do about it."""
        deadline = self._idle_deadline
        if deadline is None or now < deadline or self._idle_since is None:
            return []
        end_ms = round(self._position_ms + (now - self._idle_since) * 1000)
        start_ms = round(self._position_ms)
        self._idle_since = None
        item_id, committed = self._caller.silent_turn(start_ms, end_ms, now)
        timeout = wire.TimeoutTriggered(item_id=item_id, audio_start_ms=start_ms, audio_end_ms=end_ms)
        return [Send(timeout), *committed, *(self._answer(Owed()) if self.config.creates_responses else [])]

    # --- what the client asks -----------------------------------------------------------------

    def _client(self, message: ClientMessage, now: float) -> list[Effect]:
        event = message.event
        self._position_ms = message.position_ms
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
                return [Send(wire.SessionUpdated(session=self.config.to_wire())), self._configuration()]
            case wire.InputAudioBufferCommit():
                return self._caller.commit(self._position_ms, now)
            case wire.InputAudioBufferClear():
                return self._caller.clear(self._position_ms)
            case wire.ItemCreate():
                return self._create_item(event)
            case wire.ItemRetrieve():
                return [Send(wire.ItemRetrieved(item=self.history.require(event.item_id).to_wire()))]
            case wire.ItemTruncate():
                return self._truncate_item(event, now)
            case wire.ItemDelete():
                return self._delete_item(event.item_id)
            case wire.ResponseCreate():
                return self._create_response(event)
            case wire.ResponseCancel():
                return self._cancel(event.response_id)
            case wire.OutputAudioBufferClear() if not self._client_plays:
                return self._answering.cut("client_cancelled", now)
            case _:
                raise WireError(f"{event.type} does not apply to this call.", code="unsupported_event", param="type")

    def _cancel(self, response_id: str | None) -> list[Effect]:
        """The response that is made, and the tools it may already wait for."""
        if response_id is None and self._answering.active is None and self._tools.waiting:
            return self._tools.cut()
        effects = self._answering.cancel(response_id)
        return effects if self._answering.active is not None else [*effects, *self._tools.cut()]

    def _create_item(self, event: wire.ItemCreate) -> list[Effect]:
        item = Item.from_param(event.item, sees=self.config.sees)
        if item.type == "function_call_output" and self._tools.ran(item.call_id):
            raise WireError("The tool runs on the server.", code="invalid_value", param="item.call_id")
        previous = self.history.insert(item, event.previous_item_id)
        wired = item.to_wire()
        effects: list[Effect] = [
            Send(wire.ItemAdded(item=wired, previous_item_id=previous)),
            Send(wire.ItemDone(item=wired, previous_item_id=previous)),
        ]
        if isinstance(event.item, wire.MessageItem) and event.item.role == "user":
            self._quiet.caller_spoke()
            effects += self._brought.take(item.id, event.item)
        return effects

    def _delete_item(self, item_id: str) -> list[Effect]:
        if self.history.require(item_id).status is ItemStatus.IN_PROGRESS:
            raise WireError("The item is still being made.", code="item_in_progress", param="item_id")
        self.history.delete(item_id)
        effects: list[Effect] = [Send(wire.ItemDeleted(item_id=item_id)), *self._caller.forget(item_id)]
        return effects + self._brought.forget(item_id) + self._release()

    def _truncate_item(self, event: wire.ItemTruncate, now: float) -> list[Effect]:
        item = self.history.require(event.item_id)
        if item.role != "assistant" or not item.parts or item.parts[0].kind != "output_audio":
            raise WireError("Only an assistant's audio can be truncated.", code="invalid_value", param="item_id")
        if event.content_index >= len(item.parts):
            raise WireError("There is no such content part.", code="invalid_value", param="content_index")
        part = item.parts[event.content_index]
        sounds = any(response.message is item for response in self._answering.sounding.values())
        effects = self._answering.cut("client_cancelled", now) if sounds else []
        part.cut(event.audio_end_ms)  # clamped rather than refused: clients overshoot by a frame
        truncated = wire.ItemTruncated(
            item_id=item.id, content_index=event.content_index, audio_end_ms=round(part.audio_ms)
        )
        return [*(effect for effect in effects if not _truncates(effect, item.id)), Send(truncated)]

    def _create_response(self, event: wire.ResponseCreate) -> list[Effect]:
        if self.config.kind != "realtime":
            raise WireError("A transcription session makes no responses.", code="unsupported_event", param="type")
        config = ResponseConfig.of(self.config, event.response, event.event_id)
        active = self._answering.active
        if config.in_conversation and active is not None:
            raise WireError(
                f"The conversation already has a response in progress: {active.id}.",
                code="conversation_already_has_active_response",
                event_id=event.event_id,
            )
        turn = None
        if config.in_conversation:
            turn, self._caller.last_turn = self._caller.last_turn, None
            self._turns.answered()
            self._tools.new_turn()
        return self._respond(Purpose.REQUESTED, config, turn, hold=self._holds)


def _tells_words(event: wire.ServerEvent) -> bool:
    return isinstance(event, wire.TranscriptionDelta | wire.TranscriptionCompleted | wire.TranscriptionFailed)


def _truncates(effect: Effect, item_id: str) -> bool:
    return isinstance(effect, Send) and isinstance(effect.event, wire.ItemTruncated) and effect.event.item_id == item_id


def _refusal(error: WireError) -> Send:
    return Send(wire.ErrorEvent.make(error.message, code=error.code, param=error.param, event_id=error.event_id))
