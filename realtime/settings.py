"""One TOML file and the environment, validated before anything starts.

`Settings` is the validated whole; `load` reads the file and the environment and reports every
mistake with its line and a proposal (`SettingsError`). Secrets are written `env:NAME` or
`file:PATH` and resolved here, once; a resolved secret is a `SecretStr` and never printed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from realtime.mistakes import Finding, Mistake, SettingsError, findings, spell
from realtime.settings_checks import check_references
from realtime.settings_limits import LimitSettings
from realtime.settings_tools import AgentTools
from realtime.settings_types import (
    PYTHON,
    Capability,
    DataPath,
    EngineRef,
    EngineRefs,
    HttpUrl,
    IceUrl,
    IpAddress,
    IpNetwork,
    LockableField,
    Name,
    Port,
    RouteName,
    Secret,
    Source,
    Task,
    TurnUrl,
    UdpPorts,
    VariableName,
    VendorKind,
    WebhookEvent,
    WebhookSecret,
    as_list,
)
from realtime.toml_lines import KeyPath, line_of, locate
from token_service import ice as token_ice
from token_service.ice import IceConfig

__all__ = ["PYTHON", "EngineRef", "LimitSettings", "Mistake", "Settings", "SettingsError", "data_folder", "load"]

MAX_FILE_BYTES = 1 << 20
"""A settings file is written by hand; more than this is some other file."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    """`[server]`: where it listens and keeps its data."""

    host: str = "127.0.0.1"
    port: Port = 8080
    public_url: HttpUrl | None = None
    """How the outside reaches it, when a proxy stands in front."""
    trusted_proxies: list[IpNetwork] = ["127.0.0.1", "::1"]
    """Who may say in X-Forwarded-For, -Proto and -Host where a request really came from and went to."""
    data: DataPath | None = None
    """Keys, store and files; default: the user's data folder for the app."""
    api_key: Secret | None = None
    """One key with every scope, beside those in the store; for development and tests."""


class VendorSettings(Section):
    """`[vendors.NAME]`: an address with an API, and the key for it; or engines of the user's own."""

    kind: VendorKind = "openai"
    """Every OpenAI-compatible address is `openai`; `python:module:Class` is a class of the user's own."""
    base_url: HttpUrl | None = None
    key: Secret | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    speech_format: Literal["pcm", "wav"] = "pcm"
    """What this address can stream speech as; raw pcm is 24 kHz mono int16."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    """What this address calls the limit of an answer; default: the newer name at OpenAI itself."""
    stream_usage: bool = True
    """Whether it may be asked to count the tokens of a stream (`stream_options`)."""
    transcription_format: Literal["verbose_json", "json"] = "verbose_json"
    """What it can answer recordings with; `json` has no times."""
    batches: bool | None = None
    """Whether it has the batch interface of its kind; default: the vendor's own address does."""
    options: dict[str, Any] = {}
    """For a class of the user's own: what its constructor gets by name."""

    @property
    def is_custom(self) -> bool:
        return self.kind.startswith(PYTHON)


Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""US dollars. The names of prices are LiteLLM's, so that its public price list can be copied from."""


class ModelSettings(Section):
    """`[[models]]`: one model of a vendor, by the name used elsewhere in this file."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    vendor: str
    kind: Literal["chat", "stt", "tts", "embed", "image"]
    model: str | None = None
    """The vendor's own name for it; default: `id`."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    quality: dict[Task, Annotated[float, Field(ge=0, le=100)]] = {}
    """How good it is for what, of 100; what is not named counts as `general`."""
    caps: list[Capability] | None = None
    """What it can do; default: everything its kind may."""
    max_context: Annotated[int, Field(ge=1)] | None = None
    """Tokens, in and out together."""
    input_cost_per_token: Price | None = None
    output_cost_per_token: Price | None = None
    cache_read_input_token_cost: Price | None = None
    input_cost_per_token_batches: Price | None = None
    output_cost_per_token_batches: Price | None = None
    input_cost_per_second: Price | None = None
    input_cost_per_character: Price | None = None
    output_cost_per_image: Price | None = None


class RouteSettings(Section):
    """`[routes.TASK]`: models in the order in which they are tried, instead of by quality and price."""

    balanced: EngineRefs | None = None
    cheapest: EngineRefs | None = None
    smartest: EngineRefs | None = None


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


class WebhookSettings(Section):
    """`[webhooks]`, and under an agent what differs for its calls."""

    url: HttpUrl | None = None
    secret: WebhookSecret | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=30)] | None = None
    """For one try; 5 by default."""
    events: list[WebhookEvent] | None = None
    """What is told; everything by default."""


class RecordingSettings(Section):
    """`[agents.NAME] recording`: `true`, or a table of what differs from the defaults."""

    announcement: str | None = None
    """Said before the greeting."""
    retain_seconds: Annotated[float, Field(ge=60, le=10 * 366 * 86_400)] = 30 * 86_400.0
    by_caller: bool = False
    """The caller's own client may pause and resume."""


def _recording(value: Any) -> Any:
    return {True: {}, False: None}.get(value, value) if isinstance(value, bool) else value


class AgentSettings(Section, AgentTools):
    """`[agents.NAME]`: what answers a call."""

    instructions: str = ""
    greeting: str | None = None
    """Said as soon as the caller can hear; none by default."""
    filler: str | None = None
    """Said, once, when a tool keeps the caller waiting."""
    filler_after_ms: Annotated[int, Field(ge=200, le=60_000)] = 1500
    stt: EngineRefs | None = None
    chat: EngineRefs | None = None
    tts: EngineRefs | None = None
    voice: str | None = None
    language: str | None = None
    turn_detection: TurnDetectionSettings = TurnDetectionSettings()
    echo_guard: bool = True
    """The bot's own voice coming back over WebRTC does not interrupt it."""
    variables: Annotated[dict[VariableName, str], Field(max_length=64)] = {}
    """What `{{name}}` stands for in instructions and greeting, where a call brings nothing else."""
    locked: list[LockableField] = []
    """Top-level session fields that neither a token's `session` nor `session.update` may change."""
    max_call_seconds: Annotated[float, Field(gt=0)] | None = None
    recording: Annotated[RecordingSettings | None, BeforeValidator(_recording)] = None
    webhooks: WebhookSettings = WebhookSettings()

    @property
    def turn_function(self) -> str | None:
        """`module:function` of the developer's own that answers the turns."""
        refs = self.chat or ()
        return next((ref.removeprefix(PYTHON) for ref in refs if ref.startswith(PYTHON)), None)


class LiveSettings(Section):
    """`[live]`: the engines of a call; the first of each list is tried first."""

    stt: EngineRefs = ["embedded"]
    chat: EngineRefs = ["embedded"]
    tts: EngineRefs = ["embedded"]


class TokenSettings(Section):
    """`[token]`: how long a token lives when the caller does not say, and who it is for."""

    ttl_seconds: Annotated[int, Field(ge=10, le=3600)] = 300
    issuer: str = "infrai-realtime"
    audience: str = "infrai-realtime"


class IceServer(Section):
    urls: Annotated[list[IceUrl], BeforeValidator(as_list), Field(min_length=1)]
    username: str | None = None
    credential: Secret | None = None


class IceSettings(Section):
    """`[ice]`: what callers' browsers get as ICE servers. `turn_secret` makes time-limited TURN credentials."""

    servers: list[IceServer] = []
    turn_urls: list[TurnUrl] = []
    turn_secret: Secret | None = None

    def config(self) -> IceConfig:
        """The same in the words of `token_service`, which hands it out."""
        servers = [
            token_ice.IceServer(
                server.urls, server.username, server.credential.get_secret_value() if server.credential else None
            )
            for server in self.servers
        ]
        secret = self.turn_secret.get_secret_value() if self.turn_secret else None
        return IceConfig(servers, self.turn_urls, secret)


class NetworkSettings(Section):
    """`[network]`: the UDP side of calls."""

    public_address: IpAddress | None = None
    """Address to write into answers when a one-to-one NAT stands in front."""
    udp_ports: UdpPorts | None = None
    """`50000-50199`; default: any free port."""
    interfaces: list[str] = []
    """Interface names or addresses to use; default: all, and loopback when nothing else is there or the
    server listens on loopback."""


class TelephonySettings(Section):
    """`[telephony.NAME]`: a carrier, or a number of one, whose calls come here."""

    carrier: str | None = None
    """Which protocol it speaks; default: NAME."""
    secret: Secret | None = None
    """What the carrier signs with: Twilio's auth token, Telnyx's public key, Vonage's signature secret; for a PBX
    the password of its socket."""
    api_key: Secret | None = None
    """For the carrier's own interface (transfers), where that is another one than `secret`."""
    api_url: HttpUrl | None = None
    """In place of the carrier's own address of that interface."""
    agent: str = "default"
    numbers: dict[str, str] = {}
    """The agent by the dialled number, where it is not `agent`."""
    greeting: str | None = None
    """In place of the agent's."""
    codec: str | None = None
    """How audio travels, where the carrier leaves the choice; default: its best."""
    socket_signature: Literal["required", "if-present"] = "required"
    """`if-present`: where a proxy or a simulator drops it; the one-time token still guards."""
    silence_seconds: Annotated[float, Field(ge=5)] | None = 120.0
    """When neither side has said anything for so long, the call is ended."""


class FilesSettings(Section):
    """`[files]`: an S3-compatible bucket for made speech and pictures, instead of the data folder."""

    bucket: Annotated[str, Field(min_length=3, max_length=255)]
    endpoint: HttpUrl | None = None
    """As callers reach it, since they get URLs of it; default: AWS."""
    region: str = "us-east-1"
    key: Secret | None = None
    """Access key id; without it the environment, a profile's web identity or the machine's role, as AWS has it."""
    secret: Secret | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _pair(self) -> FilesSettings:
        if (self.key is None) != (self.secret is None):
            raise ValueError("give `key` and `secret`, or neither")
        return self


class Settings(Section):
    server: ServerSettings = ServerSettings()
    files: FilesSettings | None = None
    agents: dict[Name, AgentSettings] = {}
    vendors: dict[Name, VendorSettings] = {}
    models: list[ModelSettings] = []
    routes: dict[RouteName, RouteSettings] = {}
    voices: dict[Name, VoiceSettings] = {}
    live: LiveSettings = LiveSettings()
    token: TokenSettings = TokenSettings()
    ice: IceSettings = IceSettings()
    network: NetworkSettings = NetworkSettings()
    limits: LimitSettings = LimitSettings()
    telephony: dict[Name, TelephonySettings] = {}
    webhooks: WebhookSettings = WebhookSettings()

    def route(self, task: str) -> RouteSettings | None:
        """The explicit orders for `task`, if there are any."""
        return next((route for name, route in self.routes.items() if name == task), None)

    def agent(self, name: str) -> AgentSettings | None:
        """The agent called `name`; `default` exists always."""
        if name == "default":
            return self.agents.get(name, AgentSettings())
        return self.agents.get(name)


# --- loading ----------------------------------------------------------------------------------

ENVIRONMENT: Mapping[str, tuple[str, str]] = {
    "REALTIME_HOST": ("server", "host"),
    "REALTIME_PORT": ("server", "port"),
    "REALTIME_DATA": ("server", "data"),
    "REALTIME_PUBLIC_URL": ("server", "public_url"),
    "REALTIME_API_KEY": ("server", "api_key"),
    "REALTIME_PUBLIC_ADDRESS": ("network", "public_address"),
    "REALTIME_UDP_PORTS": ("network", "udp_ports"),
}
"""What each variable overrides. An empty variable counts as unset."""


def load(
    path: Path | None = None, environ: Mapping[str, str] | None = None, *, agents: Collection[str] | None = ()
) -> Settings:
    """The validated settings out of `path` (else `REALTIME_CONFIG`, else no file) and the environment.

    `agents`: names of the developer's own, which the file may use; None when they are not known here. Raises
    `SettingsError` with every mistake that was found. Nothing else is read or written but the files that
    `file:PATH` secrets name.
    """
    environ = os.environ if environ is None else environ
    if path is None and environ.get("REALTIME_CONFIG"):
        path = Path(environ["REALTIME_CONFIG"])
    text = _read(path) if path is not None else ""
    data = _parse(text, path)
    overridden = _apply_environment(data, environ)
    _enable_twilio(data, environ)
    source = Source(environ, path.resolve().parent if path is not None else Path.cwd())
    found: list[Finding] = []
    settings = None
    try:
        settings = Settings.model_validate(data, strict=True, context=source)
    except ValidationError as error:
        found += findings(error.errors(include_url=False), Settings)
    found += check_references(data, agents)
    if settings is None or found:
        raise SettingsError(_placed(found, locate(text), overridden), path)
    return settings


def data_folder(settings: Settings) -> Path:
    """The folder for keys, store and files, made if need be, open to its owner only. Raises `SettingsError`."""
    folder = settings.server.data or Path(platformdirs.user_data_dir("infrai-realtime", appauthor=False))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        hint = "choose another with `data` under [server], or REALTIME_DATA"
        message = f"the data folder {folder} cannot be made: {error.strerror}"
        raise SettingsError([Mistake(None, "server.data", message, hint)]) from None
    return folder


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "`realtime init` writes one" if isinstance(error, FileNotFoundError) else None
        raise SettingsError([Mistake(None, str(path), error.strerror or "cannot be read", hint)], path) from None
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError([Mistake(None, str(path), "larger than 1 MiB: not a settings file")], path)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError([Mistake(line, "syntax", "not UTF-8 text", "save the file as UTF-8")], path) from None


def _parse(text: str, path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        line = int(match[1]) if match and match[1] else text.count("\n") + 1
        what = message[: match.start()] if match else message
        column = f" at column {match[2]}" if match and match[2] else ""
        raise SettingsError([Mistake(line, "syntax", f"{what}{column}", _syntax_hint(text, line))], path) from None
    except RecursionError:
        raise SettingsError([Mistake(None, "syntax", "nested too deeply")], path) from None


def _syntax_hint(text: str, line: int) -> str | None:
    rows = text.splitlines()
    match = re.match(r"\s*([\w.-]+)\s*=\s*([^\s\"'\[{#][^#]*?)\s*(#.*)?$", rows[line - 1] if line <= len(rows) else "")
    return f'texts stand in quotes: {match[1]} = "{match[2]}"' if match else None


def _apply_environment(data: dict[str, Any], environ: Mapping[str, str]) -> dict[KeyPath, str]:
    """Lays the environment over the file's data; which variable each value came from."""
    overridden: dict[KeyPath, str] = {}
    for variable, (section, key) in ENVIRONMENT.items():
        text = environ.get(variable, "").strip()
        table = data.setdefault(section, {}) if text else None
        if not isinstance(table, dict):
            continue
        value: Any = text
        if key == "port" and re.fullmatch(r"\d{1,9}", text):
            value = int(text)
        elif key == "api_key":
            value = SecretStr(text)
        elif key == "data":
            value = str(Path(text).expanduser().absolute())
        table[key] = value
        overridden[section, key] = variable
    return overridden


def _enable_twilio(data: dict[str, Any], environ: Mapping[str, str]) -> None:
    """`TWILIO_AUTH_TOKEN` alone is a line called twilio; where the file has one without a secret, it is that secret."""
    token = environ.get("TWILIO_AUTH_TOKEN", "").strip()
    lines = data.setdefault("telephony", {}) if token else None
    if not isinstance(lines, dict):
        return
    lines.setdefault("twilio", {})
    for name, line in lines.items():
        if isinstance(line, dict) and line.get("carrier", name) == "twilio":
            line.setdefault("secret", SecretStr(token))


def _placed(found: list[Finding], lines: dict[KeyPath, int], overridden: Mapping[KeyPath, str]) -> list[Mistake]:
    mistakes = []
    for finding in found:
        variable = overridden.get(finding.path)
        line = None if variable else line_of(lines, finding.path)
        mistakes.append(Mistake(line, variable or spell(finding.path), finding.message, finding.proposal))
    return sorted(mistakes, key=lambda mistake: mistake.line or 0)
