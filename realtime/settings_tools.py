"""Settings of tools that run on the server: `[[agents.NAME.http_tools]]` and `[agents.NAME.mcp.SERVER]`."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from realtime.mistakes import refuse
from realtime.settings_types import HttpUrl, Secret, VariableName


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


def _schema(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type") != "object":
        raise refuse("a tool's parameters are a JSON schema of type object", 'for example { type = "object" }')
    return value


ToolUrl = Annotated[HttpUrl, AfterValidator(_secure_url)]
ToolName = Annotated[str, AfterValidator(_tool_name)]
Headers = Annotated[dict[Annotated[str, AfterValidator(_header_name)], Secret], Field(max_length=32)]
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
