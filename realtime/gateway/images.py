"""Pictures that come with a request: fetched under guard or decoded from base64, checked, made data URLs.

Vendors get the bytes and never an address, so that all behave alike and none fetches for our callers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from realtime.adapters.base import ImagePart, Message
from realtime.adapters.decoding import image_type
from realtime.gateway.bodies import wrong
from realtime.gateway.errors import GatewayError

if TYPE_CHECKING:
    from realtime.gateway.work import Call

MAX_IMAGE_BYTES = 20 << 20
MAX_ALL_BYTES = 48 << 20
"""Of one request's pictures together; they are held in memory, and again in base64."""


async def with_images(call: Call, messages: Sequence[Message]) -> list[Message]:
    """`messages` with every picture as a data URL. Raises what is wrong with one."""
    total = 0
    found: list[Message] = []
    for message in messages:
        parts = []
        for part in message.images:
            data = await load(call, part.url, MAX_IMAGE_BYTES, "images")
            total += len(data)
            if total > MAX_ALL_BYTES:
                raise GatewayError(413, "images_too_large", f"The images have more than {MAX_ALL_BYTES} bytes in all.")
            parts.append(ImagePart(data_url(data)))
        found.append(replace(message, images=tuple(parts)))
    return found


def data_url(data: bytes) -> str:
    mime = image_type(data)
    if mime is None:
        raise wrong("images", "not an image of a known kind (png, jpeg, webp, gif)", "unknown_format")
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


async def load(call: Call, url: str, limit: int, param: str) -> bytes:
    """What a `data:` URL holds, or an http(s) one brings."""
    if url[:5].lower() == "data:":
        return await decoded(url.partition(",")[2] if ";base64," in url[:256] else "", limit, param)
    return await call.gateway.fetcher.fetch(url, limit, param)


async def decoded(text: str, limit: int, param: str) -> bytes:
    """Base64, standard or URL-safe."""
    if len(text) > limit * 4 // 3 + 4:
        raise GatewayError(413, "file_too_large", f"{param}: more than {limit} bytes.", param=param)
    try:
        plain = text.replace("-", "+").replace("_", "/") if ("-" in text or "_" in text) else text
        data = await asyncio.to_thread(base64.b64decode, plain, validate=True)
    except (binascii.Error, ValueError):
        raise wrong(param, "not base64") from None
    if not data:
        raise wrong(param, "empty, or not base64")
    return data
