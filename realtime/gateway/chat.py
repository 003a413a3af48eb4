"""`POST /v1/ai/chat`: one answer of a model, whole or as server-sent events.

Both ways read the vendor's stream. A whole answer may come from the next vendor when one fails in the
middle; of a streamed one that is true only until its first token. What a caller who left has used is
counted all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from realtime import problems
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatModel,
    ChatRequest,
    EngineError,
    Message,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from realtime.adapters.routing import EXPECTED_OUTPUT, Amount, Model, estimate_tokens
from realtime.adapters.tries import Tries
from realtime.gateway import sse, structured
from realtime.gateway.bodies import wrong
from realtime.gateway.cache import cache_key
from realtime.gateway.chat_body import ChatBody, messages_of, request_of
from realtime.gateway.idempotency import Claim, Stored
from realtime.gateway.images import with_images
from realtime.gateway.openapi import EVENTS, described
from realtime.gateway.work import (
    Call,
    Gateway,
    answer_json,
    claim,
    mark_replayed,
    prepared,
    unless_left,
    with_metadata,
)
from realtime.store.base import StoreError

PATH = "/v1/ai/chat"
MAX_BODY = 64 << 20
"""Bytes: texts are bounded further, this leaves room for pictures in base64."""
GATHER_S = 0.01
"""Seconds, less than a display shows a picture for: tokens that come faster than that leave together. Each waking
of a process costs more than everything else that is done for a token. The first one never waits."""
IMAGE_TOKENS = 1000
"""An estimate for one picture."""


def chat_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["ai"])

    async def chat(request: Request) -> Response:
        call, body = await prepared(gateway, request, "chat", ChatBody, MAX_BODY)
        if body.stream:
            if body.batch_mode:
                raise wrong("batch_mode", "a batch job cannot be streamed")
            return await _answer_stream(request, call, body)
        return await answer_json(request, call, body, PATH, complete)

    about = described("chat", ChatBody)
    about["responses"][200]["content"] |= {"text/event-stream": {"example": EVENTS}}
    router.add_api_route(PATH, chat, methods=["POST"], **about)
    return router


# --- one answer -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Folded:
    """What has come of a stream so far."""

    text: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    end: ChatEnd | None = None
    first_at: float | None = None

    def add(self, delta: ChatDelta) -> None:
        if self.first_at is None:
            self.first_at = time.monotonic()
        match delta:
            case TextDelta(text):
                self.text.append(text)
            case ToolCallDelta():
                call = self.calls.setdefault(
                    delta.index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
                )
                call["id"] = delta.id or call["id"]
                call["function"]["name"] = delta.name or call["function"]["name"]
                call["function"]["arguments"] += delta.arguments
            case ChatEnd():
                self.end = delta

    def content(self) -> str:
        return "".join(self.text)


@dataclass(slots=True)
class Asked:
    """A request on its way: what is asked, of whom, with what amounts."""

    call: Call
    body: ChatBody
    request: ChatRequest
    models: tuple[Model, ...]
    tries: Tries[Model]
    checker: structured.Checker | None
    cache_key: str | None
    used: Usage = field(default_factory=Usage)
    """All that was asked for and given, the tries that came to nothing included."""
    cost: float | None = 0.0

    def of(self, model: Model) -> ChatRequest:
        """The request as `model` can take it."""
        request = structured.instructed(self.request, model.caps)
        if request.temperature is not None and "temperature" not in model.caps:
            if self.body.model is not None:
                raise wrong("temperature", f"{model.id} does not take it", "unsupported")
            self.call.warnings.append(f"dropped:temperature:{model.vendor}/{model.name}")
            request = replace(request, temperature=None)
        return request

    async def engine(self, model: Model) -> ChatModel:
        return cast(ChatModel, await self.call.gateway.catalogue.engine(model))


async def asked(
    call: Call,
    body: ChatBody,
    messages: Sequence[Message] | None = None,
    task: str | None = None,
    *,
    fetch: bool = True,
) -> Asked:
    """Plans the request. Raises what is wrong with it before any vendor hears of it. `fetch`: the pictures."""
    if messages is None:
        messages = messages_of(body.said())
    images = sum(len(message.images) for message in messages)
    if images and fetch:
        messages = await with_images(call, messages)
    request = request_of(body, messages, call.key.id)
    if body.cache_strategy == "vendor":
        request = replace(request, cache_key=hashlib.sha256(call.key.id.encode()).hexdigest()[:32])
    checker = structured.Checker(request.response_format) if request.response_format is not None else None
    needs = {name for name, needed in (("tools", request.tools), ("vision", images)) if needed}
    characters = sum(len(message.content) for message in messages)
    amount = Amount(estimate_tokens(characters) + images * IMAGE_TOKENS, body.max_tokens or EXPECTED_OUTPUT)
    plan = call.plan(body, "chat", task=task or body.task, prefer=body.prefer, needs=frozenset(needs), amount=amount)
    key = None
    if body.cache_strategy == "infrai":
        key = cache_key(call.key.id, plan.models[0].ref, call.document)
        call.cache = "miss"
    return Asked(call, body, request, plan.models, call.tries(plan.models), checker, key)


async def complete(call: Call, body: ChatBody) -> dict[str, Any]:
    """The whole answer as a `ChatResult`."""
    if body.batch_mode:
        return await call.gateway.batches.submit(call, body)
    return await completed(await asked(call, body))


async def completed(ask: Asked) -> dict[str, Any]:
    cached = _from_cache(ask)
    if cached is not None:
        return cached
    return await _finished(ask, *await _folded(ask, ask.request))


async def completed_in_batch(ask: Asked, model: Model, deltas: Sequence[ChatDelta]) -> dict[str, Any]:
    """The whole answer, of which a vendor's batch gave the `deltas`, at the batch's price."""
    folded = Folded()
    for delta in deltas:
        folded.add(delta)
    folded.first_at = None
    prices = model.prices
    answer = await _finished(ask, replace(model, prices=prices.of_batch()), folded)
    ordinary = prices.cost(Amount(ask.used.input_tokens, ask.used.output_tokens, ask.used.cached_tokens))
    if ask.cost is not None and ordinary:
        answer["metadata"]["discount"] = round(1 - ask.cost / ordinary, 4)
    return answer


async def _finished(ask: Asked, model: Model, folded: Folded) -> dict[str, Any]:
    """Checked, mended once if need be, counted, and kept where that was asked for."""
    if ask.checker is not None and not folded.calls:
        complaint = ask.checker.complaint(structured.unfenced(folded.content()))
        if complaint is not None:
            await _count(ask, model, folded)
            ask.request = structured.repair(ask.request, folded.content(), complaint)
            ask.call.warnings.append("structured_output_repaired")
            model, folded = await _folded(ask, ask.request)
            complaint = ask.checker.complaint(structured.unfenced(folded.content()))
            if complaint is not None:
                await _count(ask, model, folded)
                raise structured.failed(complaint)
        folded.text = [structured.unfenced(folded.content())]
    answer = await _result(ask, model, folded)
    if ask.cache_key is not None and answer["finish_reason"] in ("stop", "tool_calls"):
        ask.call.gateway.cache.put(ask.cache_key, answer)
    return answer


async def _folded(ask: Asked, request: ChatRequest) -> tuple[Model, Folded]:
    async def work(model: Model) -> Folded:
        folded = Folded()
        engine = await ask.engine(model)
        try:
            async with engine.stream(ask.of(model)) as deltas:
                async for delta in deltas:
                    folded.add(delta)
        except BaseException:
            if folded.first_at is not None:
                await _count(ask, model, folded)  # what a vendor gave before it failed is paid for
            raise
        return folded

    candidate, folded = await ask.tries.first(work)
    return candidate.engine, folded


async def _result(ask: Asked, model: Model, folded: Folded) -> dict[str, Any]:
    usage, cost = await _count(ask, model, folded)
    calls = [folded.calls[index] for index in sorted(folded.calls)]
    answer: dict[str, Any] = {"content": None if calls and not folded.text else folded.content()}
    if calls:
        answer["tool_calls"] = calls
    _warn_dropped(ask, folded)
    answer |= {"finish_reason": folded.end.finish_reason if folded.end else "stop", "usage": usage}
    return with_metadata(answer, ask.call.metadata(model, ask.tries, cost, ttft=folded.first_at))


def _warn_dropped(ask: Asked, folded: Folded) -> None:
    for name in folded.end.dropped if folded.end else ():
        ask.call.warnings.append(f"dropped:{name}")


async def _count(ask: Asked, model: Model, folded: Folded) -> tuple[dict[str, Any], float | None]:
    """Usage and cost of the request so far; what this answer adds goes into the books."""
    used = folded.end.usage if folded.end is not None else None
    if used is None:
        read = sum(len(message.content) for message in ask.request.messages)
        written = len(folded.content()) + sum(len(call["function"]["arguments"]) for call in folded.calls.values())
        used = Usage(estimate_tokens(read), estimate_tokens(written))
        ask.call.warnings.append("usage_estimated")
    amount = Amount(used.input_tokens, used.output_tokens, used.cached_tokens)
    cost = model.prices.cost(amount)
    await ask.call.gateway.meter.count(ask.call.key.id, amount, cost)
    ask.used = Usage(
        ask.used.input_tokens + used.input_tokens,
        ask.used.output_tokens + used.output_tokens,
        ask.used.cached_tokens + used.cached_tokens,
    )
    ask.cost = None if ask.cost is None or cost is None else ask.cost + cost
    return usage_of(ask.used), ask.cost


def usage_of(used: Usage) -> dict[str, Any]:
    usage = {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
    }
    return usage | ({"cached_tokens": used.cached_tokens} if used.cached_tokens else {})


def _from_cache(ask: Asked) -> dict[str, Any] | None:
    if ask.cache_key is None:
        return None
    found = ask.call.gateway.cache.get(ask.cache_key)
    if found is None:
        return None
    ask.call.cache = "hit"
    metadata = ask.call.metadata(ask.models[0], ask.tries, 0.0)
    return with_metadata(
        found, {**metadata, "vendor": found["metadata"]["vendor"], "model": found["metadata"]["model"]}
    )


# --- streamed -------------------------------------------------------------------------------------


async def _answer_stream(request: Request, call: Call, body: ChatBody) -> Response:
    held = await claim(call, body, PATH)
    if isinstance(held, Stored):
        return _replayed_stream(held)
    recording = sse.Recording()
    if held is None:
        task = asyncio.create_task(_stream(call, body, recording))
    else:
        task = call.gateway.in_background(_kept_stream(held, call, body, recording, request.scope))
    task.add_done_callback(_seen)

    def leave() -> None:
        if held is None and not task.done():
            task.cancel()

    try:
        # An error before the first token is an ordinary error, unless it is long in coming.
        await unless_left(request, _begun(recording, task))
    except BaseException:
        leave()
        raise
    return sse.EventStream(recording, leave)


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


async def _begun(recording: sse.Recording, task: asyncio.Task[None]) -> None:
    await recording.more(0, sse.KEEP_ALIVE_S)
    if not recording.chunks and recording.ended:
        await task


async def _stream(call: Call, body: ChatBody, recording: sse.Recording, held: Claim | None = None) -> None:
    """Writes the stream of one answer, and keeps it when it is `held`. Raises what fails."""
    try:
        try:
            async with asyncio.timeout(call.until - time.monotonic()):
                await _events(await asked(call, body), recording)
        except TimeoutError:
            raise EngineError("the time for this request is over", code="deadline") from None
        if held is not None:
            # Kept before it ends: whoever saw the end may ask again at once.
            chunks = [chunk.decode() for chunk in (*recording.chunks, sse.DONE)]
            await held.finish(Stored("events", 200, orjson.dumps(chunks)))
        recording.add(sse.DONE)
    except Exception as error:
        if not recording.chunks and time.monotonic() - call.began < sse.KEEP_ALIVE_S:
            raise
        recording.add(sse.error_event(_error_body(error)))
        raise
    finally:
        recording.end()


def _error_body(error: Exception) -> dict[str, Any]:
    response = problems.render(problems.problem_of(error), {"type": "http", "path": PATH, "headers": []})
    body: dict[str, Any] = orjson.loads(bytes(response.body))
    return body


async def _events(ask: Asked, recording: sse.Recording) -> None:
    cached = _from_cache(ask)
    if cached is not None:
        _record_whole(cached, recording)
        return
    folded = Folded()
    async with AsyncExitStack() as stack:
        model, held, deltas = await _opened(ask, stack)
        try:
            for delta in held:
                _record(delta, folded, recording)
            async for delta in deltas:
                _record(delta, folded, recording)
        except BaseException:
            with contextlib.suppress(StoreError):
                await asyncio.shield(_count(ask, model, folded))
            raise
    if ask.checker is not None and not folded.calls:
        complaint = ask.checker.complaint(structured.unfenced(folded.content()))
        if complaint is not None:
            await _count(ask, model, folded)
            raise structured.failed(complaint)
    answer = await _result(ask, model, folded)
    if ask.cache_key is not None and answer["finish_reason"] in ("stop", "tool_calls"):
        ask.call.gateway.cache.put(ask.cache_key, answer)
    recording.add(sse.event(_last(answer)))


async def _opened(ask: Asked, stack: AsyncExitStack) -> tuple[Model, list[ChatDelta], AsyncIterator[ChatDelta]]:
    """The first stream that gives a token, and what it gave."""

    async def work(model: Model) -> tuple[AsyncExitStack, list[ChatDelta], AsyncIterator[ChatDelta]]:
        async with AsyncExitStack() as own:
            engine = await ask.engine(model)
            request = replace(ask.of(model), gather_s=GATHER_S)
            deltas = await own.enter_async_context(engine.stream(request))
            first = await anext(deltas, None)
            return own.pop_all(), [] if first is None else [first], deltas
        raise AssertionError  # the block either returns or raises

    candidate, (own, held, deltas) = await ask.tries.first(work)
    await stack.enter_async_context(own)
    return candidate.engine, held, deltas


def _record(delta: ChatDelta, folded: Folded, recording: sse.Recording) -> None:
    first = folded.first_at is None
    folded.add(delta)
    match delta:
        case TextDelta(text):
            said: dict[str, Any] = {"content": text}
        case ToolCallDelta():
            function: dict[str, Any] = {"arguments": delta.arguments}
            made: dict[str, Any] = {"index": delta.index, "function": function}
            if delta.name is not None:
                function["name"] = delta.name
                made |= {"id": delta.id, "type": "function"}
            said = {"tool_calls": [made]}
        case ChatEnd():
            return
    if first:
        said = {"role": "assistant", **said}
    recording.add(sse.event({"delta": said, "finish_reason": None, "index": 0}))


def _record_whole(answer: dict[str, Any], recording: sse.Recording) -> None:
    """A kept answer as a stream: what was said in one piece."""
    delta: dict[str, Any] = {"role": "assistant"}
    if answer["content"] is not None:
        delta["content"] = answer["content"]
    if "tool_calls" in answer:
        delta["tool_calls"] = [{"index": index, **made} for index, made in enumerate(answer["tool_calls"])]
    recording.add(sse.event({"delta": delta, "finish_reason": None, "index": 0}))
    recording.add(sse.event(_last(answer)))


def _last(answer: dict[str, Any]) -> dict[str, Any]:
    rest = {name: answer[name] for name in ("finish_reason", "usage", "metadata", "_metadata")}
    return {"delta": {}, "index": 0, **rest}


# --- kept streams ---------------------------------------------------------------------------------


async def _kept_stream(held: Claim, call: Call, body: ChatBody, recording: sse.Recording, scope: Any) -> None:
    try:
        await _stream(call, body, recording, held)
    except BaseException as error:
        problem = problems.problem_of(error)
        with contextlib.suppress(StoreError):
            if recording.chunks or problem.status >= 500:
                await asyncio.shield(held.abandon())
            else:
                response = problems.render(problem, scope)
                await held.finish(Stored("json", problem.status, bytes(response.body), str(response.media_type)))
        raise


def _replayed_stream(stored: Stored) -> Response:
    headers = {"Idempotent-Replayed": "true"}
    if stored.kind == "json":
        return Response(stored.body, stored.status, headers, stored.media_type)
    recording = sse.Recording()
    *chunks, last, done = orjson.loads(stored.body)
    for chunk in chunks:
        recording.add(chunk.encode())
    recording.add(sse.event(mark_replayed(orjson.loads(last.removeprefix("data: ")))))
    recording.add(done.encode())
    recording.end()
    return sse.EventStream(recording, lambda: None, headers=headers)
