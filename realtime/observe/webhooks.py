"""Signed webhooks: what happens to calls, told to the developer's own server.

Messages follow Standard Webhooks (standardwebhooks.com, version 1.0.0): the headers `webhook-id`,
`webhook-timestamp` and `webhook-signature` (`v1,` and the base64 of an HMAC-SHA256 over
`ID.TIMESTAMP.BODY`), and a body of `type`, `timestamp` and `data`. A try keeps the id of the one before,
so that a receiver can tell a repetition.

What is promised lies in the store until the receiver has taken it, so that a restart loses nothing. The
messages of one call go out in order: the next waits until the one before was taken or given up. Nothing
here is awaited by a call but `ask`, and that for a second at most. Only addresses of the settings are
posted to, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import logging
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

from realtime.store.base import MAX_VALUE_BYTES, Store, StoreError

DELAYS_S = (1.0, 5.0, 30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
"""Between tries, give or take a quarter; the last one is repeated."""
GIVE_UP_S = 12 * 3600.0
"""After this a message is dropped, and the log says so."""
KEPT_S = GIVE_UP_S + 3600.0
ANSWER_S = 1.0
"""How long a caller waits for the answer to a question."""
MAX_ANSWER_BYTES = 64 << 10
MAX_WAITING = 10_000
"""Messages waiting at once; the next one is dropped, and the log says so."""
AT_ONCE = 32
"""Requests under way to one address."""
CLOSING_S = 2.0
"""At shutdown: for what has just been promised to be written, and tried once."""

_DUE, _BODY = "webhook:due:", "webhook:body:"
_RETRY_AFTER = re.compile(r"[0-9]{1,6}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`key`: what signs. `timeout_s`: for one try. `events`: what it is told of."""

    url: str
    key: bytes = field(repr=False)
    timeout_s: float
    events: frozenset[str]

    @property
    def shown(self) -> str:
        """For the log: a path may be secret."""
        return urlsplit(self.url).netloc


def sign(key: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    digest = hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Webhooks:
    """`endpoint_of`: where messages about an agent's calls go, by its name; None for nowhere. `clock`: unix seconds."""

    def __init__(
        self,
        store: Store,
        endpoint_of: Callable[[str], Endpoint | None],
        *,
        delays_s: Sequence[float] = DELAYS_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._endpoint_of = endpoint_of
        self._delays_s = delays_s
        self._clock = clock
        self._client: httpx2.AsyncClient | None = None
        self._queues: dict[str, deque[_Message]] = {}
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: dict[str, asyncio.Semaphore] = {}
        self._order = itertools.count(time.time_ns())
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Take up again what an earlier life of this process had promised."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=AT_ONCE)
        self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False, limits=limits)
        try:
            promised = await self._store.scan(_DUE, limit=MAX_WAITING)
        except StoreError as error:
            logger.error("webhooks promised earlier are not sent: %s", error)
            return
        for key, value in promised:
            message = _read(key, value)
            if message is not None:
                self._put(message)

    async def close(self) -> None:
        """What could not be delivered stays in the store for the next start."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def tell(self, agent: str, call: str, kind: str, data: Mapping[str, Any]) -> None:
        """Promise one message about a call. `call`: messages of the same call arrive in order."""
        endpoint = self._endpoint_of(agent)
        if endpoint is None or kind not in endpoint.events:
            return
        if self._waiting >= MAX_WAITING:
            logger.error("webhook %s of call %s is dropped: %d others wait", kind, call, self._waiting)
            return
        message = _Message(_new_id(), call, agent, kind, self._clock(), next(self._order))
        message.body = _body(kind, message.at, data)
        message.keeping = self._run(self._keep(message, message.body))
        self._put(message)

    async def ask(self, agent: str, kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The JSON object that is answered within `ANSWER_S`; {} when there is none, for whatever reason."""
        endpoint = self._endpoint_of(agent)
        if endpoint is None or kind not in endpoint.events:
            return {}
        try:
            async with asyncio.timeout(ANSWER_S):
                response = await self._post(endpoint, _new_id(), _body(kind, self._clock(), data))
            if not 200 <= response.status < 300:
                raise ValueError(f"status {response.status}")
            answer = orjson.loads(response.body) if response.body.strip() else {}
            if not isinstance(answer, dict):
                raise ValueError("the answer is no JSON object")
        except (httpx2.HTTPError, TimeoutError, ValueError) as error:
            logger.warning("webhook %s: %s gave no answer: %s", kind, endpoint.shown, _reason(error))
            return {}
        return answer

    # --- one call's messages ------------------------------------------------------------------

    def _put(self, message: _Message) -> None:
        self._waiting += 1
        queue = self._queues.get(message.call)
        if queue is not None:
            queue.append(message)
            return
        self._queues[message.call] = deque([message])
        self._run(self._deliver_all(message.call))

    async def _deliver_all(self, call: str) -> None:
        queue = self._queues[call]
        while queue:
            message = queue[0]
            if message.keeping is not None:
                await asyncio.wait([message.keeping])
            if not await self._deliver(message):
                return
            await self._forget(message)
            queue.popleft()
            self._waiting -= 1
        del self._queues[call]

    async def _deliver(self, message: _Message) -> bool:
        """True when the message was taken or given up, False when the server shuts down before that."""
        tries = 0
        while True:
            endpoint = self._endpoint_of(message.agent)
            if endpoint is None:
                logger.error("webhook %s %s is dropped: no address is set any more", message.kind, message.id)
                return True
            body = message.body or await self._load(message)
            if body is None:
                return True
            delay = self._delays_s[min(tries, len(self._delays_s) - 1)] * random.uniform(0.75, 1.25)
            try:
                asked = await self._try(endpoint, message, body)
            except (httpx2.HTTPError, TimeoutError, ValueError) as error:
                reason = _reason(error)
            else:
                if asked is None:
                    return True
                reason, delay = f"it wants to be left alone for {asked:g} s", max(delay, asked)
            tries += 1
            if message.stored:
                message.body = None  # it may have to wait for hours
            if self._clock() + delay > message.at + GIVE_UP_S:
                logger.error("webhook %s %s to %s is given up: %s", message.kind, message.id, endpoint.shown, reason)
                return True
            level = logging.WARNING if tries == 1 else logging.INFO
            logger.log(level, "webhook %s %s to %s: %s", message.kind, message.id, endpoint.shown, reason)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)
            if self._closing.is_set():
                return False

    async def _try(self, endpoint: Endpoint, message: _Message, body: bytes) -> float | None:
        """None when it was taken (or is not wanted any more), else the seconds the receiver asks to be left alone."""
        places = self._places.setdefault(endpoint.url, asyncio.Semaphore(AT_ONCE))
        async with places, asyncio.timeout(endpoint.timeout_s):
            response = await self._post(endpoint, message.id, body, read=False)
        if 200 <= response.status < 300:
            return None
        if response.status == 410:
            logger.error("webhook %s %s: %s wants none (410)", message.kind, message.id, endpoint.shown)
            return None
        if response.status in (429, 503) and _RETRY_AFTER.fullmatch(response.retry_after):
            return min(float(response.retry_after), max(self._delays_s))
        raise ValueError(f"status {response.status}")

    async def _post(self, endpoint: Endpoint, id_: str, body: bytes, *, read: bool = True) -> _Response:
        """Raises `httpx2.HTTPError`, `ValueError` for an answer that is too long."""
        assert self._client is not None, "not started"
        timestamp = int(self._clock())
        headers = {
            "content-type": "application/json",
            "user-agent": "infrai-realtime",
            "accept-encoding": "identity",
            "webhook-id": id_,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(endpoint.key, id_, timestamp, body),
        }
        request = self._client.stream("POST", endpoint.url, content=body, headers=headers, timeout=endpoint.timeout_s)
        async with request as response:
            answer = b""
            if read:
                async for piece in response.aiter_raw():
                    answer += piece
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return _Response(response.status_code, response.headers.get("retry-after", ""), answer)

    # --- the store ----------------------------------------------------------------------------

    async def _keep(self, message: _Message, body: bytes) -> None:
        try:
            await self._store.put(_BODY + message.id, body, ttl=KEPT_S)
            await self._store.put(message.key, message.record(), ttl=KEPT_S)
            message.stored = True
        except StoreError as error:
            logger.error("webhook %s %s will not survive a restart: %s", message.kind, message.id, error)

    async def _load(self, message: _Message) -> bytes | None:
        try:
            body = await self._store.get(_BODY + message.id)
        except StoreError as error:
            logger.error("webhook %s %s is dropped: %s", message.kind, message.id, error)
            return None
        if body is None:
            logger.error("webhook %s %s is dropped: its text is gone", message.kind, message.id)
        return body

    async def _forget(self, message: _Message) -> None:
        try:
            await self._store.delete(message.key)
            await self._store.delete(_BODY + message.id)
        except StoreError as error:
            logger.warning("webhook %s %s may be sent again: %s", message.kind, message.id, error)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a webhook's task failed", exc_info=error)


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    retry_after: str
    body: bytes


@dataclass(slots=True)
class _Message:
    """`at`: unix seconds when it was promised. `order`: rises within a call. `body`: None once only stored."""

    id: str
    call: str
    agent: str
    kind: str
    at: float
    order: int
    body: bytes | None = None
    keeping: asyncio.Task[None] | None = None
    stored: bool = False

    @property
    def key(self) -> str:
        return f"{_DUE}{self.call}:{self.order:020d}"

    def record(self) -> bytes:
        return orjson.dumps({"id": self.id, "agent": self.agent, "kind": self.kind, "at": self.at})


def _read(key: str, value: bytes) -> _Message | None:
    try:
        call, _, order = key.removeprefix(_DUE).rpartition(":")
        record = orjson.loads(value)
        return _Message(record["id"], call, record["agent"], record["kind"], record["at"], int(order), None, None, True)
    except (ValueError, KeyError, TypeError):
        logger.error("a webhook in the store cannot be read: %s", key)
        return None


def _body(kind: str, at: float, data: Mapping[str, Any]) -> bytes:
    """The message as it is sent. A transcript that is too long for the store loses its beginning, and says so."""
    head = {"type": kind, "timestamp": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")}
    body = orjson.dumps({**head, "data": data})
    transcript = list(data.get("transcript", ()))
    while len(body) > MAX_VALUE_BYTES and transcript:
        transcript = transcript[len(transcript) // 2 + 1 :]
        body = orjson.dumps({**head, "data": {**data, "transcript": transcript, "transcript_shortened": True}})
    return body


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else type(error).__name__


def _new_id() -> str:
    return f"msg_{secrets.token_urlsafe(18)}"
