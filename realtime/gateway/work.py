"""What every one-shot endpoint does around its own work: admit, parse, do once, stop when the caller leaves.

The order is fixed: credentials and scope, then limits, and only then the body. A request without an
idempotency key is work for whoever waits, so it is cancelled, and with it the vendor's connection, as soon
as the caller is gone. A request with a key is finished and kept whoever waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from realtime import problems
from realtime.adapters.base import EngineError
from realtime.adapters.catalogue import Catalogue
from realtime.adapters.decoding import Decoder
from realtime.adapters.offers import eligible
from realtime.adapters.routing import Amount, Kind, Model, Plan, Prefer, Wish, plan
from realtime.adapters.tries import Candidate, Tries
from realtime.gateway import bodies
from realtime.gateway.bodies import Body, BodyT
from realtime.gateway.cache import AnswerCache
from realtime.gateway.errors import GatewayError
from realtime.gateway.fetch import Fetcher
from realtime.gateway.files import Files
from realtime.gateway.idempotency import Claim, Idempotency, Stored, fingerprint
from realtime.gateway.limits import Meter, Rate
from realtime.settings import Settings
from realtime.store.base import Store, StoreError
from token_service.api_keys import ApiKey
from token_service.auth import Authenticator

Scope = Literal["chat", "media"]
Result = TypeVar("Result")

NOTHING = Amount()

CLOSE_S = 5.0
"""Seconds that keyed work may go on when the server stops."""

logger = logging.getLogger(__name__)


class BatchJobs(Protocol):
    async def submit(self, call: Call, body: Any) -> dict[str, Any]:
        """Makes a chat request a job; its result if that is in time, else the job."""


class Gateway:
    """The services that the endpoints share. `background`: keyed work that nobody may be waiting for."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, store: Store, authenticator: Authenticator, files: Files
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.store = store
        self.authenticator = authenticator
        self.idempotency = Idempotency(store)
        self.cache = AnswerCache()
        self.meter = Meter(store, settings.limits.spend_usd_per_day)
        self.rate = Rate(settings.limits.requests_per_minute)
        self.fetcher = Fetcher(seconds=settings.limits.fetch_seconds)
        self.decoder = Decoder()
        self.files: Files = files
        self.jitter: Callable[[float, float], float] = random.uniform
        """How long to wait between two tries of a vendor, from the least and the most."""
        self.batches: BatchJobs
        self._background: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self.meter.start()

    async def close(self) -> None:
        if self._background:
            _, late = await asyncio.wait(self._background, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self.meter.close()

    def in_background(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def admit(self, request: Request, scope: Scope) -> ApiKey:
        """The caller's key, within its limits. Raises what the answer is to be otherwise."""
        key = await self.authenticator.api_key(request.headers.get("authorization"), scope)
        wait = self.rate.take(key.id, time.monotonic())
        if wait:
            message = "Too many requests with this key; try again later."
            raise GatewayError(429, "rate_limit_exceeded", message, retry_after=wait)
        await self.meter.admit(key.id)
        return key

    def url(self, request: Request) -> str:
        """How the caller reaches this server, without a slash at the end."""
        return self.settings.server.public_url or str(request.base_url).rstrip("/")


@dataclass(slots=True)
class Call:
    """One request under way. `until`: monotonic seconds."""

    gateway: Gateway
    key: ApiKey
    until: float
    url: str
    document: dict[str, Any]
    request_id: str = field(default_factory=problems.request_id)
    began: float = field(default_factory=time.monotonic)
    warnings: list[str] = field(default_factory=list)
    keyed: bool = False
    cache: str = "bypass"
    batch: dict[str, Any] | None = None

    def plan(
        self,
        body: Body,
        kind: Kind,
        *,
        task: str,
        prefer: Prefer = "balanced",
        needs: frozenset[str] = frozenset(),
        amount: Amount = NOTHING,
    ) -> Plan:
        """The models for this request. Raises `NoModel`."""
        catalogue = self.gateway.catalogue
        route = self.gateway.settings.route(task)
        routes = {name: refs for name, refs in route.model_dump().items() if refs} if route else {}
        models = eligible(
            catalogue.offers,
            kind=kind,
            pinned=(body.model, body.vendor),
            needs=needs,
            routed=[ref for refs in routes.values() for ref in refs],
        )
        wish = Wish(kind, task, prefer, body.model, body.vendor, needs, amount, body.max_cost_multiplier, routes)
        found = plan(wish, models, catalogue.healthy)
        self.warnings += found.warnings
        return found

    def tries(self, models: Sequence[Model]) -> Tries[Model]:
        """`repeatable`: a keyed request must not be done twice where it is not known whether it was done."""
        breaker = self.gateway.catalogue.breaker
        candidates = [Candidate(model.vendor, model.name, model, breaker(model)) for model in models]
        return Tries(candidates, self.until, repeatable=not self.keyed, random=self.gateway.jitter)

    def metadata(
        self, model: Model, tries: Tries[Model], cost: float | None, *, ttft: float | None = None
    ) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "request_id": self.request_id,
            "vendor": model.vendor,
            "model": model.name,
            "latency_ms": round(1000 * (now - self.began), 1),
            "ttft_ms": None if ttft is None else round(1000 * (ttft - self.began), 1),
            "cost_usd": None if cost is None else round(cost, 10),
            "cache": self.cache,
            "attempts": [
                {"vendor": one.vendor, "model": one.model, "status": one.status, "ms": one.ms} for one in tries.log
            ],
            "failover": any(one.vendor != model.vendor or one.model != model.name for one in tries.log),
            "idempotent_replay": False,
            "warnings": list(dict.fromkeys(self.warnings)),
            **(self.batch or {}),
        }


def with_metadata(answer: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Under both names: `metadata`, and `_metadata` as the published examples read it."""
    return {**answer, "metadata": metadata, "_metadata": metadata}


Work = Callable[[Call, BodyT], Awaitable[dict[str, Any]]]


async def prepared(
    gateway: Gateway, request: Request, scope: Scope, model: type[BodyT], limit: int
) -> tuple[Call, BodyT]:
    """Admits the caller and reads what they ask."""
    key = await gateway.admit(request, scope)
    document = bodies.parse(await bodies.read(request, limit))
    return call_of(gateway, request, key, document, model)


def call_of(
    gateway: Gateway, request: Request, key: ApiKey, document: dict[str, Any], model: type[BodyT]
) -> tuple[Call, BodyT]:
    body = bodies.check(model, document)
    body.idempotency_key = _idempotency_key(request, body)
    call = Call(gateway, key, time.monotonic() + body.timeout_seconds, gateway.url(request), document)
    call.keyed = body.idempotency_key is not None
    return call, body


def _idempotency_key(request: Request, body: Body) -> str | None:
    header = request.headers.get("idempotency-key")
    if header is None:
        return body.idempotency_key
    if not 1 <= len(header) <= 255 or not header.isascii() or not header.isprintable() or " " in header:
        raise GatewayError(
            422, "invalid_value", "Idempotency-Key: 1 to 255 visible characters.", param="idempotency_key"
        )
    if body.idempotency_key not in (None, header):
        message = "The header Idempotency-Key and the field idempotency_key differ."
        raise GatewayError(422, "invalid_value", message, param="idempotency_key")
    return header


async def claim(call: Call, body: Body, route: str) -> Claim | Stored | None:
    """None when the request has no key."""
    if body.idempotency_key is None:
        return None
    print_ = fingerprint(call.document)
    idempotency = call.gateway.idempotency
    return await idempotency.claim(call.key.id, route, body.idempotency_key, print_, body.timeout_seconds)


async def answer_json(request: Request, call: Call, body: BodyT, route: str, work: Work[BodyT]) -> Response:
    """Does `work` once and answers with its result."""
    held = await claim(call, body, route)
    if isinstance(held, Stored):
        return replayed(held)
    if held is None:
        return _json(await unless_left(request, _in_time(call, work(call, body))))
    # Shielded from the caller's leaving: it is finished and kept for the retry.
    task = call.gateway.in_background(_kept(held, _in_time(call, work(call, body)), request.scope))
    return await unless_left(request, asyncio.shield(task))


async def _in_time(call: Call, work: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + call.until - time.monotonic()):
            return await work
    except TimeoutError:
        raise EngineError("the time for this request is over", code="deadline") from None


async def _kept(held: Claim, work: Awaitable[dict[str, Any]], scope: Any) -> Response:
    """The response to `work`, kept under the claim. Errors become the responses they would be."""
    try:
        try:
            response = _json(await work)
        except Exception as error:
            problem = problems.problem_of(error)
            if problem.status >= 500:
                raise
            response = problems.render(problem, scope)
        body = bytes(response.body)
        kept = Stored("json", response.status_code, body, str(response.media_type))
        await held.finish(kept)
    except BaseException:
        with contextlib.suppress(StoreError):
            await asyncio.shield(held.abandon())
        raise
    return response


def replayed(stored: Stored) -> Response:
    """A kept result, marked as such."""
    body = stored.body
    if stored.status < 400:
        answer = orjson.loads(body)
        body = orjson.dumps(mark_replayed(answer))
    headers = {"Idempotent-Replayed": "true", "Cache-Control": "no-store"}
    return Response(body, stored.status, headers, stored.media_type)


def mark_replayed(answer: dict[str, Any]) -> dict[str, Any]:
    if isinstance(answer.get("metadata"), dict):
        return with_metadata(answer, {**answer["metadata"], "idempotent_replay": True})
    return answer


def _json(answer: dict[str, Any]) -> Response:
    status = int(answer.pop("_status", 200))
    headers = {"Cache-Control": "no-store", **answer.pop("_headers", {})}
    return Response(orjson.dumps(answer), status, headers, "application/json")


async def unless_left(request: Request, work: Awaitable[Result]) -> Result:
    """`work`'s result; it is cancelled when the caller leaves first. The body must have been read."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.create_task(left(request))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def left(request: Request) -> None:
    """Returns when the caller has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
