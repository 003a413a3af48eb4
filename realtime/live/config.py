"""The session's configuration: defaults, merge, locks, effective values.

The canonical form is OpenAI Realtime's GA session object, held as plain JSON and always complete, so
that what is reported is what is in force. A change is validated whole before any of it applies; it
never becomes something else silently: a value that cannot be honoured is a `WireError` naming the
field, and a locked field keeps its value and is reported with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from media.endpoint import EndpointSettings
from realtime.adapters.base import Tool, ToolChoice
from realtime.live.agent import ServerTool
from realtime.live.patience import PAUSE_MS
from realtime.live.wire import Json, WireError, field_path
from realtime.settings import AgentSettings

MAX_INSTRUCTIONS = 100_000
MAX_TOOLS = 128
MAX_NAMED = 20
"""Known names listed in an error, at most."""
MAX_INPUT = 200
"""Items that one response may bring as its own context."""


class _Fields(BaseModel):
    """Unknown keys are taken and ignored: clients of other versions send them."""

    model_config = ConfigDict(extra="ignore")


class ServerVad(_Fields):
    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=50, le=10_000)] = 500
    idle_timeout_ms: Annotated[int, Field(ge=5000, le=30_000)] | None = None
    create_response: bool = True
    interrupt_response: bool = True


class SemanticVad(_Fields):
    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection: TypeAlias = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


class PcmFormat(_Fields):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class PcmuFormat(_Fields):
    type: Literal["audio/pcmu"]


class PcmaFormat(_Fields):
    type: Literal["audio/pcma"]


AudioFormat: TypeAlias = Annotated[PcmFormat | PcmuFormat | PcmaFormat, Field(discriminator="type")]


class Transcription(_Fields):
    model: Annotated[str, Field(max_length=256)] | None = None
    language: Annotated[str, Field(max_length=16)] | None = None
    prompt: Annotated[str, Field(max_length=4096)] | None = None
    languages: Annotated[list[Annotated[str, Field(max_length=16)]], Field(max_length=32)] | None = None
    keywords: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=1000)] | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class NoiseReduction(_Fields):
    type: Literal["near_field", "far_field"]
    strength: Annotated[float, Field(ge=0, le=1)] | None = None


class AudioInput(_Fields):
    format: AudioFormat | None = None
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = None


class VoiceId(_Fields):
    id: Annotated[str, Field(max_length=128)]


class AudioOutput(_Fields):
    format: AudioFormat | None = None
    voice: Annotated[str, Field(max_length=128)] | VoiceId | None = None
    speed: Annotated[float, Field(ge=0.25, le=1.5)] = 1.0


class Audio(_Fields):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class FunctionTool(_Fields):
    type: Literal["function"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=10_000)] | None = None
    parameters: Json | None = None


class ChosenTool(_Fields):
    type: Literal["function"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class TokenLimits(_Fields):
    post_instructions: Annotated[int, Field(ge=0, le=1_000_000)]


class Retention(_Fields):
    """Keep the newest `retention_ratio` of what fits once the history exceeds its token limit."""

    type: Literal["retention_ratio"]
    retention_ratio: Annotated[float, Field(gt=0, le=1)]
    token_limits: TokenLimits | None = None


class Reasoning(_Fields):
    effort: Annotated[str, Field(max_length=16)] | None = None


class SessionFields(_Fields):
    """What `session.update`, a token's `session` and a call's `session` may set."""

    type: Literal["realtime", "transcription"] = "realtime"
    model: Annotated[str, Field(max_length=256)] | None = None
    instructions: Annotated[str, Field(max_length=MAX_INSTRUCTIONS)] = ""
    output_modalities: Annotated[list[Literal["audio", "text"]], Field(min_length=1, max_length=1)] = ["audio"]
    audio: Audio = Audio()
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] = []
    tool_choice: Literal["auto", "none", "required"] | ChosenTool = "auto"
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=4096)] | Literal["inf"] = "inf"
    truncation: Literal["auto", "disabled"] | Retention = "auto"
    tracing: Literal["auto"] | Json | None = None
    prompt: Json | None = None
    include: list[Annotated[str, Field(max_length=128)]] | None = None


class ResponseOutput(_Fields):
    format: AudioFormat | None = None
    voice: Annotated[str, Field(max_length=128)] | None = None


class ResponseAudio(_Fields):
    output: ResponseOutput = ResponseOutput()


class ResponseFields(_Fields):
    """What `response.create` may override for one response."""

    instructions: Annotated[str, Field(max_length=MAX_INSTRUCTIONS)] | None = None
    output_modalities: Annotated[list[Literal["audio", "text"]], Field(min_length=1, max_length=1)] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=4096)] | Literal["inf"] | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = None
    audio: ResponseAudio = ResponseAudio()
    conversation: Literal["auto", "none"] | None = None
    input: Annotated[list[Json], Field(max_length=MAX_INPUT)] | None = None
    prompt: Json | None = None


_TURN_DETECTION: Mapping[str, type[ServerVad] | type[SemanticVad]] = {
    "server_vad": ServerVad,
    "semantic_vad": SemanticVad,
}

_FORMATS: Mapping[str, type[PcmFormat] | type[PcmuFormat] | type[PcmaFormat]] = {
    "audio/pcm": PcmFormat,
    "audio/pcmu": PcmuFormat,
    "audio/pcma": PcmaFormat,
}

HISTORY_TOKENS = 24_000
HISTORY_KEPT = 0.8
"""`truncation: auto`: more than this is cut to 80 %, so that the vendor's prompt cache is not missed at every turn."""


def _validated(model: type[BaseModel], data: Mapping[str, Any], prefix: str, event_id: str | None) -> Json:
    try:
        return model.model_validate(data).model_dump(exclude_unset=True)
    except ValidationError as error:
        # Of the forms that a field may have, the one that was understood furthest was meant.
        first = max(error.errors(include_url=False, include_context=False), key=lambda found: len(found["loc"]))
        steps = [step for step in first["loc"] if isinstance(step, int) or not (step[:1].isupper() or "[" in step)]
        if first["type"].startswith("union_tag"):
            steps.append("type")
        param = field_path((prefix, *(step for step in steps if step not in _UNION_ARMS)))
        raise WireError(f"{param}: {first['msg']}", code="invalid_value", param=param, event_id=event_id) from None


def _refuse_prompt(given: Json, prefix: str, event_id: str | None) -> None:
    if given.get("prompt") is not None:
        param = f"{prefix}.prompt"
        raise WireError("Stored prompts are not supported.", code="unsupported_value", param=param, event_id=event_id)


_UNION_ARMS = {
    "int", "str", "constrained-int", "constrained-str",
    "server_vad", "semantic_vad", "audio/pcm", "audio/pcmu", "audio/pcma",
}  # fmt: skip


def _merge(base: Json, change: Json) -> Json:
    """`change` over a copy of `base`: objects deeply, everything else by replacement."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        result[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


@dataclass(slots=True)
class SessionConfig:
    """The effective configuration of one call."""

    id: str
    agent: str
    data: Json
    locked: frozenset[str] = frozenset()
    expires_at: int | None = None
    voices: frozenset[str] = frozenset()
    """Names that a client may give for the voice; empty: any."""
    sees: bool = True
    """The chat model takes images."""
    server_tools: tuple[ServerTool, ...] = ()
    """Tools that run here, whatever tools the client brings; of two with one name this is the one."""
    voice_fixed: bool = field(default=False)
    """Set when the first audio was made: the voice no longer changes."""
    _turn: tuple[Json | None, ServerVad | SemanticVad | None] = (None, None)
    """The turn detection as it was last asked for, and what it says: it is asked for with every 20 ms of audio."""

    @classmethod
    def of_agent(
        cls,
        session_id: str,
        name: str,
        agent: AgentSettings,
        *,
        model: str,
        voice: str,
        tools: list[Json] | None = None,
    ) -> SessionConfig:
        """The defaults of the agent called `name`; `model` and `voice` are the effective names."""
        turn = agent.turn_detection
        data = SessionFields.model_validate(
            {
                "model": model,
                "instructions": agent.instructions,
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": {"language": agent.language},
                        "turn_detection": turn.model_dump(),
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": voice},
                },
                "tools": tools if tools is not None else agent.tools,
            }
        ).model_dump()
        data["audio"]["input"]["transcription"] = {
            key: value for key, value in data["audio"]["input"]["transcription"].items() if value is not None
        }
        return cls(session_id, name, data, frozenset(agent.locked))

    def update(self, change: Mapping[str, Any], event_id: str | None = None, *, prefix: str = "session") -> None:
        """Merge a client's partial session. Raises `WireError`; then nothing has changed."""
        given = _validated(SessionFields, self._typed(change), prefix, event_id)
        if given.get("type", self.kind) != self.kind:
            raise WireError(
                f"This session is of type '{self.kind}'.",
                code="invalid_value",
                param=f"{prefix}.type",
                event_id=event_id,
            )
        _refuse_prompt(given, prefix, event_id)
        for name in self.locked | {"model", "type"}:
            given.pop(name, None)
        audio = given.get("audio", {})
        turn = audio.get("input", {}).get("turn_detection")
        base = self.data
        before = base["audio"]["input"]["turn_detection"]
        if turn is not None and (before is None or before["type"] != turn["type"]):
            audio["input"]["turn_detection"] = _TURN_DETECTION[turn["type"]].model_validate(turn).model_dump()
            base = _merge(base, {"audio": {"input": {"turn_detection": None}}})
        voice = audio.get("output", {}).get("voice")
        if isinstance(voice, dict):
            voice = audio["output"]["voice"] = voice["id"]
        self.require_voice(voice, f"{prefix}.audio.output.voice", event_id)
        if voice is not None and self.voice_fixed and voice != self.voice:
            raise WireError(
                "The voice cannot be changed after the first audio.",
                code="cannot_update_voice",
                param=f"{prefix}.audio.output.voice",
                event_id=event_id,
            )
        if voice is None:
            audio.get("output", {}).pop("voice", None)
        for part in ("input", "output"):
            form = audio.get(part, {}).pop("format", None)  # null means "as before": there always is one
            if form is not None:  # replaced, not merged: a rate belongs to PCM only
                audio[part]["format"] = _FORMATS[form["type"]].model_validate(form).model_dump()
                base = _merge(base, {"audio": {part: {"format": None}}})
        self.data = _merge(base, given)

    def hand_over(self, agent: str, instructions: str, voice: str, tools: tuple[ServerTool, ...]) -> None:
        """Another agent answers: its words, voice and tools, and what the client has set besides."""
        self.agent, self.server_tools = agent, tools
        self.data = _merge(self.data, {"instructions": instructions, "audio": {"output": {"voice": voice}}})

    def require_voice(self, voice: str | None, param: str, event_id: str | None) -> None:
        """Raises `WireError` for a name that no voice goes by."""
        if voice is None or not self.voices or voice in self.voices:
            return
        known = ", ".join(sorted(self.voices)[:MAX_NAMED])
        message = f"There is no voice '{voice[:64]}'. Known: {known}."
        raise WireError(message, code="invalid_value", param=param, event_id=event_id)

    def _typed(self, change: Mapping[str, Any]) -> Mapping[str, Any]:
        """A turn detection given without its type is of the type that is in force."""
        try:
            turn = change["audio"]["input"]["turn_detection"]
            missing = "type" not in turn
        except (KeyError, TypeError):
            return change
        if not missing or not isinstance(turn, dict):
            return change
        now = self.data["audio"]["input"]["turn_detection"] or {"type": "server_vad"}
        turn = turn | {"type": now["type"]}
        return {**change, "audio": {**change["audio"], "input": {**change["audio"]["input"], "turn_detection": turn}}}

    @property
    def kind(self) -> str:
        """`realtime` or `transcription`; fixed when the session begins."""
        return str(self.data["type"])

    @property
    def instructions(self) -> str:
        return str(self.data["instructions"])

    @property
    def voice(self) -> str:
        return str(self.data["audio"]["output"]["voice"])

    @property
    def speed(self) -> float:
        return float(self.data["audio"]["output"]["speed"])

    @property
    def shows_transcripts(self) -> bool:
        """Whether the client wants events of the caller's words; `audio.input.transcription: null` means not."""
        return self.data["audio"]["input"]["transcription"] is not None

    @property
    def language(self) -> str | None:
        transcription = self.data["audio"]["input"]["transcription"] or {}
        language = transcription.get("language")
        return str(language) if language else None

    @property
    def transcription_prompt(self) -> str | None:
        transcription = self.data["audio"]["input"]["transcription"] or {}
        prompt = transcription.get("prompt")
        return str(prompt) if prompt else None

    @property
    def turn_detection(self) -> ServerVad | SemanticVad | None:
        turn = self.data["audio"]["input"]["turn_detection"]
        if turn is not self._turn[0]:
            self._turn = turn, None if turn is None else _TURN_DETECTION[turn["type"]].model_validate(turn)
        return self._turn[1]

    @property
    def endpoint(self) -> EndpointSettings | None:
        match self.turn_detection:
            case ServerVad() as turn:
                return EndpointSettings(turn.threshold, turn.prefix_padding_ms, turn.silence_duration_ms)
            case SemanticVad():
                return EndpointSettings(silence_duration_ms=PAUSE_MS)
            case None:
                return None

    @property
    def creates_responses(self) -> bool:
        """Whether the end of a turn is answered without being asked."""
        turn = self.turn_detection
        return self.kind == "realtime" and turn is not None and turn.create_response

    def audio_format(self, direction: Literal["input", "output"]) -> str:
        return str(self.data["audio"][direction]["format"]["type"])

    @property
    def history_tokens(self) -> tuple[int, float] | None:
        """(limit, share kept) of the history's estimated tokens; None for no limit."""
        truncation = self.data["truncation"]
        if truncation == "disabled":
            return None
        if truncation == "auto":
            return HISTORY_TOKENS, HISTORY_KEPT
        limits = truncation.get("token_limits")
        return (limits["post_instructions"] if limits else HISTORY_TOKENS), truncation["retention_ratio"]

    def includes(self, what: str) -> bool:
        return what in (self.data["include"] or [])

    def to_wire(self) -> Json:
        """The whole effective session, as `session.created` and `session.updated` carry it."""
        extra: Json = {"id": self.id, "object": "realtime.session"}
        if self.expires_at is not None:
            extra["expires_at"] = self.expires_at
        data = copy.deepcopy(self.data)
        if self.kind == "realtime":
            return extra | data
        extra["object"] = "realtime.transcription_session"
        return extra | {"type": self.kind, "audio": {"input": data["audio"]["input"]}, "include": data["include"]}


@dataclass(frozen=True, slots=True)
class ResponseConfig:
    """The session's values with one `response.create`'s overrides."""

    instructions: str
    modality: Literal["audio", "text"]
    tools: tuple[Tool, ...]
    tool_choice: ToolChoice
    max_output_tokens: int | None
    metadata: Json | None
    voice: str
    speed: float
    output_format: Json
    in_conversation: bool = True
    input: tuple[Json, ...] | None = None
    """The response's own context, instead of the history; None: the history."""

    @classmethod
    def of(cls, session: SessionConfig, change: Mapping[str, Any] | None, event_id: str | None) -> ResponseConfig:
        """Raises `WireError` naming the field of `response` that is wrong or not supported."""
        given = _validated(ResponseFields, change or {}, "response", event_id)
        _refuse_prompt(given, "response", event_id)
        values = session.data | {key: value for key, value in given.items() if value is not None}
        limit = values["max_output_tokens"]
        choice = values["tool_choice"]
        output = given.get("audio", {}).get("output", {})
        session.require_voice(output.get("voice"), "response.audio.output.voice", event_id)
        output_format = session.data["audio"]["output"]["format"]
        if (output.get("format") or output_format)["type"] != output_format["type"]:
            raise WireError(
                "The format of the audio is the session's.",
                code="unsupported_value",
                param="response.audio.output.format",
                event_id=event_id,
            )
        in_conversation = given.get("conversation") != "none"
        own = [server.tool for server in session.server_tools] if in_conversation else []
        names = {tool.name for tool in own}
        brought = [
            Tool(tool["name"], tool.get("description") or "", tool.get("parameters") or {})
            for tool in values["tools"]
            if tool["name"] not in names
        ]
        return cls(
            instructions=values["instructions"],
            modality=values["output_modalities"][0],
            tools=(*own, *brought),
            tool_choice=f"tool:{choice['name']}" if isinstance(choice, dict) else choice,
            max_output_tokens=None if limit == "inf" else limit,
            metadata=given.get("metadata"),
            voice=output.get("voice") or session.voice,
            speed=session.speed,
            output_format=output_format,
            in_conversation=in_conversation,
            input=None if given.get("input") is None else tuple(given["input"]),
        )
