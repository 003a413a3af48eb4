"""The demo embedder: hashed words and letter groups, so that embeddings work with the network unplugged.

Texts that share words or parts of words come out similar, and nothing more is known of their meaning.
The same text gives the same vector on every machine. It must never pass itself off as a model: its
`info` names it a demo.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import numpy as np

from realtime.adapters.base import Embeddings, EngineError, EngineInfo

DIMENSIONS: Final = 256
MAX_DIMENSIONS: Final = 4096
GROUP: Final = 3
"""Letters in a group: the shortest that says something about a word."""
AT_ONCE: Final = 2000
"""Characters that are worked through without giving others a turn: about a millisecond."""

_WORD = re.compile(r"\w+")


class HashingEmbedder:
    """An `Embedder`."""

    info = EngineInfo(
        name="embedded",
        kind="embed",
        vendor="embedded",
        model="hashing",
        quality="demo: hashed words, knows nothing of meaning",
    )

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""

    @asynccontextmanager
    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None
    ) -> AsyncIterator[AsyncIterator[Embeddings]]:
        size = DIMENSIONS if dimensions is None else dimensions
        if not 1 <= size <= MAX_DIMENSIONS:
            text = f"the embedded engine has 1 to {MAX_DIMENSIONS} dimensions, not {size}"
            raise EngineError(text, code="bad_request", engine="embedded", retryable=False)
        yield self._embeddings(texts, size)

    async def _embeddings(self, texts: Sequence[str], size: int) -> AsyncIterator[Embeddings]:
        vectors: list[list[float]] = []
        words = 0
        for text in texts:
            vector = np.zeros(size)
            found = _WORD.findall(text.lower())
            words += len(found)
            spent = 0
            for word in found:
                for part in _parts(word):
                    _add(vector, part)
                spent += len(word)
                if spent > AT_ONCE:
                    spent = 0
                    await asyncio.sleep(0)
            if not vector.any():
                _add(vector, text)
            vectors.append((vector / np.linalg.norm(vector)).tolist())
        yield Embeddings(vectors, words)


def _parts(word: str) -> list[str]:
    framed = f"<{word[:64]}>"
    return [framed, *(framed[at : at + GROUP] for at in range(len(framed) - GROUP + 1))]


def _add(vector: np.ndarray, part: str) -> None:
    digest = hashlib.blake2b(part.encode("utf-8", "replace"), digest_size=9).digest()
    place = int.from_bytes(digest[:8], "little") % len(vector)
    vector[place] += 1.0 if digest[8] & 1 else -1.0
