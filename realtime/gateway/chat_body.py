"""The body of `POST /v1/ai/chat` and its translation into a `ChatRequest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from realtime.adapters.base import ChatRequest, ImagePart, Message, ResponseFormat, Tool, ToolCall, ToolChoice
from realtime.gateway.bodies import Body, Real, Whole, wrong

MAX_MESSAGES = 2048
MAX_TEXT = 4 << 20
"""Characters of a request, all messages together: beyond any model's context."""
MAX_TOOLS = 128
MAX_SCHEMA_BYTES = 64 << 10
MAX_IMAGES = 16


class Part(BaseModel):
    """Names a piece of a message's content."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImageUrl(Part):
    url: Annotated[str, Field(min_length=1)]
    detail: str | None = None


class ContentPart(Part):
    """`{"type": "text", "text"}` or `{"type": "image_url", "image_url": {"url"}}`."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _complete(self) -> ContentPart:
        if (self.text if self.type == "text" else self.image_url) is None:
            raise ValueError(f"a part of type {self.type} needs `{self.type}`")
        return self


class CalledFunction(Part):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: str = "{}"


class MadeCall(Part):
    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Part):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Field(max_length=256)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[MadeCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> ChatMessage:
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool's message needs `tool_call_id`")
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs `content`")
        return self


class FunctionOfTool(Part):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class ToolModel(Part):
    """OpenAI's shape with `function`, or its content alone."""

    type: Literal["function"] = "function"
    function: FunctionOfTool | None = None
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _one_shape(self) -> ToolModel:
        bare = self.name is not None
        if bare == (self.function is not None):
            raise ValueError("a tool has either `function` or `name`")
        return self


class JsonSchema(Part):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] = "answer"
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormatModel(Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormatModel:
        if self.type == "json_schema" and (self.json_schema is None) == (self.schema_ is None):
            raise ValueError('type "json_schema" needs `json_schema` or `schema`')
        return self


class NamedFunction(Part):
    name: Annotated[str, Field(min_length=1, max_length=64)]


class NamedChoice(Part):
    type: Literal["function"] = "function"
    function: NamedFunction | None = None
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class ChatBody(Body):
    """Of `messages` and `prompt` exactly one."""

    messages: str | Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = Field(
        None, description="A prompt string, or a list of role/content messages."
    )
    prompt: str | Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = Field(
        None, description="The same as `messages`; give one of them."
    )
    task: Literal["general", "reasoning", "coding", "long_context"] = Field("general", description="Use-case axis.")
    prefer: Literal["balanced", "cheapest", "smartest"] = Field("balanced", description="Optimization axis.")
    temperature: Annotated[Real, Field(ge=0, le=2)] | None = Field(None, description="Sampling temperature.")
    max_tokens: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Maximum tokens to generate."
    )
    tools: Annotated[list[ToolModel], Field(max_length=MAX_TOOLS)] | None = Field(
        None, description="Function tools the model may call."
    )
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = Field(
        None, description="Whether and which tool must be called."
    )
    response_format: ResponseFormatModel | None = Field(None, description="Force JSON, optionally by a schema.")
    cache_strategy: Literal["vendor", "infrai", "none"] = Field("vendor", description="Which cache layer to use.")
    batch_mode: bool = Field(False, description="Run as a batch job.")
    stream: bool = Field(False, description="Answer as server-sent events.")

    def said(self) -> str | list[ChatMessage]:
        given = [value for value in (self.messages, self.prompt) if value is not None]
        if len(given) != 1:
            code = "missing_field" if not given else "invalid_value"
            raise wrong("messages", "give `messages`, or `prompt` in its place", code)
        return given[0]


def messages_of(said: str | Sequence[ChatMessage]) -> list[Message]:
    """In the words of the engines. 422 when there is too much."""
    if isinstance(said, str):
        if not said.strip():
            raise wrong("messages", "the prompt is empty")
        found = [Message("user", said)]
    else:
        found = [_message(message) for message in said]
    if sum(len(message.content) for message in found) > MAX_TEXT:
        raise wrong("messages", f"more than {MAX_TEXT} characters", "text_too_long")
    if sum(len(message.images) for message in found) > MAX_IMAGES:
        raise wrong("messages", f"more than {MAX_IMAGES} images", "too_many_images")
    return found


def _message(message: ChatMessage) -> Message:
    text, images = message.content or "", []
    if not isinstance(text, str):
        images = [ImagePart(part.image_url.url) for part in text if part.image_url is not None]
        text = "\n".join(part.text for part in text if part.text is not None)
    calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    role = "system" if message.role == "developer" else message.role
    return Message(role, text, tuple(images), tuple(calls), message.tool_call_id)


def tools_of(body: ChatBody) -> list[Tool]:
    tools = []
    for tool in body.tools or ():
        name, description, parameters = tool.name, tool.description, tool.parameters
        if tool.function is not None:
            name, description, parameters = tool.function.name, tool.function.description, tool.function.parameters
        check_schema_size(parameters, "tools")
        tools.append(Tool(name or "", description or "", parameters or {}))
    if len({tool.name for tool in tools}) != len(tools):
        raise wrong("tools", "two tools have the same name")
    return tools


def tool_choice_of(body: ChatBody, tools: Sequence[Tool]) -> ToolChoice:
    choice = body.tool_choice
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise wrong("tool_choice", "no tools are given")
        return choice
    name = choice.function.name if choice.function else choice.name
    if name not in {tool.name for tool in tools}:
        raise wrong("tool_choice", f"there is no tool {str(name)[:64]!r}")
    return f"tool:{name}"


def response_format_of(body: ChatBody) -> ResponseFormat | None:
    form = body.response_format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return ResponseFormat("json_object")
    full = form.json_schema
    schema = full.schema_ if full is not None else form.schema_
    check_schema_size(schema, "response_format")
    name, strict = (full.name, bool(full.strict)) if full is not None else ("answer", False)
    return ResponseFormat("json_schema", schema, name, strict)


def check_schema_size(schema: dict[str, Any] | None, param: str) -> None:
    if schema is not None and len(orjson.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise wrong(param, f"a schema of more than {MAX_SCHEMA_BYTES} bytes")


def request_of(body: ChatBody, messages: Sequence[Message], session: str) -> ChatRequest:
    tools = tools_of(body)
    return ChatRequest(
        messages,
        tools,
        tool_choice_of(body, tools),
        body.max_tokens,
        body.temperature,
        session=session,
        response_format=response_format_of(body),
        exact=body.model is not None,
    )
