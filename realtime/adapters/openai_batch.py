"""Chat by OpenAI's batch interface: a file of requests, a batch over it, a file of answers within a day.

Wire format: OpenAI's `/files` and `/batches`; JSON lines `{custom_id, method, url, body}` in, and
`{custom_id, response: {status_code, body}, error}` out. Nothing is retried or waited for here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from realtime.adapters.base import ChatAnswer, ChatRequest, EngineError
from realtime.adapters.openai_vendor import OpenAIVendor, written
from realtime.adapters.openai_wire import ChatEvents, WireError, parse_object
from realtime.adapters.vendor_errors import message, of_status

ENDPOINT = "/v1/chat/completions"

UNDER_WAY = frozenset({"validating", "in_progress", "finalizing", "cancelling"})

MAX_OBJECT_BYTES = 1 << 20
MAX_RESULT_BYTES = 256 << 20


class OpenAIBatches:
    """`ChatBatches` of one model. `body`: a request as `/chat/completions` takes it, not streamed."""

    max_bytes = 100 << 20
    """Half of what OpenAI takes: JSON may double what was counted."""
    max_requests = 1000

    def __init__(self, vendor: OpenAIVendor, engine: str, body: Callable[[ChatRequest], dict[str, Any]]) -> None:
        self._vendor = vendor
        self._engine = engine
        self._body = body

    async def submit(self, requests: Mapping[str, ChatRequest]) -> str:
        file = ("batch.jsonl", await asyncio.to_thread(self._written, requests), "application/jsonl")
        uploaded = await self._post("/files", form={"purpose": "batch"}, file=file)
        wanted = {"input_file_id": _text(uploaded, "id"), "endpoint": ENDPOINT, "completion_window": "24h"}
        return _text(await self._post("/batches", body=wanted), "id")

    def _written(self, requests: Mapping[str, ChatRequest]) -> bytes:
        return b"".join(
            written({"custom_id": id_, "method": "POST", "url": ENDPOINT, "body": self._body(request)}) + b"\n"
            for id_, request in requests.items()
        )

    async def answers(self, batch: str) -> Mapping[str, ChatAnswer] | None:
        found = await self._look(batch)
        if found.get("status") in UNDER_WAY:
            return None
        answers: dict[str, ChatAnswer] = {}
        for name in ("output_file_id", "error_file_id"):
            if isinstance(found.get(name), str):
                lines = await self._read(f"/files/{found[name]}/content", MAX_RESULT_BYTES)
                answers |= await asyncio.to_thread(self._parsed, lines)
        if not answers and found.get("status") == "failed":
            text = message(self._engine, f"the batch failed: {_reason(found)}", self._vendor.key)
            raise EngineError(text, code="batch_failed", engine=self._engine, retryable=False)
        return answers

    async def cancel(self, batch: str) -> None:
        await self._post(f"/batches/{batch}/cancel", body={})

    async def discard(self, batch: str) -> None:
        found = await self._look(batch)
        for name in ("input_file_id", "output_file_id", "error_file_id"):
            if isinstance(found.get(name), str):
                await self._vendor.delete(self._engine, f"/files/{found[name]}")

    async def _look(self, batch: str) -> dict[str, Any]:
        return parse_object(await self._read(f"/batches/{batch}", MAX_OBJECT_BYTES))

    async def _read(self, path: str, limit: int) -> bytes:
        async with await self._vendor.get(self._engine, path, limit) as answer:
            return await answer.read()

    async def _post(self, path: str, **content: Any) -> dict[str, Any]:
        answer = await self._vendor.post(self._engine, path, MAX_OBJECT_BYTES, accept="application/json", **content)
        with self._vendor.failures(self._engine):
            async with answer:
                return parse_object(await answer.read())

    def _parsed(self, lines: bytes) -> dict[str, ChatAnswer]:
        with self._vendor.failures(self._engine):
            rows = [_row(line) for line in lines.splitlines() if line.strip()]
            return {_text(row, "custom_id"): self._answer(row) for row in rows}

    def _answer(self, row: Mapping[str, Any]) -> ChatAnswer:
        response = row.get("response")
        if not isinstance(response, dict) or not isinstance(response.get("body"), dict):
            return of_status(self._engine, 400, _reason(row), key=self._vendor.key)
        status = response.get("status_code")
        if status != 200:
            return of_status(
                self._engine,
                status if isinstance(status, int) else 400,
                _reason(response["body"]),
                key=self._vendor.key,
            )
        events = ChatEvents()
        try:
            return [*events.event(response["body"]), events.end()]
        except WireError as error:
            text = message(self._engine, str(error), self._vendor.key)
            return EngineError(text, code="bad_response", engine=self._engine)


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise WireError("a line of the answers is not JSON") from None
    if not isinstance(row, dict):
        raise WireError("a line of the answers is not an object")
    return row


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value or "/" in value:
        raise WireError(f"no `{name}` came back")
    return value


def _reason(found: Mapping[str, Any]) -> str:
    """The vendor's words, wherever it put them."""
    error = found.get("error") or found.get("errors")
    if isinstance(error, dict) and isinstance(error.get("data"), list) and error["data"]:
        error = error["data"][0]
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return "no reason given"
