"""What a call hears on its way to the recogniser: the latest audio, and each utterance being transcribed.

Audio never crosses a task or a queue: `push` hands it to every open utterance at once, and keeps the
latest for one that turns out to have begun a little earlier.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from media.audio import RATE_IN, Pcm
from media.resample import BlockResampler
from realtime.adapters.base import EngineError, SpeechToText, SttOptions
from realtime.live.config import SessionConfig
from realtime.live.ear import Ear
from realtime.live.effects import Input, Listen, Transcribe, TranscriptFailed, TranscriptHeard
from realtime.live.socket_leg import AudioError, AudioFormat, decode_long
from realtime.live.tasks import CallTasks

log = logging.getLogger("realtime.live")

MAX_EARS = 4
"""Utterances that may wait for their transcripts at once."""

LOOKBACK_SLACK_MS = 600
"""Kept beside the prefix padding: how late the detector may notice speech."""


class Hearing:
    """`recogniser`: asked for at each utterance. `blame(error)`: a code and a sentence for what went wrong."""

    def __init__(
        self,
        config: SessionConfig,
        log_ids: str,
        tasks: CallTasks,
        recogniser: Callable[[], SpeechToText],
        tell: Callable[[Input], None],
        blame: Callable[[Exception], tuple[str, str]],
    ) -> None:
        self._config = config
        self._log_ids = log_ids
        self._tasks = tasks
        self._recogniser = recogniser
        self._tell = tell
        self._blame = blame
        self._recent: deque[tuple[float, Pcm]] = deque()
        """The latest audio, each piece with the media time (ms) at its end."""
        self._lookback_ms = LOOKBACK_SLACK_MS
        self._ears: dict[str, Ear] = {}
        self.position_ms = 0.0
        """Media time: all audio that came."""

    def look_back(self, ms: int) -> None:
        """Utterances may begin so much before they are noticed."""
        self._lookback_ms = ms + LOOKBACK_SLACK_MS

    def push(self, pcm: Pcm) -> None:
        self.position_ms += len(pcm) * 1000 / RATE_IN
        self._recent.append((self.position_ms, pcm))
        while self._recent[0][0] < self.position_ms - self._lookback_ms:
            self._recent.popleft()
        for ear in list(self._ears.values()):
            self._hear(ear, pcm)

    def _hear(self, ear: Ear, pcm: Pcm) -> None:
        try:
            ear.push(pcm)
        except EngineError as error:
            # Too long for this recogniser: the words so far are worth more than none.
            log.info("%s hears no more of %s: %s", self._log_ids, ear.item_id, error)
            self.end(ear.item_id)

    def listen(self, effect: Listen) -> None:
        if self._tasks.count("ear") >= MAX_EARS:
            self._tell(TranscriptFailed(effect.item_id, "recogniser_busy", "Too many utterances wait for transcripts."))
            return
        pieces = [pcm for end_ms, pcm in self._recent if end_ms > effect.from_ms]
        ear = Ear(effect.item_id, pieces)
        self._ears[effect.item_id] = ear
        self._tasks.run(("ear", effect.item_id), self._transcribe(ear))

    def end(self, item_id: str) -> None:
        """The utterance is complete: its transcript may become final."""
        ear = self._ears.pop(item_id, None)
        if ear is not None:
            ear.finish()

    def drop(self, item_id: str) -> None:
        self._ears.pop(item_id, None)
        self._tasks.cancel(("ear", item_id))

    def transcribe(self, effect: Transcribe) -> None:
        """Words of a sound that the client put into an item."""
        self._tasks.run(("ear", effect.item_id), self._transcribe_sound(effect))

    def close(self) -> None:
        self._ears.clear()
        self._recent.clear()

    async def _transcribe_sound(self, effect: Transcribe) -> None:
        form = AudioFormat(self._config.audio_format("input"))
        try:
            pieces = await decode_long(effect.audio, form)
        except AudioError as error:
            self._tell(TranscriptFailed(effect.item_id, "invalid_audio", str(error)))
            return
        resampler, heard = BlockResampler(form.rate, RATE_IN), []
        for piece in pieces:
            heard.append(resampler.push(piece))
            await asyncio.sleep(0)
        ear = Ear(effect.item_id, heard)
        ear.finish()
        await self._transcribe(ear)

    async def _transcribe(self, ear: Ear) -> None:
        options = SttOptions(self._config.language, self._config.transcription_prompt, self._config.id)
        final = False
        try:
            async with self._recogniser().stream(options) as stream:
                ear.attach(stream)
                async for heard in stream:
                    final = final or heard.final
                    self._tell(TranscriptHeard(ear.item_id, heard.text, heard.final, heard.spoken))
            if not final:
                raise EngineError("The recogniser gave no final transcript.", code="no_transcript")
        except Exception as error:
            self._tell(TranscriptFailed(ear.item_id, *self._blame(error)))
        finally:
            self._ears.pop(ear.item_id, None)
