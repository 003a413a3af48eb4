"""Chat by the Gemini API's batch mode: requests sent inline at half the price, answered within a day.

Wire format: `models/MODEL:batchGenerateContent` and `batches/ID`, by Google's own SDK. Nothing is retried or
waited for here. Import this module only when such a vendor is configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from google import genai
from google.genai import types

from realtime.adapters.base import ChatAnswer, ChatDelta, ChatRequest, EngineError
from realtime.adapters.vendor_errors import message, of_status

ID = "request"
"""The name under which a request's id is sent, and comes back with its answer."""

OVER = frozenset({"JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"})

_STATUS = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}
"""What gRPC's codes would be as HTTP statuses."""


class GeminiBatches:
    """`ChatBatches` of one model.

    `written`: a request's contents and configuration; `read`: the deltas of a whole answer; `failures`: names
    what goes wrong.
    """

    max_bytes = 8 << 20
    """Less than half of what the Gemini API takes inline: JSON may double what was counted."""
    max_requests = 100

    def __init__(
        self,
        client: genai.Client,
        engine: str,
        model: str,
        key: str,
        written: Callable[[ChatRequest], tuple[list[types.Content], types.GenerateContentConfig]],
        read: Callable[[types.GenerateContentResponse], Sequence[ChatDelta]],
        failures: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._client = client
        self._engine = engine
        self._model = model
        self._key = key
        self._written = written
        self._read = read
        self._failures = failures

    async def submit(self, requests: Mapping[str, ChatRequest]) -> str:
        # In a thread: the SDK writes and reads a millisecond for each request.
        with self._failures():
            job = await asyncio.to_thread(self._submit, requests)
        if not job.name:
            raise EngineError(f"{self._engine}: a batch without a name", code="bad_response", engine=self._engine)
        return job.name

    def _submit(self, requests: Mapping[str, ChatRequest]) -> types.BatchJob:
        inlined = []
        for id_, request in requests.items():
            contents, config = self._written(request)
            inlined.append(types.InlinedRequest(contents=list(contents), config=config, metadata={ID: id_}))
        return self._client.batches.create(model=self._model, src=inlined)

    async def answers(self, batch: str) -> Mapping[str, ChatAnswer] | None:
        with self._failures():
            job = await asyncio.to_thread(self._client.batches.get, name=batch)
        state = job.state.value if job.state is not None else ""
        if state == "JOB_STATE_FAILED":
            reason = job.error.message if job.error is not None and job.error.message else "no reason given"
            text = message(self._engine, f"the batch failed: {reason}", self._key)
            raise EngineError(text, code="batch_failed", engine=self._engine, retryable=False)
        if state not in OVER:
            return None
        responses = (job.dest.inlined_responses if job.dest is not None else None) or ()
        return {
            one.metadata[ID]: self._answer(one) for one in responses if one.metadata is not None and ID in one.metadata
        }

    async def cancel(self, batch: str) -> None:
        with self._failures():
            await self._client.aio.batches.cancel(name=batch)

    async def discard(self, batch: str) -> None:
        with self._failures():
            await self._client.aio.batches.delete(name=batch)

    def _answer(self, one: Any) -> ChatAnswer:
        if one.response is None:
            code = one.error.code if one.error is not None and one.error.code is not None else 3
            words = one.error.message if one.error is not None and one.error.message else "no reason given"
            return of_status(self._engine, _STATUS.get(code, 400), words, key=self._key)
        try:
            return self._read(one.response)
        except EngineError as error:
            return error
