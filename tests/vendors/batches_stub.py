"""The batch interfaces of OpenAI, Anthropic and Google on a real loopback socket, for tests.

A batch is answered when the test says so (`finish`), every request by what it asked for. What the vendors'
own SDKs have types for is checked against those types before it is sent. `@copilotkit/aimock` is the second,
independent stand-in for OpenAI's, in tests/interop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from openai.types import Batch, FileObject
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

WHEN = "2026-01-01T00:00:00Z"


@dataclass
class Sent:
    """One batch. `requests`: by id, as the vendor got them. `state`: open, over, cancelled, expired, failed."""

    id: str
    requests: dict[str, dict[str, Any]]
    state: str = "open"
    cancelled: bool = False
    asked: int = 0
    input_file: str = ""


@dataclass
class BatchesStub:
    """`refusals`: statuses with which the next batches are refused."""

    url: str = ""
    sent: list[Sent] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    text: str = "From a batch."
    finish_at_once: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def finish(self, state: str = "over") -> None:
        for batch in self.sent:
            if batch.state == "open":
                batch.state = state

    async def until(self, predicate: Callable[[], bool], seconds: float = 5.0) -> None:
        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(predicate, seconds)

        assert await asyncio.to_thread(wait), "the stub never saw it"

    @contextlib.contextmanager
    def serve(self) -> Iterator[BatchesStub]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            routes = [
                ("POST", "/v1/files", self._upload), ("GET", "/v1/files/{id}/content", self._content),
                ("DELETE", "/v1/files/{id}", self._delete_file), ("POST", "/v1/batches", self._openai_create),
                ("GET", "/v1/batches/{id}", self._openai_look), ("POST", "/v1/batches/{id}/cancel", self._openai_look),
                ("POST", "/v1/messages/batches", self._anthropic_create),
                ("GET", "/v1/messages/batches/{id}", self._anthropic_look),
                ("POST", "/v1/messages/batches/{id}/cancel", self._anthropic_look),
                ("DELETE", "/v1/messages/batches/{id}", self._delete),
                ("GET", "/v1/messages/batches/{id}/results", self._anthropic_results),
                ("POST", "/v1beta/models/{model}:batchGenerateContent", self._gemini_create),
                ("POST", "/v1beta/batches/{id}:cancel", self._gemini_look),
                ("GET", "/v1beta/batches/{id}", self._gemini_look), ("DELETE", "/v1beta/batches/{id}", self._delete),
            ]  # fmt: skip
            app = Starlette(routes=[Route(path, endpoint, methods=[method]) for method, path, endpoint in routes])
            config = uvicorn.Config(app, loop="asyncio", lifespan="off", log_level="critical")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join(10)

    # --- for all ------------------------------------------------------------------------------

    def _take(self, prefix: str, requests: dict[str, dict[str, Any]]) -> Sent:
        batch = Sent(f"{prefix}{len(self.sent)}", requests, "over" if self.finish_at_once else "open")
        with self._changed:
            self.sent.append(batch)
            self._changed.notify_all()
        return batch

    def _refused(self) -> Response | None:
        if not self.refusals:
            return None
        return JSONResponse({"error": {"message": "not now", "type": "x", "code": 0}}, self.refusals.pop(0))

    def _found(self, request: Request) -> Sent:
        """Also cancels it when that is asked."""
        batch = next(batch for batch in self.sent if batch.id == request.path_params["id"])
        with self._changed:
            batch.asked += 1
            if request.method == "POST":
                batch.cancelled, batch.state = True, "cancelled"
            self._changed.notify_all()
        return batch

    async def _delete(self, request: Request) -> Response:
        with self._changed:
            self.deleted.append(request.path_params["id"])
            self._changed.notify_all()
        return JSONResponse({"id": request.path_params["id"], "type": "message_batch_deleted"})

    # --- OpenAI -------------------------------------------------------------------------------

    async def _upload(self, request: Request) -> Response:
        form = await request.form()
        assert form["purpose"] == "batch"
        upload = form["file"]
        assert not isinstance(upload, str)
        return JSONResponse(self._kept(await upload.read(), f"in-{len(self.sent)}"))

    def _kept(self, data: bytes, name: str) -> dict[str, Any]:
        id_ = f"file-{name}"
        self.files[id_] = data
        found = FileObject(
            id=id_, bytes=len(data), created_at=0, filename=name, object="file", purpose="batch", status="processed"
        )
        return found.model_dump()

    async def _content(self, request: Request) -> Response:
        return Response(self.files[request.path_params["id"]], media_type="application/octet-stream")

    async def _delete_file(self, request: Request) -> Response:
        self.files.pop(request.path_params["id"])
        await self._delete(request)
        return JSONResponse({"id": request.path_params["id"], "object": "file", "deleted": True})

    async def _openai_create(self, request: Request) -> Response:
        refused = self._refused()
        if refused is not None:
            return refused
        body = await request.json()
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        rows = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        assert all((row["method"], row["url"]) == ("POST", "/v1/chat/completions") for row in rows)
        batch = self._take("batch_v", {row["custom_id"]: row["body"] for row in rows})
        batch.input_file = body["input_file_id"]
        return JSONResponse(self._openai(batch))

    async def _openai_look(self, request: Request) -> Response:
        return JSONResponse(self._openai(self._found(request)))

    def _openai(self, batch: Sent) -> dict[str, Any]:
        status: Any = {"open": "in_progress", "over": "completed"}.get(batch.state, batch.state)
        files: dict[str, str] = {}
        if batch.state == "over":
            good = {id_: body for id_, body in batch.requests.items() if _asked(body) != "fail"}
            bad = [id_ for id_ in batch.requests if id_ not in good]
            files["output_file_id"] = self._kept(
                _lines(self._openai_row(*one) for one in good.items()), f"out-{batch.id}"
            )["id"]
            if bad:
                refusal = {"error": {"message": "a bad request", "type": "invalid_request_error"}}
                rows = [{"custom_id": id_, "response": {"status_code": 400, "body": refusal}} for id_ in bad]
                files["error_file_id"] = self._kept(_lines(rows), f"bad-{batch.id}")["id"]
        errors = {"object": "list", "data": [{"code": "x", "message": "a bad file"}]} if status == "failed" else None
        found = Batch.model_validate(
            {"id": batch.id, "completion_window": "24h", "created_at": 0, "endpoint": "/v1/chat/completions",
             "input_file_id": batch.input_file, "object": "batch", "status": status, "errors": errors, **files}
        )  # fmt: skip
        return found.model_dump()

    def _openai_row(self, id_: str, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self._said(_asked(body))}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        answer = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice],
                  "usage": usage}  # fmt: skip
        return {"id": "r", "custom_id": id_, "response": {"status_code": 200, "body": answer}, "error": None}

    # --- Anthropic ----------------------------------------------------------------------------

    async def _anthropic_create(self, request: Request) -> Response:
        refused = self._refused()
        if refused is not None:
            return refused
        rows = (await request.json())["requests"]
        batch = self._take("msgbatch_", {row["custom_id"]: row["params"] for row in rows})
        return JSONResponse(self._anthropic(batch))

    async def _anthropic_look(self, request: Request) -> Response:
        return JSONResponse(self._anthropic(self._found(request)))

    def _anthropic(self, batch: Sent) -> dict[str, Any]:
        over = batch.state != "open"
        counts = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)
        found = MessageBatch.model_validate(
            {"id": batch.id, "created_at": WHEN, "expires_at": WHEN, "type": "message_batch", "request_counts": counts,
             "processing_status": "ended" if over else "in_progress",
             "results_url": f"{self.url}/v1/messages/batches/{batch.id}/results" if over else None}
        )  # fmt: skip
        return found.model_dump(mode="json")

    async def _anthropic_results(self, request: Request) -> Response:
        batch = next(batch for batch in self.sent if batch.id == request.path_params["id"])
        rows = [self._anthropic_row(batch, *one) for one in batch.requests.items()]
        checked = [MessageBatchIndividualResponse.model_validate(row).model_dump(mode="json") for row in rows]
        return Response(_lines(checked), media_type="application/x-jsonl")

    def _anthropic_row(self, batch: Sent, id_: str, body: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any]
        if batch.state != "over":
            result = {"type": {"cancelled": "canceled"}.get(batch.state, "expired")}
        elif _asked(body) == "fail":
            error = {"type": "invalid_request_error", "message": "a bad request"}
            result = {"type": "errored", "error": {"type": "error", "error": error, "request_id": "r"}}
        else:
            usage = {"input_tokens": 100, "output_tokens": 10}
            content = [{"type": "text", "text": self._said(_asked(body)), "citations": None}]
            message = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "content": content,
                       "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}  # fmt: skip
            result = {"type": "succeeded", "message": message}
        return {"custom_id": id_, "result": result}

    # --- Gemini -------------------------------------------------------------------------------

    async def _gemini_create(self, request: Request) -> Response:
        refused = self._refused()
        if refused is not None:
            return refused
        rows = (await request.json())["batch"]["inputConfig"]["requests"]["requests"]
        batch = self._take("", {row["metadata"]["request"]: row["request"] for row in rows})
        return JSONResponse(self._gemini(batch))

    async def _gemini_look(self, request: Request) -> Response:
        return JSONResponse(self._gemini(self._found(request)))

    def _gemini(self, batch: Sent) -> dict[str, Any]:
        state = {"open": "RUNNING", "over": "SUCCEEDED"}.get(batch.state, batch.state.upper())
        metadata: dict[str, Any] = {"state": f"BATCH_STATE_{state}", "createTime": WHEN, "model": "models/m"}
        if batch.state == "over":
            rows = [self._gemini_row(*one) for one in batch.requests.items()]
            metadata["output"] = {"inlinedResponses": {"inlinedResponses": rows}}
        return {"name": f"batches/{batch.id}", "metadata": metadata}

    def _gemini_row(self, id_: str, body: dict[str, Any]) -> dict[str, Any]:
        if _asked(body) == "fail":
            return {"metadata": {"request": id_}, "error": {"code": 3, "message": "a bad request"}}
        content = {"role": "model", "parts": [{"text": self._said(_asked(body))}]}
        usage = {"promptTokenCount": 100, "candidatesTokenCount": 10}
        answer = {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage}
        return {"metadata": {"request": id_}, "response": answer}

    def _said(self, asked: str) -> str:
        return self.text if not asked.startswith("say ") else asked[4:]


def _asked(body: dict[str, Any]) -> str:
    """The last thing said to the model, in any vendor's shape."""
    last = (body.get("messages") or body["contents"])[-1]
    content = last.get("content") or last["parts"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def _lines(rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
