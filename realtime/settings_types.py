"""The kinds of values that settings are made of: secrets, addresses, names, function tools.

Each refuses what cannot work with a sentence and a proposal. Secrets are resolved here and nowhere
else; a refused secret is never repeated in the message.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core.core_schema import ValidationInfo

from realtime.mistakes import nearest, refuse

MAX_SECRET_BYTES = 64 << 10

EngineRef = str
"""`embedded`, `instant`, `VENDOR/MODEL`, the `id` of one of `[[models]]`, or a vendor that is a class of one's own."""

PYTHON = "python:"
"""Before `module:name` where the settings name code of the user's own."""

APIS = ("openai", "anthropic", "gemini")
"""What a vendor may speak; every OpenAI-compatible address is `openai`."""


@dataclass(frozen=True, slots=True)
class Source:
    """What values are resolved against while a file is loaded; absent when settings are built in Python."""

    environ: Mapping[str, str]
    folder: Path


def _resolve_secret(value: Any, info: ValidationInfo) -> Any:
    """`env:NAME` and `file:PATH` become the secret itself; nothing else may stand in the file."""
    source = info.context
    if not isinstance(source, Source) or not isinstance(value, str):
        return value
    kind, colon, rest = value.partition(":")
    if colon and kind == "env":
        return _secret_from_environment(rest, source.environ)
    if colon and kind == "file":
        return _secret_from_file(source.folder / Path(rest).expanduser())
    proposal = f"`env:{value}`" if value in source.environ else "`env:NAME` or `file:PATH`"
    raise refuse("a secret does not belong in this file", f"write {proposal} instead")


def _secret_from_environment(name: str, environ: Mapping[str, str]) -> SecretStr:
    secret = environ.get(name, "")
    if secret:
        return SecretStr(secret)
    close = nearest(name, (other for other in environ if environ[other]), cutoff=0.8)
    hint = f"did you mean `env:{close}`?" if close else f"set {name} in the environment of the server"
    raise refuse(f"the environment variable {name or '(no name)'} is not set", hint)


def _secret_from_file(path: Path) -> SecretStr:
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not text"
        raise refuse(f"the secret cannot be read from {path}: {reason}", "check the path and its permissions") from None
    if not secret or len(secret) > MAX_SECRET_BYTES:
        raise refuse(f"{path} does not hold a secret", "the file must hold the secret alone")
    return SecretStr(secret)


def _webhook_secret(secret: SecretStr) -> SecretStr:
    """Standard Webhooks 1.0.0: 24 to 64 bytes in base64, usually after `whsec_`."""
    try:
        size = len(base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True))
    except ValueError:
        size = 0
    if not 24 <= size <= 64:
        raise refuse("a webhook's secret is 24 to 64 bytes in base64", "make one with `openssl rand -base64 32`")
    return secret


def _as_path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    return info.context.folder / path if isinstance(info.context, Source) else path


def as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise refuse(
            "expected an address that starts with http:// or https://", 'for example "http://127.0.0.1:8000/v1"'
        )
    if parts.username or parts.password:
        raise refuse("a secret does not belong in an address", 'put it into `key = "env:NAME"`')
    return value.rstrip("/")


_ICE_URL = re.compile(
    r"(stuns?|turns?):([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?"
)


def _ice_url(value: str) -> str:
    """RFC 7064 and 7065. A STUN address has no `?transport=`, and WebRTC clients fail on one."""
    match = _ICE_URL.fullmatch(value)
    if match is None or not 0 < int(match[3] or 3478) < 65536:
        raise refuse(
            "not an ICE address",
            'for example "stun:stun.example.org:3478" or "turn:turn.example.org:3478?transport=udp"',
        )
    if match[1].startswith("stun") and match[4]:
        raise refuse("a STUN address takes no ?transport=", f'write "{value.partition("?")[0]}"')
    return value


def _turn_url(value: str) -> str:
    if not _ice_url(value).startswith("turn"):
        raise refuse("expected a TURN address", "STUN addresses go into [[ice.servers]]")
    return value


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise refuse(
            "expected an IP address, since callers are told it as it stands", 'for example "203.0.113.7"'
        ) from None


def _ip_network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
        return value
    except ValueError:
        raise refuse("expected an IP address or a network", 'for example "10.0.0.0/8"') from None


def _udp_ports(value: str) -> str:
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2] or match[1]) <= 65535:
        raise refuse("expected a range of ports, the lower one first", 'for example "50000-50199"')
    return f"{int(match[1])}-{int(match[2] or match[1])}"


PYTHON_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"


def _vendor_kind(value: str) -> str:
    if value in APIS or (value.startswith(PYTHON) and re.fullmatch(PYTHON_NAME, value.removeprefix(PYTHON))):
        return value
    if value.startswith("python"):
        raise refuse("a class of your own is named by its module", 'for example "python:my_engines:MyVoice"')
    close = nearest(value, APIS)
    hint = f"did you mean `{close}`?" if close else "a class of your own is python:module:Class"
    raise refuse(f"expected {', '.join(repr(api) for api in APIS)} or 'python:module:Class'", hint)


_TOOL_KEYS = {"type", "name", "description", "parameters", "strict"}
_TOOL_EXAMPLE = '{ type = "function", name = "look_up", description = "...", parameters = { type = "object" } }'


def _function_tool(tool: dict[str, Any]) -> dict[str, Any]:
    for key in tool.keys() - _TOOL_KEYS:
        close = nearest(key, _TOOL_KEYS)
        raise refuse(f"a tool has no `{key}`", f"did you mean `{close}`?" if close else f"for example {_TOOL_EXAMPLE}")
    if tool.get("type", "function") != "function":
        raise refuse("only tools of type function are known", f"for example {_TOOL_EXAMPLE}")
    name = tool.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
        raise refuse("a tool needs a name of letters, digits, `_` and `-`", f"for example {_TOOL_EXAMPLE}")
    if not isinstance(tool.get("description", ""), str):
        raise refuse("a tool's description is a string", f"for example {_TOOL_EXAMPLE}")
    parameters = tool.get("parameters", {"type": "object"})
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        raise refuse("a tool's parameters are a JSON schema of type object", f"for example {_TOOL_EXAMPLE}")
    return {"type": "function", **tool}


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise refuse("a name has letters, digits, `_`, `.` and `-`, at most 64 of them")
    return value


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value):
        raise refuse("a variable's name has letters, digits and `_`, and does not begin with a digit")
    return value


VendorKind = Annotated[str, AfterValidator(_vendor_kind)]


Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, AfterValidator(_name)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
Secret = Annotated[SecretStr, BeforeValidator(_resolve_secret)]
WebhookSecret = Annotated[SecretStr, BeforeValidator(_resolve_secret), AfterValidator(_webhook_secret)]
DataPath = Annotated[Path, BeforeValidator(_as_path)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
IceUrl = Annotated[str, AfterValidator(_ice_url)]
TurnUrl = Annotated[str, AfterValidator(_turn_url)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
IpNetwork = Annotated[str, AfterValidator(_ip_network)]
UdpPorts = Annotated[str, AfterValidator(_udp_ports)]
FunctionTool = Annotated[dict[str, Any], AfterValidator(_function_tool)]
EngineRefs = Annotated[list[EngineRef], BeforeValidator(as_list), Field(min_length=1)]
"""One reference or a list; always a list once validated. The first is tried first."""

LockableField = Literal[
    "instructions", "output_modalities", "audio", "tools", "tool_choice", "max_output_tokens", "truncation", "tracing",
    "prompt", "include",
]  # fmt: skip

Task = Literal["general", "reasoning", "coding", "long_context"]
RouteName = Literal["general", "reasoning", "coding", "long_context", "vision", "embed", "image", "tts", "asr"]
Capability = Literal["tools", "json_object", "json_schema", "vision", "temperature", "dimensions", "size"]
WebhookEvent = Literal["call.incoming", "call.started", "call.ended"]
