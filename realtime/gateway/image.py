"""`POST /v1/ai/image`: pictures from words, kept as files with signed URLs; base64 beside them when asked for."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from realtime.adapters.base import EngineError, Image, ImageGenerator
from realtime.adapters.routing import Amount, Model
from realtime.gateway.bodies import Body, Whole, wrong
from realtime.gateway.files import EXTENSIONS
from realtime.gateway.openapi import described
from realtime.gateway.work import Call, Gateway, answer_json, prepared, with_metadata

PATH = "/v1/ai/image"
MAX_BODY = 256 << 10
MAX_PROMPT = 32_000
MAX_COUNT = 10
MAX_SIDE = 8192
MAX_BYTES = 64 << 20
"""Of one answer's pictures together."""

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


class ImageBody(Body):
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT, description="What the image is to show.")]
    size: Annotated[str, Field(max_length=16)] | None = Field(None, description="`WIDTHxHEIGHT`, or `auto`.")
    n: Annotated[Whole, Field(ge=1, le=MAX_COUNT)] | None = Field(None, description="Number of images; 1 by default.")
    prefer: Literal["balanced", "cheapest", "smartest"] = Field("balanced", description="Optimization axis.")
    include: Annotated[list[Literal["b64"]], Field(max_length=4)] | None = Field(
        None, description='`["b64"]` adds the bytes in base64.'
    )


def image_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["ai"])

    async def image(request: Request) -> Response:
        call, body = await prepared(gateway, request, "media", ImageBody, MAX_BODY)
        return await answer_json(request, call, body, PATH, images)

    router.add_api_route(PATH, image, methods=["POST"], **described("image", ImageBody))
    return router


def size_of(text: str | None) -> tuple[int, int] | None:
    if text is None or text == "auto":
        return None
    match = _SIZE.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2])) > MAX_SIDE:
        raise wrong("size", f"give it as 1024x1024, at most {MAX_SIDE} a side, or auto")
    return int(match[1]), int(match[2])


async def images(call: Call, body: ImageBody) -> dict[str, Any]:
    size, count = size_of(body.size), body.n or 1
    needs = frozenset({"size"} if size is not None else ())
    amount = Amount(images=count)
    plan = call.plan(body, "image", task="image", prefer=body.prefer, needs=needs, amount=amount)
    tries = call.tries(plan.models)

    async def work(model: Model) -> list[Image]:
        engine = cast(ImageGenerator, await call.gateway.catalogue.engine(model))
        made: list[Image] = []
        async with engine.generate(body.prompt, size=size, count=count) as found:
            async for image in found:
                made.append(image)
                if sum(len(one.data) for one in made) > MAX_BYTES or image.mime not in EXTENSIONS:
                    raise EngineError("images that cannot be kept", code="bad_response", engine=model.vendor)
        return made

    candidate, made = await tries.first(work)
    if len(made) < count:
        call.warnings.append(f"fewer_images:{len(made)}")
    amount = Amount(images=len(made))
    cost = candidate.engine.prices.cost(amount)
    await call.gateway.meter.count(call.key.id, amount, cost)
    shown = []
    for image in made:
        id_ = await call.gateway.files.put(image.data, image.mime)
        one = {"url": await call.gateway.files.url(call.url, id_)}
        if "b64" in (body.include or ()):
            one["b64"] = base64.b64encode(image.data).decode()
        shown.append(one)
    answer: dict[str, Any] = {"images": shown, "usage": {"images": len(made)}}
    return with_metadata(answer, call.metadata(candidate.engine, tries, cost))
