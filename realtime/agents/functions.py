"""Tools that are the developer's functions: their types and docstring are the schema, and are held to.

A parameter annotated with `Call` gets the call and is not shown to the model.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from realtime.adapters.base import Tool, ToolCall
from realtime.agents.blame import of_function
from realtime.agents.call import RUNNING, AnyAgent, Call, ToolError
from realtime.agents.tools import MAX_RESULT, MAX_TIMEOUT_S, TIMEOUT_S, ToolResult, bounded, words_of
from realtime.live.agent import ServerTool

__all__ = ["FunctionTool", "ToolError"]


class BadFunction(TypeError):
    """A function that cannot be a tool, a turn or a hook; the message says where it stands and why."""

    def __init__(self, function: object, reason: str) -> None:
        super().__init__(f"{of_function(function)}: {reason}")


def takes(function: object, *what: str) -> None:
    """Raises `BadFunction` unless the function can be called with these."""
    try:
        inspect.signature(function).bind(*what)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        name = getattr(function, "__name__", "function")
        raise BadFunction(function, f"it cannot be called as it will be; write `{name}({', '.join(what)})`") from None


class FunctionTool:
    """An `AgentTool`. Raises `BadFunction`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float = TIMEOUT_S,
        on_cut: Literal["finish", "cancel"] = "finish",
        filler: str | None = None,
        later: bool = False,
        farewell: bool = False,
    ) -> None:
        self.function = function
        if not callable(function):
            raise BadFunction(function, 'a tool is a function; its options have names: @agent.tool(name="...")')
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise BadFunction(function, "a tool returns its result; `yield` is for @agent.turn")
        chosen = name or str(getattr(function, "__name__", ""))
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", chosen):
            raise BadFunction(function, f"{chosen!r} cannot be a tool's name: letters, digits, _ and -, at most 64")
        if not 0 < timeout <= MAX_TIMEOUT_S:
            raise BadFunction(function, f"timeout is more than 0 and at most {MAX_TIMEOUT_S:g} seconds")
        if on_cut not in ("finish", "cancel"):
            raise BadFunction(function, "on_cut is 'finish' or 'cancel'")
        text, parameters = _documented(inspect.getdoc(function) or "")
        self._arguments, self._call_as, schema = _model(function, chosen, parameters)
        schema.pop("title", None)
        for field in schema.get("properties", {}).values():
            field.pop("title", None)
        self.timeout = timeout
        self.spec = ServerTool(Tool(chosen, description or text, schema), on_cut, later, filler, farewell)

    async def run(self, asked: ToolCall, call: Call) -> ToolResult:
        result: ToolResult = await call.user.run(self._run(asked, call), self.timeout)
        return result

    async def _run(self, asked: ToolCall, call: Call) -> ToolResult:
        """On the developer's loop."""
        RUNNING.set(asked.id)
        try:
            given = self._arguments.model_validate_json(asked.arguments or "{}")
        except ValidationError as error:
            raise ToolError(words_of(error.errors(include_url=False, include_input=False))) from None
        values = {str(field.alias): getattr(given, name) for name, field in type(given).model_fields.items()}
        if self._call_as is not None:
            values[self._call_as] = call
        result = await call.user.call(self.function, **values)
        if isinstance(result, AnyAgent):
            return ToolResult(f"Handed over to {result.name}.", hand_over=result)
        return ToolResult(bounded(_as_text(result)))


def _as_text(result: object) -> str:
    if isinstance(result, str):
        return result
    if result is None:
        return "Done."
    try:
        return _beginning(result)
    except (TypeError, ValueError, RecursionError):  # what only pydantic can write
        pass
    try:
        return to_json(result).decode()
    except PydanticSerializationError:
        return str(result)


_JSON = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=lambda value: to_jsonable_python(value)
)


def _beginning(result: object) -> str:
    """As much JSON as is read of it: all of a long list at once would keep the interpreter from everybody else."""
    text = ""
    for piece in _JSON.iterencode(result):
        text += piece
        if len(text) > MAX_RESULT:
            break
    return text


def _model(
    function: Callable[..., Any], name: str, descriptions: dict[str, str]
) -> tuple[type[BaseModel], str | None, dict[str, Any]]:
    """A model of the arguments, the name of the parameter that wants the call, and the schema."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise BadFunction(function, f"its types cannot be read: {error}") from None
    fields: dict[str, Any] = {}
    call_as = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise BadFunction(function, f"a tool's parameters have names; {parameter.name!r} has none to be called by")
        hint = hints.get(parameter.name)
        if hint is None:
            raise BadFunction(function, f"parameter {parameter.name!r} has no type; write for example `day: str`")
        if hint is Call:
            call_as = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        described = Field(default, alias=parameter.name, description=descriptions.get(parameter.name))
        # By number, because a parameter may be called like something that every model has.
        fields[f"argument_{len(fields)}"] = (hint, described)
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        return model, call_as, model.model_json_schema(by_alias=True)
    except (PydanticUserError, NameError, ValueError) as error:
        raise BadFunction(function, f"a model cannot fill its parameters: {str(error).splitlines()[0]}") from None


_PARAMETER = re.compile(r"\s+(\w+)(?: \([^)]*\))?: (.+)")


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """A docstring's own words, and what its `Args:` say of each parameter (Google's style)."""
    head, found, rest = text.partition("\nArgs:\n")
    parameters: dict[str, str] = {}
    name = None
    for line in rest.splitlines() if found else ():
        match = _PARAMETER.fullmatch(line)
        if match:
            name = match[1]
            parameters[name] = match[2].strip()
        elif line.startswith("  ") and name is not None:
            parameters[name] += " " + line.strip()
        else:
            break
    return head.strip(), parameters
