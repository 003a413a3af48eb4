"""OpenAI Realtime (GA) events as pydantic models, both directions.

Client events are parsed here and nowhere else: `parse` turns one message into a typed event or a `WireError` naming the
field. Server events are models whose *set* fields are what goes out (`serialise`), since clients tell a missing field
from a null one. Shapes: openai-python 3.54 `types/realtime`, and the schemas inside @openai/agents-realtime 0.20.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_ID = 128
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Json: TypeAlias = dict[str, Any]


def new_id(prefix: str) -> str:
    """`prefix` and 21 random characters, for events, items and responses."""
    return f"{prefix}_{secrets.token_urlsafe(16)[:21]}"


class WireError(Exception):
    """A client message that cannot be taken. Becomes one `error` event; the call goes on."""

    def __init__(self, message: str, *, code: str, param: str | None = None, event_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.event_id = event_id


# --- client -> server -------------------------------------------------------------------------


class ClientEvent(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    event_id: Annotated[str, Field(max_length=512)] | None = None


class SessionUpdate(ClientEvent):
    type: Literal["session.update"]
    session: Json


class InputAudioBufferAppend(ClientEvent):
    type: Literal["input_audio_buffer.append"]
    audio: str


class InputAudioBufferCommit(ClientEvent):
    type: Literal["input_audio_buffer.commit"]


class InputAudioBufferClear(ClientEvent):
    type: Literal["input_audio_buffer.clear"]


class OutputAudioBufferClear(ClientEvent):
    type: Literal["output_audio_buffer.clear"]


class RecordingControl(ClientEvent):
    type: Literal["realtime.recording.pause", "realtime.recording.resume"]


class InputText(BaseModel):
    type: Literal["input_text"]
    text: Annotated[str, Field(max_length=200_000)]


class InputAudio(BaseModel):
    type: Literal["input_audio"]
    audio: str | None = None
    transcript: str | None = None


class InputImage(BaseModel):
    type: Literal["input_image"]
    image_url: Annotated[str, Field(max_length=8_000_000, pattern=r"^(https?://|data:image/)")]
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(BaseModel):
    type: Literal["output_text", "text"]
    text: Annotated[str, Field(max_length=200_000)]


class OutputAudio(BaseModel):
    type: Literal["output_audio", "audio"]
    audio: str | None = None
    transcript: str | None = None


ContentPart = Annotated[InputText | InputAudio | InputImage | OutputText | OutputAudio, Field(discriminator="type")]


class MessageItem(BaseModel):
    type: Literal["message"]
    id: Id | None = None
    role: Literal["system", "user", "assistant"]
    content: Annotated[list[ContentPart], Field(max_length=64)]
    status: str | None = None


class FunctionCallItem(BaseModel):
    type: Literal["function_call"]
    id: Id | None = None
    call_id: Id | None = None
    name: Id
    arguments: Annotated[str, Field(max_length=200_000)]


class FunctionCallOutputItem(BaseModel):
    type: Literal["function_call_output"]
    id: Id | None = None
    call_id: Id
    output: Annotated[str, Field(max_length=200_000)]


ItemParam = Annotated[MessageItem | FunctionCallItem | FunctionCallOutputItem, Field(discriminator="type")]


class ItemCreate(ClientEvent):
    type: Literal["conversation.item.create"]
    item: ItemParam
    previous_item_id: Id | None = None


class ItemRetrieve(ClientEvent):
    type: Literal["conversation.item.retrieve"]
    item_id: Id


class ItemTruncate(ClientEvent):
    type: Literal["conversation.item.truncate"]
    item_id: Id
    content_index: Annotated[int, Field(ge=0)] = 0
    audio_end_ms: Annotated[int, Field(ge=0, le=2**31)]


class ItemDelete(ClientEvent):
    type: Literal["conversation.item.delete"]
    item_id: Id


class ResponseCreate(ClientEvent):
    type: Literal["response.create"]
    response: Json | None = None


class ResponseCancel(ClientEvent):
    type: Literal["response.cancel"]
    response_id: Id | None = None


AnyClientEvent: TypeAlias = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | OutputAudioBufferClear
    | RecordingControl
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
)

_CLIENT_EVENTS: TypeAdapter[AnyClientEvent] = TypeAdapter(Annotated[AnyClientEvent, Field(discriminator="type")])


LONG = 1 << 18
"""Characters from which on audio is taken out of a message before it is parsed: 20 MiB would take 20 ms."""

MAX_EVENT = 9 << 20
"""Characters of a message without its appended audio: an image of 8,000,000 and some words."""

_MARK = secrets.token_hex(8)
"""Stands where the audio was. Nobody outside knows it."""

_AUDIO = re.compile(r'"audio"\s*:\s*"')
_HEAD = 2048
"""Characters of a long message within which its audio begins, if it is an append at all."""


def parse(text: str) -> AnyClientEvent:
    """One client message. Raises `WireError` (`invalid_json`, `unknown_event`, `invalid_value`, `event_too_large`)."""
    data = _long(text) if len(text) > LONG else _loaded(text)
    raw_id = data.get("event_id")
    event_id = raw_id if isinstance(raw_id, str) and len(raw_id) <= 512 else None
    try:
        return _CLIENT_EVENTS.validate_python(data)
    except ValidationError as error:
        raise _wire_error(error, data, event_id) from None


def _loaded(text: str) -> Json:
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise WireError("The message is not JSON.", code="invalid_json") from error
    if not isinstance(data, dict):
        raise WireError("An event is a JSON object.", code="invalid_json")
    return data


def _long(text: str) -> Json:
    """A long message; of an append only what is not audio is parsed."""
    found = _AUDIO.search(text, 0, _HEAD)
    end = -1 if found is None else text.find('"', found.end())
    if found is not None and end >= 0 and text.find("\\", found.end(), end) < 0:
        rest = text[: found.end()] + _MARK + text[end:]
        if len(rest) <= LONG and (data := _loaded(rest)).get("audio") == _MARK:
            return data | {"audio": text[found.end() : end]}
    if len(text) > MAX_EVENT:
        raise WireError(f"An event without appended audio has at most {MAX_EVENT} characters.", code="event_too_large")
    return _loaded(text)


def _wire_error(error: ValidationError, data: Mapping[str, Any], event_id: str | None) -> WireError:
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found") and not first["loc"]:
        kind = data.get("type")
        shown = repr(kind[:64]) if isinstance(kind, str) else "missing"
        return WireError(f"Unknown event type: {shown}.", code="unknown_event", param="type", event_id=event_id)
    param = field_path(first["loc"][1:])
    return WireError(f"{param}: {first['msg']}", code="invalid_value", param=param, event_id=event_id)


_TAGS = {"message", "function_call", "function_call_output"} | {
    "input_text", "input_audio", "input_image", "output_text", "output_audio", "text", "audio",
}  # fmt: skip


def field_path(loc: tuple[int | str, ...]) -> str:
    """A pydantic location as a client would write it: `item.content[0].text`, without union tags."""
    path = ""
    for position, step in enumerate(loc):
        if isinstance(step, int):
            path += f"[{step}]"
        elif step in _TAGS and position > 0 and (isinstance(loc[position - 1], int) or loc[position - 1] == "item"):
            continue
        else:
            path += f".{step}" if path else step
    return path or "type"


# --- server -> client -------------------------------------------------------------------------


class ServerEvent(BaseModel):
    """Fields that were set are sent, null included; fields that were not are left out."""

    type: str
    event_id: str = Field(default_factory=lambda: new_id("event"))

    def serialise(self) -> str:
        data = self.model_dump(exclude_unset=True)
        data["type"] = self.type
        data["event_id"] = self.event_id
        return orjson.dumps(data).decode()


class SessionCreated(ServerEvent):
    type: Literal["session.created"] = "session.created"
    session: Json


class SessionUpdated(ServerEvent):
    type: Literal["session.updated"] = "session.updated"
    session: Json


class SpeechStartedEvent(ServerEvent):
    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    item_id: str
    audio_start_ms: int


class SpeechStoppedEvent(ServerEvent):
    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    item_id: str
    audio_end_ms: int


class Committed(ServerEvent):
    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    item_id: str
    previous_item_id: str | None


class Cleared(ServerEvent):
    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class TimeoutTriggered(ServerEvent):
    type: Literal["input_audio_buffer.timeout_triggered"] = "input_audio_buffer.timeout_triggered"
    item_id: str
    audio_start_ms: int
    audio_end_ms: int


class ItemAdded(ServerEvent):
    type: Literal["conversation.item.added"] = "conversation.item.added"
    item: Json
    previous_item_id: str | None


class ItemDone(ServerEvent):
    type: Literal["conversation.item.done"] = "conversation.item.done"
    item: Json
    previous_item_id: str | None


class ItemRetrieved(ServerEvent):
    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: Json


class ItemDeleted(ServerEvent):
    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class ItemTruncated(ServerEvent):
    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


class TranscriptionDelta(ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    item_id: str
    content_index: int
    delta: str


class TranscriptionCompleted(ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    item_id: str
    content_index: int
    transcript: str
    usage: Json


class TranscriptionFailed(ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    item_id: str
    content_index: int
    error: Json


class ResponseCreated(ServerEvent):
    type: Literal["response.created"] = "response.created"
    response: Json


class ResponseDone(ServerEvent):
    type: Literal["response.done"] = "response.done"
    response: Json


class OutputItemEvent(ServerEvent):
    type: Literal["response.output_item.added", "response.output_item.done"]
    response_id: str
    output_index: int
    item: Json


class ContentPartEvent(ServerEvent):
    type: Literal["response.content_part.added", "response.content_part.done"]
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: Json


class DeltaEvent(ServerEvent):
    """Text, transcript or audio of one content part."""

    type: Literal[
        "response.output_text.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
    ]
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


class PartDone(ServerEvent):
    """The end of one content part's text (`text`), transcript (`transcript`) or audio (neither)."""

    type: Literal[
        "response.output_text.done",
        "response.output_audio_transcript.done",
        "response.output_audio.done",
    ]
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    text: str = ""
    transcript: str = ""


class ArgumentsDelta(ServerEvent):
    type: Literal["response.function_call_arguments.delta"] = "response.function_call_arguments.delta"
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str


class ArgumentsDone(ServerEvent):
    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    name: str
    arguments: str


class OutputBufferEvent(ServerEvent):
    type: Literal["output_audio_buffer.started", "output_audio_buffer.stopped", "output_audio_buffer.cleared"]
    response_id: str


class ErrorEvent(ServerEvent):
    type: Literal["error"] = "error"
    error: Json

    @classmethod
    def make(
        cls,
        message: str,
        *,
        code: str,
        kind: Literal["invalid_request_error", "server_error"] = "invalid_request_error",
        param: str | None = None,
        event_id: str | None = None,
    ) -> ErrorEvent:
        """`event_id`: the client event that caused it."""
        return cls(error={"type": kind, "code": code, "message": message, "param": param, "event_id": event_id})


class PartialTranscript(ServerEvent):
    """Ours: the caller's words as they come, when `session.include` asks for it. `text` replaces the last."""

    type: Literal["realtime.input_transcript.partial"] = "realtime.input_transcript.partial"
    item_id: str
    text: str


class TurnMetrics(ServerEvent):
    """Ours: one record a turn, when `session.include` asks for `realtime.turn.metrics`."""

    type: Literal["realtime.turn.metrics"] = "realtime.turn.metrics"
    response_id: str | None
    metrics: Json


class KeyPressed(ServerEvent):
    """The caller pressed a key of the telephone. OpenAI's has no `event_id`."""

    type: Literal["input_audio_buffer.dtmf_event_received"] = "input_audio_buffer.dtmf_event_received"
    event: str
    received_at: int

    def serialise(self) -> str:
        return orjson.dumps({"type": self.type, "event": self.event, "received_at": self.received_at}).decode()


class CallEnding(ServerEvent):
    """Ours: the server is about to end the call, and why, when `session.include` asks for `realtime.call.ending`."""

    type: Literal["realtime.call.ending"] = "realtime.call.ending"
    reason: str
