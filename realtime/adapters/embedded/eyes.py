"""The demo vision engine: says that it cannot see, and what can be known without seeing.

That is the size of each picture and its main colours. It must never describe what a picture shows.
Pictures are data URLs here, fetched and checked by whoever calls.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

import numpy as np

from realtime.adapters.base import ChatDelta, ChatEnd, ChatRequest, EngineError, EngineInfo, TextDelta, Usage
from realtime.adapters.decoding import Decoder, FileRefused, Picture

COLOURS: Final = 3
"""That are named."""

_DATA_URL = re.compile(r"data:[\w/+.-]*;base64,", re.IGNORECASE)
_NAMES: Final = {
    "black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "red": (210, 30, 40),
    "orange": (240, 140, 30), "yellow": (240, 220, 50), "green": (50, 150, 60), "cyan": (60, 200, 210),
    "blue": (40, 80, 200), "purple": (130, 50, 160), "pink": (240, 140, 180), "brown": (120, 75, 40),
    "beige": (230, 210, 175),
}  # fmt: skip


class Eyes:
    """A `ChatModel` for requests with pictures."""

    info = EngineInfo(
        name="embedded",
        kind="chat",
        vendor="embedded",
        model="demo-eyes",
        quality="demo: cannot see, gives size and main colours",
    )

    def __init__(self) -> None:
        self._decoder = Decoder()

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return aclosing(self._deltas(request))

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        urls = [image.url for message in request.messages for image in message.images]
        said = ["I cannot see: this is a demo without a vision model, so I do not know what the image shows."]
        for number, url in enumerate(urls, 1):
            picture = await self._picture(url)
            which = "The image" if len(urls) == 1 else f"Image {number}"
            said.append(
                f"{which} is {picture.width} by {picture.height} pixels, mostly {' and '.join(colours(picture))}."
            )
        words = re.findall(r"\S+\s*", " ".join(said))
        limit = len(words) if request.max_tokens is None else max(request.max_tokens, 0)
        for word in words[:limit]:
            yield TextDelta(word)
        read = sum(len(message.content.split()) for message in request.messages)
        yield ChatEnd("length" if limit < len(words) else "stop", Usage(read, min(len(words), limit)))

    async def _picture(self, url: str) -> Picture:
        head = _DATA_URL.match(url)
        if head is None:
            raise EngineError("an image that was not fetched", code="bad_request", engine="embedded", retryable=False)
        try:
            return await self._decoder.image(base64.b64decode(url[head.end() :], validate=True))
        except (FileRefused, binascii.Error) as error:
            code = error.code if isinstance(error, FileRefused) else "bad_request"
            raise EngineError(str(error), code=code, engine="embedded", retryable=code == "busy") from None


def colours(picture: Picture) -> list[str]:
    """Names of the main colours, the most frequent first."""
    names = list(_NAMES)
    palette = np.array(list(_NAMES.values()), float)
    pixels = picture.pixels.reshape(-1, 3).astype(float)
    nearest = np.argmin(((pixels[:, None, :] - palette[None]) ** 2).sum(2), axis=1)
    counts = np.bincount(nearest, minlength=len(names))
    found = [names[index] for index in np.argsort(-counts, kind="stable") if counts[index] * 10 >= len(pixels)]
    return found[:COLOURS] or [names[int(np.argmax(counts))]]
