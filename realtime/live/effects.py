"""What the conversation is told, and what it asks for. Plain data, no behaviour.

Inputs go into `Conversation.handle(event, now)`; effects come out of it and are carried out by
`session.py`, in order. `generation` names one response's chat and speech streams: an input of a
generation that was stopped is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from media.endpoint import EndpointSettings, SpeechStarted, SpeechStopped
from media.playout import PlayoutEvent
from realtime.adapters.base import ChatDelta, ChatRequest, ToolCall, Word
from realtime.live.agent import ServerTool
from realtime.live.wire import AnyClientEvent, ServerEvent, WireError
from realtime.observe.turns import TurnRecord

# --- inputs -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioOpened:
    """The caller can hear."""


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """A client event, or why one could not be taken. `position_ms`: media time at which it came."""

    event: AnyClientEvent | WireError
    position_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class TranscriptHeard:
    """`text` replaces what was heard of the item so far. `spoken`: False for a notice about the audio."""

    item_id: str
    text: str
    final: bool
    spoken: bool = True


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    item_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ChatProduced:
    generation: int
    delta: ChatDelta


@dataclass(frozen=True, slots=True)
class ChatFailed:
    generation: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class SpeechProduced:
    """`ms` of audio of clause `clause` was pushed to the playout; `words` became known with it."""

    generation: int
    clause: int
    ms: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class SpeechFinished:
    """Every clause of the generation has been pushed and the playout was told so."""

    generation: int


@dataclass(frozen=True, slots=True)
class SpeechFailed:
    generation: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AudioArrived:
    """Audio came and nobody collects it yet; it begins at `position_ms` of media time."""

    position_ms: float


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A tool that ran here has finished, failed or timed out; `output` is what the model reads of it."""

    call_id: str
    output: str


@dataclass(frozen=True, slots=True)
class SayText:
    """The agent's own code has something said, after what is being made."""

    text: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """The agent ends the call: at once, or when what it says has been heard."""

    reason: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class HandOver:
    """Another agent answers from here on.

    `note`: what it is told of the call so far, instead of every word of it. It begins with `greeting`, which is
    then all that is said until the caller answers, and without one by answering. `by`: the call id of the tool that
    hands over, about whose result nothing more is said then.
    """

    agent: str
    instructions: str
    voice: str
    tools: tuple[ServerTool, ...]
    note: str | None = None
    greeting: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class KeysPressed:
    """The caller has typed this on the telephone, and means it as a turn."""

    keys: str


@dataclass(frozen=True, slots=True)
class WhenQuiet:
    """The agent wants to know (`IsQuiet`) when nothing is being said; `token` is its own."""

    token: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The conversation's deadline has come."""


Input: TypeAlias = (
    AudioOpened
    | ClientMessage
    | SpeechStarted
    | SpeechStopped
    | TranscriptHeard
    | TranscriptFailed
    | ChatProduced
    | ChatFailed
    | SpeechProduced
    | SpeechFinished
    | SpeechFailed
    | PlayoutEvent
    | AudioArrived
    | ToolReturned
    | SayText
    | HangUp
    | HandOver
    | KeysPressed
    | WhenQuiet
    | Tick
)

# --- effects ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    event: ServerEvent


@dataclass(frozen=True, slots=True)
class Listen:
    """Open a transcription for the item; its audio begins at `from_ms` of media time."""

    item_id: str
    from_ms: int


@dataclass(frozen=True, slots=True)
class EndListening:
    """The item's audio is complete: its final transcript is due."""

    item_id: str


@dataclass(frozen=True, slots=True)
class DropListening:
    """Nobody wants the item's words any more."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Find the words of an item that the client brought with its sound (base64 in the input format)."""

    item_id: str
    audio: str


@dataclass(frozen=True, slots=True)
class ResetDetector:
    """Forget speech under way."""


@dataclass(frozen=True, slots=True)
class Think:
    """Open the chat stream of a generation."""

    generation: int
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Speak:
    """Speak one clause, after the earlier ones of the generation."""

    generation: int
    clause: int
    text: str
    voice: str
    speed: float
    shared: bool
    """Other calls say the same."""


@dataclass(frozen=True, slots=True)
class FinishSpeaking:
    """No more clauses come for the generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Close the chat and speech streams of the generation, now."""

    generation: int


@dataclass(frozen=True, slots=True)
class StopThinking:
    """Close the chat stream of the generation; what it said goes on being spoken."""

    generation: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send the audio that `SpeechProduced` was just told of to a client that plays for itself."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int


@dataclass(frozen=True, slots=True)
class Configure:
    """The settings changed: of the turn detector (None turns it off), and the audio formats (`audio/pcm` …)."""

    endpoint: EndpointSettings | None
    input_format: str
    output_format: str


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool here; asked for once for a call id. `ToolReturned` is due."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class CancelTool:
    """The result of the call is not waited for any more."""

    call_id: str


@dataclass(frozen=True, slots=True)
class UserIdle:
    """Nobody has said anything for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class IsQuiet:
    """Nothing is being said now."""

    token: str


@dataclass(frozen=True, slots=True)
class EndCall:
    """Hang up, now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """A turn is over; this is its record."""

    turn: TurnRecord


Effect: TypeAlias = (
    Send
    | Listen
    | EndListening
    | DropListening
    | Transcribe
    | ResetDetector
    | Think
    | Speak
    | FinishSpeaking
    | Stop
    | StopThinking
    | Deliver
    | Configure
    | RunTool
    | CancelTool
    | UserIdle
    | IsQuiet
    | EndCall
    | Record
)
