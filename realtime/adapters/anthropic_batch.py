"""Chat by Anthropic's Message Batches: many requests at half the price, answered within a day.

Wire format: `/v1/messages/batches`, read by Anthropic's own SDK. Nothing is retried or waited for here.
Import this module only when such a vendor is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import anthropic
from anthropic.types.messages import MessageBatchIndividualResponse

from realtime.adapters.anthropic_wire import whole
from realtime.adapters.base import ChatAnswer, ChatRequest
from realtime.adapters.vendor_errors import of_status

_STATUS = {
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What each type of error would be as an HTTP status; the rest are the request's own fault."""


class AnthropicBatches:
    """`ChatBatches` of one model. `body`: a request as `/v1/messages` takes it; `failures`: names what goes wrong."""

    max_bytes = 100 << 20
    """Less than half of what Anthropic takes: JSON may double what was counted."""
    max_requests = 100
    """Far less than Anthropic takes: the SDK writes them all at once on the event loop."""

    def __init__(
        self,
        client: anthropic.AsyncAnthropic,
        engine: str,
        key: str,
        body: Callable[[ChatRequest], dict[str, Any]],
        failures: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._client = client
        self._engine = engine
        self._key = key
        self._body = body
        self._failures = failures

    async def submit(self, requests: Mapping[str, ChatRequest]) -> str:
        with self._failures():
            wanted: Any = [{"custom_id": id_, "params": self._body(one)} for id_, one in requests.items()]
            return (await self._client.messages.batches.create(requests=wanted)).id

    async def answers(self, batch: str) -> Mapping[str, ChatAnswer] | None:
        with self._failures():
            found = await self._client.messages.batches.retrieve(batch)
            if found.processing_status != "ended":
                return None
            results = await self._client.messages.batches.results(batch)
            return {one.custom_id: answer async for one in results if (answer := self._answer(one)) is not None}

    async def cancel(self, batch: str) -> None:
        with self._failures():
            await self._client.messages.batches.cancel(batch)

    async def discard(self, batch: str) -> None:
        with self._failures():
            await self._client.messages.batches.delete(batch)

    def _answer(self, one: MessageBatchIndividualResponse) -> ChatAnswer | None:
        match one.result.type:
            case "succeeded":
                return whole(one.result.message)
            case "errored":
                error = one.result.error.error
                return of_status(self._engine, _STATUS.get(error.type, 400), error.message, key=self._key)
            case _:
                return None
