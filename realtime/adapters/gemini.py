"""Chat and vision by Google's own SDK. Import this module only when such a vendor is configured.

Leaving a stream closes its connection at once. Retries are not made here but by whoever tries several
engines. Wire format: the Gemini API's `streamGenerateContent`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from contextvars import ContextVar
from typing import Any, Literal

import httpx2
from google import genai
from google.genai import errors, types

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
from realtime.adapters.gemini_batch import GeminiBatches
from realtime.adapters.vendor_errors import message, of_status
from realtime.settings import VendorSettings

CONNECT_S = 5.0

API_VERSION = "v1beta"
"""The one with tools and system instructions everywhere; the SDK's own choice depends on the address."""

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
_FILTERED = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE"})

_responses: ContextVar[list[httpx2.Response]] = ContextVar("responses")
"""Where the answers to the request under way are noted."""


async def _note(response: httpx2.Response) -> None:
    _responses.get([]).append(response)


class GeminiChat:
    """A `ChatModel` on `models/MODEL:streamGenerateContent`."""

    def __init__(
        self, vendor_name: str, settings: VendorSettings, model: str, *, temperature: float | None = None
    ) -> None:
        self.info = EngineInfo(f"{vendor_name}/{model}", "chat", vendor_name, model)
        self._model = model
        self._temperature = temperature
        self._key = settings.key.get_secret_value() if settings.key else ""
        timeout = settings.timeout_seconds
        limit = httpx2.Timeout(timeout, connect=min(CONNECT_S, timeout))
        self._http = httpx2.AsyncClient(timeout=limit, follow_redirects=False, event_hooks={"response": [_note]})
        has_batches = settings.base_url is None if settings.batches is None else settings.batches
        self._http_of_batches = httpx2.Client(timeout=limit, follow_redirects=False) if has_batches else None
        options = types.HttpOptions(
            base_url=settings.base_url,
            api_version=API_VERSION,
            httpx_async_client=self._http,
            httpx_client=self._http_of_batches,
        )
        self._client = genai.Client(api_key=self._key or "none", vertexai=False, http_options=options)
        self.batches: GeminiBatches | None = None
        if has_batches:
            self.batches = GeminiBatches(
                self._client, self.info.name, model, self._key, self._written, self._whole, self._failures
            )

    async def start(self) -> None:
        """Ready as it is."""

    async def close(self) -> None:
        await self._http.aclose()
        if self._http_of_batches is not None:
            self._http_of_batches.close()

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return aclosing(self._deltas(request))

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        state = _State()
        responses: list[httpx2.Response] = []
        _responses.set(responses)
        with self._failures():
            chunks: Any = await self._client.aio.models.generate_content_stream(
                model=self._model, contents=_contents(request.messages), config=self._config(request)
            )
            try:
                async for chunk in chunks:
                    for delta in state.chunk(chunk):
                        yield delta
            finally:
                # The SDK's stream leaves the connection open until it is collected as garbage.
                for response in responses:
                    await response.aclose()
            yield state.end(self.info.name)

    def _written(self, request: ChatRequest) -> tuple[list[types.Content], types.GenerateContentConfig]:
        return _contents(request.messages), self._config(request)

    def _whole(self, response: types.GenerateContentResponse) -> list[ChatDelta]:
        state = _State()
        return [*state.chunk(response), state.end(self.info.name)]

    def _config(self, request: ChatRequest) -> types.GenerateContentConfig:
        system = "\n\n".join(one.content for one in request.messages if one.role == "system" and one.content)
        config: dict[str, Any] = {
            "system_instruction": system or None,
            "temperature": self._temperature if request.temperature is None else request.temperature,
            "max_output_tokens": request.max_tokens,
            "automatic_function_calling": {"disable": True},
        }
        if request.tools:
            functions = [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters_json_schema": dict(tool.parameters) or {"type": "object", "properties": {}},
                }
                for tool in request.tools
            ]
            config["tools"] = [{"function_declarations": functions}]
            config["tool_config"] = {"function_calling_config": _calling(request.tool_choice)}
        form = request.response_format
        if form is not None:
            config["response_mime_type"] = "application/json"
            if form.schema is not None:
                config["response_json_schema"] = dict(form.schema)
        return types.GenerateContentConfig(**config)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        name = self.info.name
        try:
            yield
        except errors.APIError as error:
            headers = getattr(error.response, "headers", None)
            text = error.message or f"status {error.code}"
            raise of_status(name, error.code or 502, text, key=self._key, headers=headers) from None
        except httpx2.TimeoutException:
            raise EngineError(f"{name}: no answer in time", code="timeout", engine=name) from None
        except httpx2.TransportError:
            raise EngineError(f"{name}: the connection failed", code="connection_failed", engine=name) from None
        except (httpx2.HTTPError, httpx2.StreamError, errors.UnknownApiResponseError, ValueError) as error:
            text = message(name, f"an answer that cannot be read ({type(error).__name__})", self._key)
            raise EngineError(text, code="bad_response", engine=name) from None


class _State:
    """Chunks in, deltas out."""

    def __init__(self) -> None:
        self._calls = 0
        self._reason: str | None = None
        self._usage: Usage | None = None

    def chunk(self, chunk: types.GenerateContentResponse) -> list[ChatDelta]:
        used = chunk.usage_metadata
        if used is not None:
            written = (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)
            self._usage = Usage(used.prompt_token_count or 0, written, used.cached_content_token_count or 0)
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self._reason = "SAFETY"
        if not chunk.candidates:
            return []
        candidate = chunk.candidates[0]
        deltas: list[ChatDelta] = []
        for part in (candidate.content.parts if candidate.content else None) or ():
            if part.text and not part.thought:
                deltas.append(TextDelta(part.text))
            elif part.function_call is not None and part.function_call.name:
                call = part.function_call
                id_ = call.id or f"call_{uuid.uuid4().hex[:24]}"
                deltas.append(ToolCallDelta(self._calls, json.dumps(call.args or {}), id_, call.name))
                self._calls += 1
        if candidate.finish_reason is not None:
            self._reason = str(getattr(candidate.finish_reason, "value", candidate.finish_reason))
        return deltas

    def end(self, engine: str) -> ChatEnd:
        if self._reason is None:
            raise EngineError(f"{engine}: the answer stopped in the middle", code="bad_response", engine=engine)
        reason: Finish = "stop"
        if self._calls:
            reason = "tool_calls"
        elif self._reason == "MAX_TOKENS":
            reason = "length"
        elif self._reason in _FILTERED:
            reason = "content_filter"
        return ChatEnd(reason, self._usage)


def _calling(choice: str) -> dict[str, Any]:
    if choice.startswith("tool:"):
        return {"mode": "ANY", "allowed_function_names": [choice.removeprefix("tool:")]}
    return {"mode": {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice]}


def _contents(messages: Sequence[Message]) -> list[types.Content]:
    """Neighbours of the same side become one, as the API wants it."""
    names = {call.id: call.name for one in messages for call in one.tool_calls}
    found: list[types.Content] = []
    for one in messages:
        if one.role == "system":
            continue
        role = "model" if one.role == "assistant" else "user"
        parts = _parts(one, names)
        if found and found[-1].role == role:
            found[-1].parts = [*(found[-1].parts or ()), *parts]
        elif parts:
            found.append(types.Content(role=role, parts=parts))
    return found or [types.Content(role="user", parts=[types.Part(text="…")])]


def _parts(one: Message, names: dict[str, str]) -> list[types.Part]:
    if one.role == "tool":
        name = names.get(one.tool_call_id or "", "tool")
        response = types.FunctionResponse(id=one.tool_call_id, name=name, response={"result": one.content})
        return [types.Part(function_response=response)]
    parts = [_image(image.url) for image in one.images]
    if one.content:
        parts.append(types.Part(text=one.content))
    for call in one.tool_calls:
        made = types.FunctionCall(id=call.id, name=call.name, args=_object(call.arguments))
        parts.append(types.Part(function_call=made))
    return parts


def _image(url: str) -> types.Part:
    if url.startswith("data:"):
        mime, _, data = url.removeprefix("data:").partition(";base64,")
        return types.Part(inline_data=types.Blob(mime_type=mime, data=base64.b64decode(data)))
    return types.Part(file_data=types.FileData(file_uri=url))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
