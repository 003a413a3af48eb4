"""Chat and vision by Anthropic's own SDK. Import this module only when such a vendor is configured.

Leaving a stream closes its connection at once. Retries are not made here but by whoever tries several
engines. Wire format: Anthropic's Messages API, streamed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Literal

import anthropic
import httpx2

from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineError,
    EngineInfo,
    Message,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from realtime.adapters.vendor_errors import message, of_status
from realtime.settings import VendorSettings

DEFAULT_MAX_TOKENS = 8192
"""The API wants a number; this is what every current model takes."""

CONNECT_S = 5.0

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
_FINISH: dict[str, Finish] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Everything else is an ordinary end."""


class AnthropicChat:
    """A `ChatModel` on `/v1/messages`."""

    def __init__(
        self, vendor_name: str, settings: VendorSettings, model: str, *, temperature: float | None = None
    ) -> None:
        self.info = EngineInfo(f"{vendor_name}/{model}", "chat", vendor_name, model)
        self._model = model
        self._temperature = temperature
        self._key = settings.key.get_secret_value() if settings.key else ""
        timeout = settings.timeout_seconds
        self._client = anthropic.AsyncAnthropic(
            api_key=self._key or "none",
            base_url=settings.base_url or "https://api.anthropic.com",
            timeout=httpx2.Timeout(timeout, connect=min(CONNECT_S, timeout)),
            max_retries=0,
            http_client=anthropic.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def start(self) -> None:
        """Ready as it is."""

    async def close(self) -> None:
        await self._client.close()

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return aclosing(self._deltas(request))

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        state = _State()
        with self._failures():
            stream = await self._client.messages.create(**self._body(request), stream=True)
            try:
                async for event in stream:
                    for delta in state.event(event):
                        yield delta
            finally:
                await stream.close()
            yield state.end(self.info.name)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
            "messages": _messages(request.messages),
        }
        system = "\n\n".join(one.content for one in request.messages if one.role == "system" and one.content)
        if system:
            body["system"] = system
        if request.tools:
            body["tools"] = [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "input_schema": dict(tool.parameters) or {"type": "object", "properties": {}},
                }
                for tool in request.tools
            ]
            body["tool_choice"] = _tool_choice(request.tool_choice)
        temperature = self._temperature if request.temperature is None else request.temperature
        if temperature is not None:
            # The SDK has no name for it any more; models that still take it do.
            body["extra_body"] = {"temperature": temperature}
        form = request.response_format
        if form is not None and form.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": dict(form.schema)}}
        if request.cache_key is not None:
            body["cache_control"] = {"type": "ephemeral"}
        return body

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        name = self.info.name
        try:
            yield
        except anthropic.APIStatusError as error:
            raise of_status(
                name, error.status_code, error.message, key=self._key, headers=error.response.headers
            ) from None
        except (anthropic.APITimeoutError, httpx2.TimeoutException):
            raise EngineError(f"{name}: no answer in time", code="timeout", engine=name) from None
        except (anthropic.APIConnectionError, httpx2.TransportError):
            raise EngineError(f"{name}: the connection failed", code="connection_failed", engine=name) from None
        except (anthropic.AnthropicError, httpx2.HTTPError, httpx2.StreamError, ValueError) as error:
            text = message(name, f"an answer that cannot be read ({type(error).__name__})", self._key)
            raise EngineError(text, code="bad_response", engine=name) from None


class _State:
    """Events in, deltas out. Tool calls are numbered among themselves; the API numbers all blocks together."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._read = self._cached = self._written = 0
        self._reason: str | None = None

    def event(self, event: Any) -> list[ChatDelta]:
        match event.type:
            case "message_start":
                usage = event.message.usage
                self._cached = usage.cache_read_input_tokens or 0
                self._read = usage.input_tokens + self._cached + (usage.cache_creation_input_tokens or 0)
            case "content_block_start" if event.content_block.type == "tool_use":
                number = self._numbers[event.index] = len(self._numbers)
                return [ToolCallDelta(number, "", event.content_block.id, event.content_block.name)]
            case "content_block_delta" if event.delta.type == "text_delta":
                return [TextDelta(event.delta.text)] if event.delta.text else []
            case "content_block_delta" if event.delta.type == "input_json_delta":
                return [ToolCallDelta(self._numbers.get(event.index, 0), event.delta.partial_json)]
            case "message_delta":
                self._reason = event.delta.stop_reason or self._reason
                self._written = event.usage.output_tokens or self._written
        return []

    def end(self, engine: str) -> ChatEnd:
        if self._reason is None:
            raise EngineError(f"{engine}: the answer stopped in the middle", code="bad_response", engine=engine)
        return ChatEnd(_FINISH.get(self._reason, "stop"), Usage(self._read, self._written, self._cached))


def _tool_choice(choice: str) -> dict[str, Any]:
    if choice.startswith("tool:"):
        return {"type": "tool", "name": choice.removeprefix("tool:")}
    return {"type": {"required": "any"}.get(choice, choice)}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Neighbours of the same side become one: all results of a turn's tools must stand in one message."""
    found: list[dict[str, Any]] = []
    for one in messages:
        if one.role == "system":
            continue
        role = "assistant" if one.role == "assistant" else "user"
        blocks = _blocks(one)
        if found and found[-1]["role"] == role:
            found[-1]["content"] += blocks
        elif blocks:
            found.append({"role": role, "content": blocks})
    return found or [{"role": "user", "content": "…"}]


def _blocks(one: Message) -> list[dict[str, Any]]:
    if one.role == "tool":
        return [{"type": "tool_result", "tool_use_id": one.tool_call_id, "content": one.content}]
    blocks: list[dict[str, Any]] = [_image(image.url) for image in one.images]
    if one.content:
        blocks.append({"type": "text", "text": one.content})
    for call in one.tool_calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _object(call.arguments)})
    return blocks


def _image(url: str) -> dict[str, Any]:
    if url.startswith("data:"):
        mime, _, data = url.removeprefix("data:").partition(";base64,")
        return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
