"""Speech that many calls are told in the same words: made once, kept for the next call. One store a process.

A greeting, a filler, a sentence of the agent's code. What is kept is the sound, in whole frames, and with it the
packets that calls make of it (`media.prepared`): the next call costs neither a voice nor an encoder. The store is
bounded in bytes and entries, and what was not said for the longest time goes first. Nothing is kept that was cut
off, that failed, or that another engine said than the one that is meant to.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import Final

import numpy as np

from media.audio import FRAME_OUT, Pcm
from media.playout import padded
from media.prepared import Prepared
from realtime.adapters.base import SpeechChunk

MOST_ENTRIES: Final = 1000
_PACKETS: Final = 1.5
"""Bytes that one byte of sound is counted for: its packets in each codec take half as much again."""
_SHARE: Final = 8
"""One entry takes at most so small a part of the store."""


class KeptSpeech:
    """`most_bytes`: of all that is kept; 0 keeps nothing."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[list[SpeechChunk], int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        return self._bytes

    async def stream(
        self, key: Hashable, make: Callable[[], AsyncGenerator[SpeechChunk, None]], may_keep: Callable[[], bool]
    ) -> AsyncGenerator[SpeechChunk, None]:
        """What is kept under `key`, else what `make` gives; `may_keep` is asked when that is complete."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            for chunk in entry[0]:
                yield chunk
                await asyncio.sleep(0)  # as a voice would: a long text must not hold up the loop
            return
        chunks: list[SpeechChunk] = []
        size = 0
        async with aclosing(_in_frames(make())) as made:
            async for chunk in made:
                size += round(chunk.pcm.nbytes * _PACKETS)
                if size <= self._most // _SHARE:
                    chunks.append(chunk)
                yield chunk
        if 0 < size <= self._most // _SHARE and may_keep():
            self._keep(key, chunks, size)

    def _keep(self, key: Hashable, chunks: list[SpeechChunk], size: int) -> None:
        if key in self._entries:
            return  # another call was faster, and its packets are there
        self._entries[key] = chunks, size
        self._bytes += size
        while self._bytes > self._most or len(self._entries) > MOST_ENTRIES:
            _, (_, gone) = self._entries.popitem(last=False)
            self._bytes -= gone


async def _in_frames(made: AsyncGenerator[SpeechChunk, None]) -> AsyncGenerator[SpeechChunk, None]:
    """The same as something prepared: whole frames, the last of them filled up with silence."""
    prepared, number = Prepared(), 0
    rest: Pcm = np.zeros(0, np.int16)
    async with aclosing(made) as chunks:
        async for chunk in chunks:
            pcm = np.concatenate((rest, chunk.pcm))
            # At least a sample waits for the next chunk, so that the last frame is known when it comes.
            frames = max(0, len(pcm) - 1) // FRAME_OUT
            whole, rest = pcm[: frames * FRAME_OUT], pcm[frames * FRAME_OUT :]
            yield SpeechChunk(whole, chunk.words, (prepared, number))
            number += frames
    if len(rest):
        yield SpeechChunk(padded(rest), (), (prepared, number))
