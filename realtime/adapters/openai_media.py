"""Embeddings and images behind an OpenAI-compatible address.

They share their address's `OpenAIVendor` with chat and speech. What comes back is checked before it is
passed on: as many vectors as texts, all numbers, pictures that are bytes. Retries are not made here.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from realtime.adapters.base import Embeddings, EngineInfo, Image
from realtime.adapters.decoding import image_type
from realtime.adapters.openai import Engine
from realtime.adapters.openai_vendor import OpenAIVendor, Refusal
from realtime.adapters.openai_wire import WireError, parse_object

MAX_EMBEDDINGS_BYTES = 256 << 20
"""Bytes: 2,048 vectors of 4,096 numbers as text."""

MAX_IMAGES_BYTES = 256 << 20
"""Bytes: ten pictures of 16 MB in base64."""


class OpenAIEmbedder(Engine):
    """An `Embedder` on `/embeddings`."""

    def __init__(self, vendor: OpenAIVendor, model: str) -> None:
        super().__init__(vendor, model, EngineInfo(f"{vendor.name}/{model}", "embed", vendor.name, model))

    @asynccontextmanager
    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None
    ) -> AsyncIterator[AsyncIterator[Embeddings]]:
        yield self._embeddings(texts, dimensions)

    async def _embeddings(self, texts: Sequence[str], dimensions: int | None) -> AsyncIterator[Embeddings]:
        body: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        with self._vendor.failures(self.info.name):
            answer = await self._vendor.post(
                self.info.name, "/embeddings", MAX_EMBEDDINGS_BYTES, body=body, accept="application/json"
            )
            async with answer:
                found = parse_object(await answer.read())
            vectors = _vectors(found.get("data"), len(texts))
            if dimensions is not None and len(vectors[0]) != dimensions:
                text = f"{self.info.name}: the model has {len(vectors[0])} dimensions, not {dimensions}"
                raise Refusal(text, engine=self.info.name, param="dimensions")
        usage = found.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        yield Embeddings(vectors, tokens if isinstance(tokens, int) and tokens >= 0 else None)


def _vectors(data: object, count: int) -> list[list[float]]:
    if not isinstance(data, list) or len(data) != count:
        raise WireError(f"{count} embeddings were asked for")
    vectors: list[list[float] | None] = [None] * count
    for position, item in enumerate(data):
        if not isinstance(item, dict):
            raise WireError("an embedding is not an object")
        index = item.get("index", position)
        if not isinstance(index, int) or not 0 <= index < count:
            raise WireError("an embedding has a wrong index")
        vectors[index] = _vector(item.get("embedding"))
    found = [vector for vector in vectors if vector is not None]
    if len(found) != count or len({len(vector) for vector in found}) != 1:
        raise WireError("embeddings are missing, or differ in length")
    return found


def _vector(value: object) -> list[float]:
    if isinstance(value, str):
        # Some servers answer in base64 whatever was asked for.
        try:
            numbers: list[float] = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(float).tolist()
        except ValueError:
            raise WireError("an embedding is not base64") from None
        return numbers
    if not isinstance(value, list) or not value:
        raise WireError("an embedding is not a list")
    if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in value):
        raise WireError("an embedding holds something that is no number")
    return value


class OpenAIImages(Engine):
    """An `ImageGenerator` on `/images/generations`."""

    def __init__(self, vendor: OpenAIVendor, model: str) -> None:
        super().__init__(vendor, model, EngineInfo(f"{vendor.name}/{model}", "image", vendor.name, model))
        self._says_format = True
        """Whether `response_format` may be sent: newer models refuse it, since they know base64 only."""

    @asynccontextmanager
    async def generate(
        self, prompt: str, *, size: tuple[int, int] | None = None, count: int = 1
    ) -> AsyncIterator[AsyncIterator[Image]]:
        yield self._images(prompt, size, count)

    async def _images(self, prompt: str, size: tuple[int, int] | None, count: int) -> AsyncIterator[Image]:
        body: dict[str, Any] = {"model": self._model, "prompt": prompt, "n": count}
        if size is not None:
            body["size"] = f"{size[0]}x{size[1]}"
        with self._vendor.failures(self.info.name):
            found = await self._ask(body)
            data = found.get("data")
            if not isinstance(data, list) or not data:
                raise WireError("no image came back")
            images = [_image(item) for item in data[:count]]
        for image in images:
            yield image

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        for _ in range(2):
            sent = {**body, "response_format": "b64_json"} if self._says_format else body
            try:
                answer = await self._vendor.post(
                    self.info.name, "/images/generations", MAX_IMAGES_BYTES, body=sent, accept="application/json"
                )
            except Refusal as refusal:
                if not self._says_format or "response_format" not in f"{refusal} {refusal.param}":
                    raise
                self._says_format = False
                continue
            async with answer:
                return parse_object(await answer.read())
        raise WireError("the address refuses response_format although it was not sent")


def _image(item: object) -> Image:
    encoded = item.get("b64_json") if isinstance(item, dict) else None
    if not isinstance(encoded, str):
        raise WireError("an image came back as an address, not as bytes")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise WireError("an image is not base64") from None
    return Image(data, image_type(data) or "image/png")
