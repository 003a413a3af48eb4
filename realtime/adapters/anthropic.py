"""Chat and vision by Anthropic's own SDK. Import this module only when such a vendor is configured.

Leaving a stream closes its connection at once. Retries are not made here but by whoever tries several
engines. Wire format: Anthropic's Messages API, streamed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import anthropic
import httpx2

from realtime.adapters.anthropic_batch import AnthropicBatches
from realtime.adapters.anthropic_wire import Events, message_body
from realtime.adapters.base import ChatDelta, ChatRequest, EngineError, EngineInfo
from realtime.adapters.vendor_errors import message, of_status
from realtime.settings import VendorSettings

CONNECT_S = 5.0


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
        self.batches: AnthropicBatches | None = None
        if settings.batches or (settings.batches is None and settings.base_url is None):
            self.batches = AnthropicBatches(self._client, self.info.name, self._key, self._in_batch, self._failures)

    async def start(self) -> None:
        """Ready as it is."""

    async def close(self) -> None:
        await self._client.close()

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return aclosing(self._deltas(request))

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        state = Events()
        with self._failures():
            stream = await self._client.messages.create(**self._body(request), stream=True)
            try:
                async for event in stream:
                    for delta in state.event(event):
                        yield delta
            finally:
                await stream.close()
            yield state.end(self.info.name)

    def _in_batch(self, request: ChatRequest) -> dict[str, Any]:
        return message_body(request, self._model, self._temperature)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body = message_body(request, self._model, self._temperature)
        temperature = body.pop("temperature", None)
        if temperature is not None:
            # The SDK has no name for it any more; models that still take it do.
            body["extra_body"] = {"temperature": temperature}
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
