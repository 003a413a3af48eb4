"""One utterance on its way to the recogniser. It never waits: audio that comes before the stream is open is kept."""

from __future__ import annotations

from media.audio import Pcm
from realtime.adapters.base import TranscriptStream


class Ear:
    """One utterance on its way to the recogniser; keeps what comes before the stream is open."""

    def __init__(self, item_id: str, pieces: list[Pcm]) -> None:
        self.item_id = item_id
        self._waiting = pieces
        self._stream: TranscriptStream | None = None
        self._complete = False

    def attach(self, stream: TranscriptStream) -> None:
        self._stream = stream
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            stream.push(piece)
        if self._complete:
            stream.finish()

    def push(self, pcm: Pcm) -> None:
        if self._complete:
            return
        if self._stream is None:
            self._waiting.append(pcm)
        else:
            self._stream.push(pcm)

    def finish(self) -> None:
        self._complete = True
        if self._stream is not None:
            self._stream.finish()
