"""Chat requests as jobs: kept in the store, done in the background, there again after a restart.

    queued --start--> running --done--> completed | failed
       |                 `--cancel--> cancelled
       `--cancel--> cancelled

A job goes into a batch of its vendor's where the vendor has such a thing, and only then is there a discount.
Elsewhere it runs as an ordinary request when the server has time, at the ordinary price, and says so. A job's
whole state is one record in the store: a restart finds what was queued or running, asks after what a vendor has,
and does the rest again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import APIRouter, Request

from realtime import problems
from realtime.adapters.base import Batching, ChatBatches, EngineError
from realtime.adapters.routing import Model
from realtime.gateway.chat import Asked, asked, completed, completed_in_batch
from realtime.gateway.chat_body import ChatBody
from realtime.gateway.errors import GatewayError
from realtime.gateway.openapi import problems as error_answers
from realtime.gateway.vendor_batches import VendorBatches
from realtime.gateway.work import Call, Gateway
from realtime.store.base import MAX_VALUE_BYTES, StoreError
from token_service.api_keys import ApiKey

PATH = "/v1/ai/batches"
PREFIX = "batch:"
OPEN_PREFIX = "batch-open:"
"""Names of the jobs that wait or run: looked through at a start, without the results of all others."""
KEPT_S = 7 * 24 * 3600.0
AT_ONCE = 4
"""Jobs that run at a time: they give way to requests that somebody waits for."""
MAX_JOBS = 1000
"""Jobs that wait or run, of all keys."""
JOB_S = 600.0
"""Seconds for one job, once it runs."""
SPARE_S = 0.2
"""Seconds before the caller's deadline at which the job itself is the answer."""

_OPEN = ("queued", "running")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """`document`: the request's body. `answer`: a ChatResult, or `{"error": …}`."""

    id: str
    key: ApiKey
    url: str
    document: dict[str, Any]
    status: str = "queued"
    created_at: int = 0
    finished_at: int | None = None
    answer: dict[str, Any] | None = None
    sent: tuple[str, str] | None = None
    """The model's reference and the vendor's batch that it is in."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def written(self) -> bytes:
        return orjson.dumps(
            {
                "key": self.key.id,
                "url": self.url,
                "document": self.document,
                "status": self.status,
                "created_at": self.created_at,
                "finished_at": self.finished_at,
                "answer": self.answer,
                "sent": self.sent,
            }
        )

    @classmethod
    def parse(cls, name: str, data: bytes) -> Job:
        fields = orjson.loads(data)
        key = ApiKey(fields.pop("key"), frozenset({"chat"}))
        sent = fields.pop("sent", None)
        job = cls(name, key, sent=tuple(sent) if sent else None, **fields)
        if job.status not in _OPEN:
            job.done.set()
        return job

    def shown(self) -> dict[str, Any]:
        """As `GET /v1/ai/batches/{id}` answers."""
        address = f"{self.url}{PATH}/{self.id}"
        metadata = {"request_id": problems.request_id(), "batch_id": self.id}
        found: dict[str, Any] = {
            "id": self.id,
            "object": "batch_job",
            "status": self.status,
            "created_at": self.created_at,
            "finished_at": self.finished_at,
            "poll_url": address,
            "metadata": metadata,
            "_metadata": metadata,
        }
        if self.answer is not None:
            found["error" if "error" in self.answer else "result"] = self.answer.get("error", self.answer)
        return found


class Batches:
    """All jobs. `vendors`: the batches they are in."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.vendors = VendorBatches()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._jobs: dict[str, Job] = {}
        """Those that wait or run in this process."""

    async def start(self) -> None:
        """Takes up what a restart left. A store is one process's here: the jobs of a lost one are ours."""
        store = self._gateway.store
        for name, _ in await store.scan(OPEN_PREFIX, limit=10 * MAX_JOBS):
            id_ = name.removeprefix(OPEN_PREFIX)
            data = await store.get(PREFIX + id_)
            job = Job.parse(id_, data) if data is not None else None
            if job is not None and job.status in _OPEN:
                job.status = "queued"
                self._begin(job)
            else:
                await store.delete(name)

    async def close(self) -> None:
        """Stops; what is not done stays in the store for the next start."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.vendors.close()

    async def submit(self, call: Call, body: ChatBody) -> dict[str, Any]:
        """The answer when it is there in time, else the job with status 202."""
        if len(self._jobs) >= MAX_JOBS:
            raise GatewayError(503, "too_many_jobs", "Too many batch jobs are waiting.", retry_after=30)
        document = {
            name: value for name, value in call.document.items() if name not in ("batch_mode", "idempotency_key")
        }
        job = Job(f"batch_{secrets.token_urlsafe(16)}", call.key, call.url, document, created_at=int(time.time()))
        if len(job.written()) > MAX_VALUE_BYTES:
            raise GatewayError(413, "request_too_large", f"A batch job has at most {MAX_VALUE_BYTES} bytes.")
        await self._save(job)
        self._begin(job)
        try:
            async with asyncio.timeout(max(0.0, call.until - time.monotonic() - SPARE_S)):
                await job.done.wait()
        except TimeoutError:
            return {**job.shown(), "_status": 202, "_headers": {"Location": f"{PATH}/{job.id}"}}
        answer = dict(job.answer or {})
        if "error" in answer:
            error = answer["error"]
            raise GatewayError(error["status"], error["code"], error["message"], param=error["param"])
        if job.status == "cancelled":
            raise GatewayError(409, "batch_cancelled", "The batch job was cancelled.")
        return answer

    async def get(self, key: ApiKey, id_: str) -> Job:
        """404 for another key's job too: it is nobody's business that there is one."""
        job = self._jobs.get(id_)
        if job is None and len(id_) <= 64 and id_.startswith("batch_") and id_.isascii() and id_.isprintable():
            data = await self._gateway.store.get(PREFIX + id_)
            job = Job.parse(id_, data) if data is not None else None
        if job is None or job.key.id != key.id:
            raise GatewayError(404, "not_found", "There is no such batch job.")
        return job

    async def cancel(self, key: ApiKey, id_: str) -> Job:
        """A job that is over stays as it is."""
        job = await self.get(key, id_)
        if job.status in _OPEN:
            job.status, job.finished_at = "cancelled", int(time.time())
            await self._save(job)
            if job.task is not None:
                job.task.cancel()
            self.vendors.leave(job.id, cancelled=True)
            job.done.set()
        return job

    def _begin(self, job: Job) -> None:
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._work(job))

    async def _work(self, job: Job) -> None:
        try:
            try:
                job.answer = await self._answer(job)
                job.status = "completed"
            except StoreError:
                raise
            except TimeoutError:
                job.status = "failed"
                job.answer = _failure(EngineError("the time for this job is over", code="deadline"))
            except Exception as error:
                job.status, job.answer = "failed", _failure(error)
            job.finished_at = int(time.time())
            await self._save(job)
            self.vendors.leave(job.id)
            job.done.set()
        except StoreError as error:
            logger.error("batch job %s cannot be kept: %s", job.id, error)
            job.status, job.answer = "failed", _failure(error)
            job.done.set()
        finally:
            self._jobs.pop(job.id, None)

    async def _answer(self, job: Job) -> dict[str, Any]:
        """A `ChatResult`. Raises what is wrong."""
        body = ChatBody.model_validate({**job.document, "timeout_seconds": JOB_S, "stream": False})
        call = Call(self._gateway, job.key, time.monotonic() + JOB_S, job.url, job.document)
        call.began -= max(0.0, time.time() - job.created_at)
        call.batch = {"batch_id": job.id, "discount": None}
        async with asyncio.timeout(JOB_S):
            ask = await asked(call, body, fetch=job.sent is None)
            models = await self._with_batches(ask, job)
        if models:
            return await self._by_vendor(job, ask, models)
        call.warnings.append("batch_unsupported")
        async with self._places:
            job.status = "running"
            await self._save(job)
            call.until = time.monotonic() + JOB_S
            # What was asked before it had a place may be out of date by now.
            async with asyncio.timeout(JOB_S):
                return await completed(await asked(call, body))

    async def _with_batches(self, ask: Asked, job: Job) -> list[tuple[Model, ChatBatches]]:
        """The models that may answer, as long as they have batches; the one that has the job already."""
        found = []
        for model in ask.models if job.sent is None else [m for m in ask.models if m.ref == job.sent[0]]:
            engine = await self._gateway.catalogue.engine(model)
            batches = engine.batches if isinstance(engine, Batching) else None
            if batches is None:
                break
            found.append((model, batches))
        return found

    async def _by_vendor(self, job: Job, ask: Asked, models: Sequence[tuple[Model, ChatBatches]]) -> dict[str, Any]:
        """By the first that takes it. Once one has taken it, no other is asked."""
        began = time.monotonic()
        for model, batches in models:
            request = ask.of(model)
            if job.sent is not None:
                group = self.vendors.join_again(job.id, model.ref, batches, job.sent[1], job.created_at)
                break
            group = self.vendors.join(job.id, model.ref, batches, request)
            try:
                batch = await self.vendors.sent(group)
            except EngineError as error:
                self.vendors.leave(job.id)
                ask.tries.note(model.vendor, model.name, error.code, began)
                if model is models[-1][0]:
                    raise
                continue
            job.sent, job.status = (model.ref, batch), "running"
            await self._save(job)
            break
        answer = await self.vendors.answer(job.id, group)
        if isinstance(answer, EngineError):
            raise answer
        ask.tries.note(model.vendor, model.name, "ok", began)
        ask.call.until = time.monotonic() + JOB_S
        return await completed_in_batch(ask, model, answer)

    async def _save(self, job: Job) -> None:
        data = job.written()
        if len(data) > MAX_VALUE_BYTES:
            raise StoreError("the answer is too large to be kept")
        store = self._gateway.store
        if job.status == "queued":
            await store.put(OPEN_PREFIX + job.id, b"", ttl=KEPT_S)
        await store.put(PREFIX + job.id, data, ttl=KEPT_S)
        if job.status not in _OPEN:
            await store.delete(OPEN_PREFIX + job.id)


def _failure(error: BaseException) -> dict[str, Any]:
    problem = problems.problem_of(error)
    return {
        "error": {
            "status": problem.status,
            "code": problem.code,
            "message": problem.message,
            "param": problem.param,
        }
    }


def batch_routes(gateway: Gateway, batches: Batches) -> APIRouter:
    router = APIRouter(tags=["ai"])
    answers = error_answers(401, 403, 404, 429)

    @router.get(PATH + "/{id}", operation_id="get_batch", summary="A batch job", responses=answers)
    async def get_batch(id: str, request: Request) -> dict[str, Any]:
        """Its status, and its result once there is one. Jobs are kept for a week."""
        key = await gateway.admit(request, "chat")
        return (await batches.get(key, id)).shown()

    @router.post(PATH + "/{id}/cancel", operation_id="cancel_batch", summary="Cancel a batch job", responses=answers)
    async def cancel_batch(id: str, request: Request) -> dict[str, Any]:
        """Ends a job that waits or runs; one that is over stays as it is."""
        key = await gateway.admit(request, "chat")
        return (await batches.cancel(key, id)).shown()

    return router
