"""One TOML file and the environment, validated before anything starts.

`Settings` is the validated whole; `load` reads the file and the environment and reports every
mistake with its line and a proposal (`SettingsError`). Secrets are written `env:NAME` or
`file:PATH` and resolved here, once; a resolved secret is a `SecretStr` and never printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

EngineRef = str
"""`embedded`, `instant`, `VENDOR/MODEL`, or the `id` of one of `[[models]]`."""

Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    """`[server]`: where it listens and keeps its data."""

    host: str = "127.0.0.1"
    port: Port = 8080
    public_url: str | None = None
    """How the outside reaches it, when a proxy stands in front."""
    data: Path | None = None
    """Keys, store and files; default: the user's data folder for the app."""


class VendorSettings(Section):
    """`[vendors.NAME]`: an address with an API, and the key for it."""

    kind: Literal["openai"] = "openai"
    """Every OpenAI-compatible address is `openai`."""
    base_url: str | None = None
    key: SecretStr | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    speech_format: Literal["pcm", "wav"] = "pcm"
    """What this address can stream speech as; raw pcm is 24 kHz mono int16."""


class ModelSettings(Section):
    """`[[models]]`: one model of a vendor, by the name used elsewhere in this file."""

    id: str
    vendor: str
    kind: Literal["chat", "stt", "tts"]
    model: str | None = None
    """The vendor's own name for it; default: `id`."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None


class VoiceSettings(Section):
    """`[voices.NAME]`: what a voice name means at an engine."""

    engine: EngineRef | None = None
    voice: str


class TurnDetectionSettings(Section):
    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=50, le=10_000)] = 500
    create_response: bool = True
    interrupt_response: bool = True


class AgentSettings(Section):
    """`[agents.NAME]`: what answers a call."""

    instructions: str = ""
    greeting: str | None = None
    """Said as soon as the caller can hear; none by default."""
    stt: EngineRef | list[EngineRef] | None = None
    chat: EngineRef | list[EngineRef] | None = None
    tts: EngineRef | list[EngineRef] | None = None
    voice: str | None = None
    language: str | None = None
    turn_detection: TurnDetectionSettings = TurnDetectionSettings()
    tools: list[dict[str, Any]] = []
    """OpenAI function tools, answered by the caller's client."""
    locked: list[str] = []
    """Top-level session fields that neither a token's `session` nor `session.update` may change."""
    max_call_seconds: Annotated[float, Field(gt=0)] | None = None


class LiveSettings(Section):
    """`[live]`: the engines of a call; the first of each list is tried first."""

    stt: list[EngineRef] = ["embedded"]
    chat: list[EngineRef] = ["embedded"]
    tts: list[EngineRef] = ["embedded"]


class TokenSettings(Section):
    """`[token]`: how long a token lives when the caller does not say, and who it is for."""

    ttl_seconds: Annotated[int, Field(ge=10, le=3600)] = 300
    issuer: str = "infrai-realtime"
    audience: str = "infrai-realtime"


class IceServer(Section):
    urls: list[str]
    username: str | None = None
    credential: SecretStr | None = None


class IceSettings(Section):
    """`[ice]`: what callers' browsers get as ICE servers. `turn_secret` makes time-limited TURN credentials."""

    servers: list[IceServer] = []
    turn_urls: list[str] = []
    turn_secret: SecretStr | None = None


class NetworkSettings(Section):
    """`[network]`: the UDP side of calls."""

    public_address: str | None = None
    """Address to write into answers when a one-to-one NAT stands in front."""
    udp_ports: str | None = None
    """`50000-50199`; default: any free port."""
    interfaces: list[str] = []
    """Interface names or addresses to use; default: all, and loopback when nothing else is there or the
    server listens on loopback."""


class LimitSettings(Section):
    """`[limits]`: what one process takes on."""

    calls: Annotated[int, Field(ge=1)] = 50
    connect_seconds: Annotated[float, Field(gt=0)] = 15.0
    inactivity_seconds: Annotated[float, Field(gt=0)] = 15.0
    tokens_per_minute: Annotated[int, Field(ge=1)] = 600
    """Tokens minted per API key."""


class Settings(Section):
    server: ServerSettings = ServerSettings()
    agents: dict[str, AgentSettings] = {}
    vendors: dict[str, VendorSettings] = {}
    models: list[ModelSettings] = []
    voices: dict[str, VoiceSettings] = {}
    live: LiveSettings = LiveSettings()
    token: TokenSettings = TokenSettings()
    ice: IceSettings = IceSettings()
    network: NetworkSettings = NetworkSettings()
    limits: LimitSettings = LimitSettings()

    def agent(self, name: str) -> AgentSettings | None:
        """The agent called `name`; `default` exists always."""
        if name == "default":
            return self.agents.get(name, AgentSettings())
        return self.agents.get(name)
