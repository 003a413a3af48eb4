"""`POST /v1/ai/embed`: one vector for each text, in order. A dimension a model does not have is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from realtime.adapters.base import Embedder, Embeddings, EngineError
from realtime.adapters.routing import Amount, Model, estimate_tokens
from realtime.gateway.bodies import Body, Whole, wrong
from realtime.gateway.openapi import described
from realtime.gateway.work import Call, Gateway, answer_json, prepared, with_metadata

PATH = "/v1/ai/embed"
MAX_BODY = 16 << 20
MAX_TEXTS = 2048
MAX_CHARACTERS = 2_000_000
"""Of all texts together."""
MAX_NUMBERS = 4 << 20
"""Numbers of an answer: 2,048 vectors of 2,048."""

Text = Annotated[str, Field(min_length=1, max_length=200_000)]


class EmbedBody(Body):
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)] = Field(
        description="Text or list of texts to embed."
    )
    dimensions: Annotated[Whole, Field(ge=1, le=65_536)] | None = Field(
        None, description="Target embedding dimension count."
    )
    prefer: Literal["balanced", "cheapest", "smartest"] = Field("balanced", description="Optimization axis.")


def embed_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["ai"])

    async def embed(request: Request) -> Response:
        call, body = await prepared(gateway, request, "media", EmbedBody, MAX_BODY)
        return await answer_json(request, call, body, PATH, embedded)

    router.add_api_route(PATH, embed, methods=["POST"], **described("embed", EmbedBody))
    return router


async def embedded(call: Call, body: EmbedBody) -> dict[str, Any]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    characters = sum(map(len, texts))
    if characters > MAX_CHARACTERS:
        raise wrong("input", f"more than {MAX_CHARACTERS} characters in all", "text_too_long")
    if body.dimensions is not None and body.dimensions * len(texts) > MAX_NUMBERS:
        raise wrong("dimensions", f"more than {MAX_NUMBERS} numbers in the answer")
    needs = frozenset({"dimensions"} if body.dimensions is not None else ())
    amount = Amount(estimate_tokens(characters))
    plan = call.plan(body, "embed", task="embed", prefer=body.prefer, needs=needs, amount=amount)
    tries = call.tries(plan.models)

    async def work(model: Model) -> Embeddings:
        engine = cast(Embedder, await call.gateway.catalogue.engine(model))
        async with engine.embed(texts, dimensions=body.dimensions) as found:
            async for embeddings in found:
                return embeddings
        raise EngineError("no embedding came", code="bad_response", engine=model.vendor)

    candidate, found = await tries.first(work)
    if found.input_tokens is None:
        call.warnings.append("usage_estimated")
    else:
        amount = Amount(found.input_tokens)
    cost = candidate.engine.prices.cost(amount)
    await call.gateway.meter.count(call.key.id, amount, cost)
    tokens = amount.input_tokens
    answer: dict[str, Any] = {
        "embeddings": found.vectors,
        "model": candidate.engine.name,
        "usage": {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens, "prompt_tokens": tokens},
    }
    return with_metadata(answer, call.metadata(candidate.engine, tries, cost))
