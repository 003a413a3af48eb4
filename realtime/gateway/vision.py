"""`POST /v1/ai/vision`: a question about pictures, answered like a chat by a model that can see."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from realtime.adapters.base import ImagePart, Message
from realtime.gateway.bodies import Body, Real, Whole
from realtime.gateway.chat import MAX_BODY, asked, completed
from realtime.gateway.chat_body import MAX_IMAGES, ChatBody
from realtime.gateway.openapi import described
from realtime.gateway.work import Call, Gateway, answer_json, prepared

PATH = "/v1/ai/vision"


class ImageSource(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    url: Annotated[str, Field(min_length=1)] | None = None
    base64: Annotated[str, Field(min_length=1)] | None = None
    mime: Annotated[str, Field(max_length=128)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ImageSource:
        if (self.url is None) == (self.base64 is None):
            raise ValueError("give either `url` or `base64`")
        return self

    def address(self) -> str:
        return self.url if self.url is not None else f"data:;base64,{self.base64}"


class VisionBody(Body):
    prompt: Annotated[str, Field(min_length=1, max_length=1 << 20, description="The question about the images.")]
    images: Annotated[list[ImageSource], Field(min_length=1, max_length=MAX_IMAGES)] = Field(
        description="Image references as URLs or base64."
    )
    prefer: Literal["balanced", "cheapest", "smartest"] = Field("balanced", description="Optimization axis.")
    temperature: Annotated[Real, Field(ge=0, le=2)] | None = Field(None, description="Sampling temperature.")
    max_tokens: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Maximum tokens to generate."
    )


def vision_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["ai"])

    async def vision(request: Request) -> Response:
        call, body = await prepared(gateway, request, "media", VisionBody, MAX_BODY)
        return await answer_json(request, call, body, PATH, seen)

    router.add_api_route(PATH, vision, methods=["POST"], **described("vision", VisionBody))
    return router


async def seen(call: Call, body: VisionBody) -> dict[str, Any]:
    images = tuple(ImagePart(image.address()) for image in body.images)
    shared = body.model_dump(exclude={"prompt", "images", "idempotency_key"})
    chat = ChatBody.model_validate({"messages": body.prompt, **shared})
    ask = await asked(call, chat, [Message("user", body.prompt, images)], task="vision")
    return await completed(ask)
