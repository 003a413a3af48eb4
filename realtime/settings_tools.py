"""Settings of an agent's tools: those of its callers' clients, and those that run on the server."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from realtime.json_schemas import BadSchema, Checker
from realtime.mistakes import refuse, suggest
from realtime.settings_types import FunctionTool, HttpUrl, Name, Secret, VariableName

PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""`{name}` in a tool's address."""


def _secure_url(value: str) -> str:
    """Secrets and what callers say go there: in the clear only to this machine."""
    parts = urlsplit(value)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise refuse("expected https://: secrets go there, and what callers say", "http:// is for this machine alone")
    if re.search(r"[{}]", parts.netloc):
        raise refuse("the host of a tool is fixed", 'put {name} behind it: "https://api.example/tables/{day}"')
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tool_name(value: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", value):
        raise refuse("a tool needs a name of letters, digits, `_` and `-`, at most 64")
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", value):
        raise refuse("not the name of a header")
    return value


def _header_value(value: SecretStr) -> SecretStr:
    """Checked here, because what fails later may quote it."""
    if not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", value.get_secret_value()):
        raise refuse("the secret holds what no header can", "printable ASCII, without a line break or space around it")
    return value


def _schema(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type") != "object":
        raise refuse("a tool's parameters are a JSON schema of type object", 'for example { type = "object" }')
    try:
        Checker(value)
    except BadSchema as error:
        hint = 'for example { type = "object", properties = { day = { type = "string" } } }'
        raise refuse(f"no JSON schema: {error}", hint) from None
    return value


ToolUrl = Annotated[HttpUrl, AfterValidator(_secure_url)]
ToolName = Annotated[str, AfterValidator(_tool_name)]
HeaderValue = Annotated[Secret, AfterValidator(_header_value)]
Headers = Annotated[dict[Annotated[str, AfterValidator(_header_name)], HeaderValue], Field(max_length=32)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class ToolBehaviour(BaseModel):
    """What every tool that runs on the server can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on_cut: Literal["finish", "cancel"] = "finish"
    """Whether it goes on when the caller says something else meanwhile."""
    filler: str | None = None
    """Said while the caller waits for it, instead of the agent's; "" for nothing."""
    later: bool = False
    """The model is told at once that the result follows."""
    timeout_seconds: Seconds = 30.0


class HttpToolSettings(ToolBehaviour):
    """`[[agents.NAME.http_tools]]`: a tool that is a request to a server of the developer's."""

    name: ToolName
    description: str = ""
    parameters: Annotated[dict[str, Any], AfterValidator(_schema)] = {"type": "object", "properties": {}}
    url: ToolUrl
    """`{name}` stands for an argument."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: Headers = {}
    """Their values are secrets."""
    fixed: Annotated[dict[VariableName, str], Field(max_length=32)] = {}
    """Arguments that the model neither sees nor sets; `{{name}}` stands for a variable of the call."""

    @model_validator(mode="after")
    def _places_are_arguments(self) -> HttpToolSettings:
        properties = self.parameters.get("properties")
        known = {*(properties if isinstance(properties, dict) else ()), *self.fixed}
        for name in PLACE.findall(self.url):
            if name not in known:
                raise refuse(f"url: {{{name}}} is none of the tool's arguments", suggest(name, known))
        return self


class McpSettings(ToolBehaviour):
    """`[agents.NAME.mcp.SERVER]`: the tools of an MCP server."""

    url: ToolUrl | None = None
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Started here, spoken to over its standard input and output."""
    headers: Headers = {}
    environment: Annotated[dict[VariableName, Secret], Field(max_length=32)] = {}
    tools: Annotated[list[str], Field(min_length=1)] | None = None
    """Only these of its tools."""

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> McpSettings:
        if (self.url is None) == (self.command is None):
            raise refuse("an MCP server has a url or a command", 'for example url = "https://tools.example/mcp"')
        if self.headers and self.url is None:
            raise refuse("headers go with a url", "a command gets its secrets by `environment`")
        if self.environment and self.command is None:
            raise refuse("environment goes with a command", "an address gets its secrets by `headers`")
        return self


CallTool = Literal["hang_up", "send_keys", "pause_recording", "resume_recording"]
"""Tools that every call has, for agents that want them (`realtime.agents.builtin`)."""


class AgentTools(BaseModel):
    """What of `[agents.NAME]` is about tools."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: Annotated[list[FunctionTool], Field(max_length=128)] = []
    """OpenAI function tools, answered by the caller's client."""
    http_tools: Annotated[list[HttpToolSettings], Field(max_length=128)] = []
    """Tools that run here, as requests to servers of the developer's."""
    mcp: Annotated[dict[Name, McpSettings], Field(max_length=16)] = {}
    """Tools that run here, of MCP servers."""
    call_tools: list[CallTool] = []
    """Tools that act on the call itself."""
    transfer_to: Annotated[dict[Name, Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)] = {}
    """Where the tool `transfer` passes a telephone call on to: numbers or SIP addresses, by what the model reads."""
