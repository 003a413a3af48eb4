"""Both sides of a call on one timeline, handed out in blocks once nothing can change them any more. Sans-I/O.

The caller's track is what came, in media time; where nothing came for longer than a gap that jitter makes,
there is silence. The bot's track is what sounded: each piece at the time at which the leg says that it
leaves, or, where a leg sends ahead, at which the other side plays it; what a cut takes back is not in it.
While paused both are silent and time goes on. Audio waits here for `HOLD_MS`, or until it sounds: bounded.

Times are `time.monotonic()` seconds, the timeline counts milliseconds from `opened_at`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from media.audio import RATE_IN, RATE_OUT, Pcm

HOLD_MS: Final = 1000
"""How long a block stays open: late packets, marks and cuts are known by then."""

BLOCK_MS: Final = 1000
"""The longest block."""

GAP_MS: Final = 200
"""The caller's audio may be so much behind the clock before silence is put in."""

AHEAD_MS: Final = 1000
"""The caller's audio may be so much ahead of the clock; more means that a file is being sent, and time goes with it."""

MAX_WAITING_MS: Final = 120_000
"""Speech that a client was given and has not played yet; more is not recorded."""

_SEAM_MS: Final = 60
"""Pieces of the bot's that are nearer to each other than this belong together: clocks shake."""


@dataclass(frozen=True, slots=True)
class Block:
    """`ms` of both sides: `caller` at 16 kHz, `bot` at 24 kHz."""

    ms: int
    caller: Pcm
    bot: Pcm


class _Track:
    """Pieces of one side in order, none over another; positions in samples."""

    def __init__(self, rate: int) -> None:
        self.per_ms = rate // 1000
        self.end = 0
        self._pieces: deque[tuple[int, Pcm]] = deque()

    def add(self, start: int, pcm: Pcm) -> None:
        self._pieces.append((start, pcm))
        self.end = start + len(pcm)

    def cut(self, at: int) -> None:
        """Nothing from `at` on."""
        while self._pieces and self._pieces[-1][0] >= at:
            self._pieces.pop()
        if self._pieces:
            start, pcm = self._pieces[-1]
            self._pieces[-1] = (start, pcm[: at - start])
        self.end = min(self.end, at)

    def take(self, from_ms: int, ms: int) -> Pcm:
        """This stretch, which is forgotten with all before it."""
        begin, size = from_ms * self.per_ms, ms * self.per_ms
        out = np.zeros(size, np.int16)
        while self._pieces and self._pieces[0][0] < begin + size:
            start, pcm = self._pieces.popleft()
            skip = max(0, begin - start)
            part = pcm[skip : begin + size - start]
            at = max(0, start - begin)
            out[at : at + len(part)] = part
            if start + len(pcm) > begin + size:
                self._pieces.appendleft((begin + size, pcm[begin + size - start :]))
                break
        return out


class Tracks:
    def __init__(self, opened_at: float) -> None:
        self._zero = opened_at
        self._caller = _Track(RATE_IN)
        self._bot = _Track(RATE_OUT)
        self._done_ms = 0
        """Handed out so far."""
        self._pauses: deque[tuple[int, int | None]] = deque()
        """From and until when nothing is recorded; None: until further notice."""
        self.paused_ms = 0
        self.dropped_ms = 0
        """Of the bot's, because too much of it waited."""

    @property
    def length_ms(self) -> int:
        return self._done_ms

    def _ms(self, at: float) -> int:
        return max(0, round((at - self._zero) * 1000))

    def caller(self, pcm: Pcm, arrived_at: float) -> None:
        """The next of the caller's audio, 16 kHz; it ended at `arrived_at`."""
        track = self._caller
        due = round((arrived_at - self._zero) * RATE_IN) - len(pcm)
        start = due if due > track.end + GAP_MS * track.per_ms else track.end
        track.add(start, pcm)
        ahead_ms = (start - due) / track.per_ms
        if ahead_ms > AHEAD_MS:
            self._zero -= ahead_ms / 1000

    def bot(self, pcm: Pcm, at: float) -> None:
        """The next of the bot's audio, 24 kHz; it sounds from `at` on."""
        track = self._bot
        start = round((at - self._zero) * RATE_OUT)
        if start < track.end + _SEAM_MS * track.per_ms:
            start = track.end
        ms = len(pcm) / track.per_ms
        if start / track.per_ms + ms > self._done_ms + MAX_WAITING_MS:
            self.dropped_ms += round(ms)
            return
        track.add(start, pcm)

    def discard(self, at: float) -> None:
        """Of the bot's nothing is heard that would have sounded from `at` on."""
        self._bot.cut(max(self._ms(at), self._done_ms) * self._bot.per_ms)

    def pause(self, at: float) -> None:
        if not self.is_paused:
            self._pauses.append((self._ms(at), None))

    def resume(self, at: float) -> None:
        if self.is_paused:
            begin, _ = self._pauses.pop()
            self._pauses.append((begin, max(begin, self._ms(at))))

    @property
    def is_paused(self) -> bool:
        return bool(self._pauses) and self._pauses[-1][1] is None

    def take(self, now: float, most: int | None = None) -> list[Block]:
        """What can be handed out at `now`: everything older than `HOLD_MS`, at most so many blocks of it."""
        return self._until(self._ms(now) - HOLD_MS, most)

    def finish(self, now: float, most: int | None = None) -> list[Block]:
        """All that was heard until `now`; the end."""
        self.discard(now)
        return self._until(self._ms(now), most)

    def _until(self, end_ms: int, most: int | None) -> list[Block]:
        blocks: list[Block] = []
        while self._done_ms < end_ms and (most is None or len(blocks) < most):
            ms = min(BLOCK_MS, end_ms - self._done_ms)
            caller, bot = self._caller.take(self._done_ms, ms), self._bot.take(self._done_ms, ms)
            self._mute(ms, caller, bot)
            self._done_ms += ms
            blocks.append(Block(ms, caller, bot))
        return blocks

    def _mute(self, ms: int, caller: Pcm, bot: Pcm) -> None:
        begin, end = self._done_ms, self._done_ms + ms
        for since, until in self._pauses:
            first, last = max(since, begin) - begin, min(end if until is None else until, end) - begin
            if first < last:
                caller[first * self._caller.per_ms : last * self._caller.per_ms] = 0
                bot[first * self._bot.per_ms : last * self._bot.per_ms] = 0
                self.paused_ms += last - first
        while self._pauses and (until := self._pauses[0][1]) is not None and until <= end:
            self._pauses.popleft()
