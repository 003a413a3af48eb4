"""Requests collected into batches of a vendor's own, sent, and asked after until they are answered.

    collecting --full, or after a while--> sent --asked after--> over
                                             `--a day later--> given up

A `Group` is one vendor batch: its requests all go to one model. Which batch a request is in, its owner keeps in the
store as soon as it is known, and joins that batch again after a restart. A crash between a vendor's taking a batch
and that note sends the requests again. Nothing is sent twice otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from realtime.adapters.base import ChatAnswer, ChatBatches, ChatRequest, EngineError

COLLECT_S = 2.0
"""Seconds that the first request of a batch waits for others."""

SUBMITS = 3
"""How often a batch is offered to a vendor that may take it later."""

SUBMIT_WAIT_S = (2.0, 30.0)
"""Seconds before the next try, where the vendor does not say; and the most it may say."""

POLL_S = (2.0, 60.0)
"""Seconds from one question to the next, at first and at last."""

GIVE_UP_S = 26 * 3600.0
"""Vendors promise an answer, or an expiry, within a day."""

logger = logging.getLogger(__name__)


class Group:
    """One batch of a vendor. `sent`: its name there; `over`: the answers."""

    def __init__(self, batches: ChatBatches) -> None:
        self.batches = batches
        self.requests: dict[str, ChatRequest] = {}
        self.waiting: set[str] = set()
        """Ids of those who want an answer; when nobody does any more, the batch is cancelled."""
        self.bytes = 0
        self.full = asyncio.Event()
        self.sent: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Future[Mapping[str, ChatAnswer]] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        for future in (self.sent, self.over):
            if not future.done():
                future.set_exception(error)
            future.exception()  # seen: everyone may have left


class VendorBatches:
    """Every batch of this process. `model`, in the arguments: a reference that names its engine."""

    def __init__(self) -> None:
        self.collect_s = COLLECT_S
        self.submit_wait_s = SUBMIT_WAIT_S
        self.poll_s = POLL_S
        self._collecting: dict[str, Group] = {}
        self._sent: dict[tuple[str, str], Group] = {}
        self._group_of: dict[str, Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, id_: str, model: str, batches: ChatBatches, request: ChatRequest) -> Group:
        """Puts a request into the next batch."""
        size = _size(request)
        group = self._collecting.get(model)
        if group is None or group.bytes + size > batches.max_bytes:
            if group is not None:
                group.full.set()
            group = self._collecting[model] = Group(batches)
            self._start(self._collect(model, group))
        group.requests[id_] = request
        group.bytes += size
        if len(group.requests) >= batches.max_requests:
            del self._collecting[model]
            group.full.set()
        return self._joined(id_, group)

    def join_again(self, id_: str, model: str, batches: ChatBatches, batch: str, since: float) -> Group:
        """The batch that a request was sent in at `since`, unix seconds."""
        group = self._sent.get((model, batch))
        if group is None:
            group = self._sent[model, batch] = Group(batches)
            group.sent.set_result(batch)
            self._start(self._ask_after(model, batch, group, GIVE_UP_S - (time.time() - since)))
        return self._joined(id_, group)

    async def sent(self, group: Group) -> str:
        """What the vendor calls the batch, once it has taken it. Raises `EngineError`."""
        return await asyncio.shield(group.sent)

    async def answer(self, id_: str, group: Group) -> ChatAnswer:
        """Raises `EngineError` when there is none."""
        answers = await asyncio.shield(group.over)
        if id_ not in answers:
            raise EngineError("the vendor's batch expired before this was done", code="batch_expired", retryable=False)
        return answers[id_]

    def leave(self, id_: str, *, cancelled: bool = False) -> None:
        """The answer is kept, or not wanted any more: the last to leave cancels the batch, or clears it away."""
        group = self._group_of.pop(id_, None)
        if group is None:
            return
        group.waiting.discard(id_)
        if not group.sent.done():
            group.requests.pop(id_, None)
        elif not group.waiting and group.sent.exception() is None:
            batch = group.sent.result()
            if group.over.done() and group.over.exception() is None:
                self._start(_quietly(group.batches.discard(batch), f"batch {batch} is not cleared away"))
            elif cancelled:
                self._start(_quietly(group.batches.cancel(batch), f"batch {batch} is not cancelled"))

    async def close(self) -> None:
        """What was sent goes on at the vendor."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _joined(self, id_: str, group: Group) -> Group:
        group.waiting.add(id_)
        self._group_of[id_] = group
        return group

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _collect(self, model: str, group: Group) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.collect_s):
                await group.full.wait()
        if self._collecting.get(model) is group:
            del self._collecting[model]
        if not group.requests:
            group.fail(EngineError("everyone has left", code="cancelled", retryable=False))
            return
        try:
            batch = await self._submit(group)
        except EngineError as error:
            group.fail(error)
            return
        group.requests = {}
        self._sent[model, batch] = group
        group.sent.set_result(batch)
        if not group.waiting:
            await _quietly(group.batches.cancel(batch), f"batch {batch} is not cancelled")
        await self._ask_after(model, batch, group, GIVE_UP_S)

    async def _submit(self, group: Group) -> str:
        tries = 1
        while True:
            try:
                return await group.batches.submit(dict(group.requests))
            except EngineError as error:
                if not error.retryable or tries == SUBMITS:
                    raise
                least, most = self.submit_wait_s
                wait = min(most, error.retry_after if error.retry_after is not None else least * tries)
            tries += 1
            await asyncio.sleep(wait)

    async def _ask_after(self, model: str, batch: str, group: Group, seconds: float) -> None:
        until = time.monotonic() + seconds
        wait, longest = self.poll_s
        try:
            while True:
                await asyncio.sleep(wait)
                wait = min(longest, 1.5 * wait)
                try:
                    answers = await group.batches.answers(batch)
                except EngineError as error:
                    if error.code in ("batch_failed", "not_found"):
                        group.fail(error)
                        return
                    # Also a key that is refused: it may be put right before the day is over.
                    logger.warning("batch %s cannot be asked after: %s", batch, error)
                    answers = None
                if answers is not None:
                    group.over.set_result(answers)
                    return
                if time.monotonic() > until:
                    group.over.set_result({})
                    return
        finally:
            self._sent.pop((model, batch), None)


async def _quietly(work: Coroutine[Any, Any, None], trouble: str) -> None:
    try:
        await work
    except EngineError as error:
        logger.warning("%s: %s", trouble, error)


def _size(request: ChatRequest) -> int:
    """Bytes, nearly: what grows is text and pictures."""
    tools = sum(len(str(tool.parameters)) + len(tool.description) for tool in request.tools)
    said = sum(
        len(one.content.encode(errors="replace")) + sum(len(i.url) for i in one.images) for one in request.messages
    )
    return 2048 + tools + said
