"""The bot's side of a conversation: responses made, sounding, cut. Sans-I/O.

At most one response is made for the conversation at a time; responses outside of it may be made
beside it. Each has a generation, and everything a chat or speech stream produces names it: once a
generation is stopped, nothing of it is accepted, and once it is cut, nothing of it is heard.

A response whose audio is still being heard stays in `sounding` after it was made, because it can
still be cut, and its item has to keep exactly the words that were heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from media.playout import Heard, PlayoutEvent, PlayoutEventKind
from realtime.adapters.base import ChatEnd, ChatRequest, Message, TextDelta, ToolCallDelta
from realtime.live import wire
from realtime.live.config import ResponseConfig, SessionConfig
from realtime.live.effects import (
    ChatFailed,
    ChatProduced,
    Deliver,
    Effect,
    Record,
    Send,
    SpeechFailed,
    SpeechFinished,
    SpeechProduced,
    Stop,
    StopThinking,
    Think,
)
from realtime.live.items import History, Item
from realtime.live.responses import Phase, Purpose, Response, Status
from realtime.live.wire import Json, WireError, field_path
from realtime.observe.turns import TurnRecord

MAX_ASIDES = 8
"""Responses outside the conversation that may be made at once."""

_ITEM: TypeAdapter[wire.ItemParam] = TypeAdapter(wire.ItemParam)


class CutPlayout(Protocol):
    """What this needs of `media.playout.Playout`."""

    def cut(self, through: int | None = None) -> list[Heard]: ...

    def finish(self, generation: int) -> None: ...

    def heard_ms(self, generation: int) -> float: ...

    @property
    def fading(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Interrupted:
    """What an interruption stopped. `lost`: an answer of which nothing was heard; `unheard`: words cut off."""

    lost: bool = False
    unheard: str = ""


class Rest(str):
    """Words of an answer that a false start cut off."""


class Answering:
    """`on_closed(response, status)`: told, and asked for more effects, when the conversation's response has been made.

    `on_tools(response)`: likewise, when the model has finished a response of the conversation that calls tools.

    `client_plays`: audio is delivered to a program that plays it and says itself what was heard.
    """

    def __init__(
        self,
        config: SessionConfig,
        history: History,
        playout: CutPlayout,
        engines: Mapping[str, str],
        on_closed: Callable[[Response, Status], list[Effect]],
        on_tools: Callable[[Response], list[Effect]],
        *,
        client_plays: bool = False,
    ) -> None:
        self.active: Response | None = None
        """The response being made for the conversation."""
        self.sounding: dict[int, Response] = {}
        self._asides: dict[int, Response] = {}
        self._config = config
        self._history = history
        self._playout = playout
        self._engines = engines
        self._on_closed = on_closed
        self._on_tools = on_tools
        self._client_plays = client_plays
        self._generation = 0
        self._held: dict[int, ResponseConfig] = {}
        """Responses that wait for the caller's words before their model is asked."""
        self._fading: tuple[Response, float] | None = None
        """A response whose end is just leaving, and when it was cut."""

    @property
    def busy(self) -> bool:
        """A response of the conversation is made or heard."""
        return self.active is not None or bool(self.sounding)

    # --- beginning ----------------------------------------------------------------------------

    def respond(
        self, purpose: Purpose, config: ResponseConfig, turn: TurnRecord | None, *, hold: bool = False
    ) -> list[Effect]:
        """Open a response and ask the model; with `hold`, once `release` is called. Raises `WireError`."""
        context = None if config.input is None else self._context(config)
        response = self._open(purpose, config, turn)
        if hold and context is None:
            self._held[response.generation] = config
            return response.open()
        return [*response.open(), self._think(response.generation, config, context)]

    def release(self) -> list[Effect]:
        """The caller's words are there: ask the models that waited for them."""
        held, self._held = self._held, {}
        return [self._think(generation, config, None) for generation, config in held.items()]

    def say(self, text: str) -> list[Effect]:
        """Speak a given text as a response of its own; other calls may say it too, unless it is a `Rest`."""
        config = replace(ResponseConfig.of(self._config, None, None), modality="audio")
        response = self._open(Purpose.FIXED, config, None)
        response.shared = not isinstance(text, Rest)
        return [*response.open(), *response.add_text(text), *response.end_chat(ChatEnd("stop"))]

    def _open(self, purpose: Purpose, config: ResponseConfig, turn: TurnRecord | None) -> Response:
        if not config.in_conversation and len(self._asides) >= MAX_ASIDES:
            raise WireError(
                f"At most {MAX_ASIDES} responses outside the conversation at once.", code="too_many_responses"
            )
        self._generation += 1
        turn = turn or TurnRecord(engines=dict(self._engines))
        history = self._history if config.in_conversation else History()
        response = Response(self._generation, purpose, config, history, turn)
        turn.response_id = response.id
        if config.in_conversation:
            self.active = response
        else:
            self._asides[response.generation] = response
        return response

    def _think(self, generation: int, config: ResponseConfig, context: list[Message] | None) -> Think:
        if context is None:
            context = self._history.messages(config.instructions, self._config.history_tokens)
        request = ChatRequest(
            messages=context,
            tools=config.tools,
            tool_choice=config.tool_choice,
            max_tokens=config.max_output_tokens,
            session=self._config.id,
        )
        return Think(generation, request)

    def _context(self, config: ResponseConfig) -> list[Message]:
        """The messages of `response.input`: items, and references to items of the conversation."""
        own = History()
        for position, given in enumerate(config.input or ()):
            if given.get("type") == "item_reference" or set(given) == {"id"}:
                referred = self._history.get(str(given.get("id")))
                if referred is None:
                    raise WireError(
                        "There is no such item.", code="item_not_found", param=f"response.input[{position}].id"
                    )
                own.append(replace(referred))
                continue
            try:
                where = f"response.input[{position}]"
                own.append(Item.from_param(_ITEM.validate_python(given), sees=self._config.sees, where=where))
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False)[0]
                param = field_path(("response", "input", position, *first["loc"][1:]))
                raise WireError(f"{param}: {first['msg']}", code="invalid_value", param=param) from None
        return own.messages(config.instructions)

    def _current(self, generation: int) -> Response | None:
        if self.active is not None and self.active.generation == generation:
            return self.active
        return self._asides.get(generation)

    # --- what the engines make ----------------------------------------------------------------

    def chat(self, event: ChatProduced, now: float) -> list[Effect]:
        response = self._current(event.generation)
        if response is None or response.phase is not Phase.GENERATING:
            return []
        if response.turn.first_token_at is None:
            response.turn.first_token_at = now
        match event.delta:
            case TextDelta(text, complete):
                effects = response.add_text(text, complete=complete)
                if response.too_long:
                    effects += [StopThinking(response.generation), *self._end_chat(response, ChatEnd("length"))]
                return effects
            case ToolCallDelta():
                return response.add_tool_delta(event.delta)
            case ChatEnd():
                return self._end_chat(response, event.delta)

    def _end_chat(self, response: Response, ending: ChatEnd) -> list[Effect]:
        effects = response.end_chat(ending)
        if response.calls_tools and response.config.in_conversation and ending.finish_reason != "length":
            effects += self._on_tools(response)
        return effects + self._close(response, "completed") if response.voiced else effects

    def speech(self, event: SpeechProduced, now: float) -> list[Effect]:
        response = self._current(event.generation)
        if response is None:
            return []
        self._config.voice_fixed = True
        self.sounding[event.generation] = response
        if response.turn.first_audio_at is None and event.ms:
            response.turn.first_audio_at = now
        response.add_speech(event.clause, event.ms, event.words)
        return [Deliver(**response.part_ids())] if self._client_plays and event.ms else []

    def speech_finished(self, event: SpeechFinished) -> list[Effect]:
        response = self._current(event.generation)
        return self._close(response, "completed") if response else []

    def engine_failed(self, event: ChatFailed | SpeechFailed) -> list[Effect]:
        response = self._current(event.generation)
        if response is None:
            return []
        error = {"type": "server_error", "code": event.code, "message": event.message}
        self._playout.finish(event.generation)  # what was already made may still be heard
        _keep_made(response)
        return [
            Stop(event.generation),
            *self._close(response, "failed", error=error),
            Send(wire.ErrorEvent.make(event.message, code=event.code, kind="server_error")),
        ]

    def _close(
        self, response: Response, status: Status, *, reason: str | None = None, error: Json | None = None
    ) -> list[Effect]:
        self._held.pop(response.generation, None)
        effects = response.close(status, reason=reason, error=error)
        if response.generation not in self.sounding and not self._is_fading(response):
            effects.append(Record(response.turn))
        if self._asides.pop(response.generation, None) is None:
            self.active = None
            effects += self._on_closed(response, status)
        return effects

    # --- what is heard ------------------------------------------------------------------------

    def played(self, event: PlayoutEvent) -> list[Effect]:
        if event.kind is PlayoutEventKind.CUT and self._fading is not None:
            (cut, cut_at), self._fading = self._fading, None
            if cut.turn.barge_in_ms is not None:
                cut.turn.barge_in_ms += (event.at - cut_at) * 1000
            return [Record(cut.turn)]
        response = self.sounding.get(event.generation)
        if response is None:
            return []
        if event.kind is PlayoutEventKind.STARTED:
            response.turn.first_packet_at = event.at
            return [Send(wire.OutputBufferEvent(type="output_audio_buffer.started", response_id=response.id))]
        if event.kind is PlayoutEventKind.DONE:
            del self.sounding[event.generation]
            response.turn.heard_ms = event.heard_ms
            stopped = Send(wire.OutputBufferEvent(type="output_audio_buffer.stopped", response_id=response.id))
            if response.phase is Phase.CLOSED:
                return [stopped, Record(response.turn)]
            return [stopped]
        return []

    def interrupt(self, onset_at: float, now: float) -> tuple[list[Effect], Interrupted]:
        """The caller speaks over the bot: cut it. What was stopped may have to be made good later."""
        target = self.active or next(reversed(self.sounding.values()), None)
        if target is None:
            return [], Interrupted()
        whole = (target.part.text or "") if target.part else ""
        if target.generation in self.sounding:
            target.turn.barge_in_ms = (now - onset_at) * 1000
        effects = self.cut("turn_detected", now)
        heard = (target.part.text or "") if target.part else ""
        if not heard and target.purpose is Purpose.ANSWER:
            return effects, Interrupted(lost=True)
        return effects, Interrupted(unheard=whole[len(heard) :].strip())

    def cut(self, reason: str, now: float) -> list[Effect]:
        """Silence, now: streams closed, playout cut, every item left with what was heard of it.

        Responses outside the conversation that make no sound go on.
        """
        stopped = [response for response in (self.active, *self._asides.values()) if response is not None]
        stopped = [response for response in stopped if response is self.active or response.speaks]
        effects: list[Effect] = [Stop(response.generation) for response in stopped]
        heard = {entry.generation: entry.heard_ms for entry in self._playout.cut(self._generation)}
        sounding, self.sounding = self.sounding, {}
        if sounding and self._playout.fading:
            self._fading = next(iter(sounding.values())), now
        truncated: list[Effect] = []
        for generation, response in sounding.items():
            if response.turn.first_packet_at is not None:
                cleared = wire.OutputBufferEvent(type="output_audio_buffer.cleared", response_id=response.id)
                effects.append(Send(cleared))
            truncated += self._truncate(response, heard.get(generation, self._playout.heard_ms(generation)))
            if response not in stopped and not self._is_fading(response):
                truncated.append(Record(response.turn))
        for response in stopped:
            if response.generation not in sounding:
                truncated += self._truncate(response, 0.0)
            effects += self._close(response, "cancelled", reason=reason)
        return effects + truncated

    def ended(self) -> list[TurnRecord]:
        """The call is over: every item keeps what was heard of it. The turns that were not recorded yet."""
        making = [response for response in (self.active, *self._asides.values()) if response is not None]
        for response in making:
            response.turn.status = "cancelled"
        unrecorded = {response.generation: response for response in (*making, *self.sounding.values())}
        for generation, response in unrecorded.items():
            if not self._client_plays:
                self._truncate(response, self._playout.heard_ms(generation) if generation in self.sounding else 0.0)
        if self._fading is not None:
            unrecorded[self._fading[0].generation] = self._fading[0]
        return [response.turn for response in unrecorded.values()]

    def _is_fading(self, response: Response) -> bool:
        return self._fading is not None and self._fading[0] is response

    def _truncate(self, response: Response, heard_ms: float) -> list[Effect]:
        part, message = response.part, response.message
        if part is None or message is None or not response.speaks:
            return []
        response.turn.heard_ms = heard_ms
        had_audio = part.audio_ms > 0
        part.cut(heard_ms)
        if not had_audio or self._client_plays:
            return []
        return [Send(wire.ItemTruncated(item_id=message.id, content_index=0, audio_end_ms=round(part.audio_ms)))]

    def cancel(self, response_id: str | None) -> list[Effect]:
        """Stop making it. What is already in the caller's line is heard, unless the buffer is cleared too."""
        making = [response for response in (self.active, *self._asides.values()) if response is not None]
        response = next((response for response in making if response.id == response_id), None)
        response = self.active if response_id is None else response
        if response is None:
            raise WireError("There is no such response in progress.", code="response_cancel_not_active")
        self._playout.finish(response.generation)
        _keep_made(response)
        return [Stop(response.generation), *self._close(response, "cancelled", reason="client_cancelled")]


def _keep_made(response: Response) -> None:
    """No more will be spoken: the text is what there is audio for."""
    part = response.part
    if part is not None and response.speaks:
        part.cut(part.audio_ms)
