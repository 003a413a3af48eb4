"""A caller without headphones: what the bot says comes back, and only the caller interrupts it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np

from realtime.client import LiveCall, connect
from realtime.client.talk import read_audio
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import API_KEY, Server

FRAME_S = 0.02
FRAME = 480


class Room:
    """A loudspeaker and a microphone with `delay_s` and `db` between them, and a caller who may speak."""

    def __init__(self, call: LiveCall, db: float, delay_s: float) -> None:
        self._call = call
        self._gain = 10 ** (db / 20)
        self._delayed: deque[np.ndarray] = deque(np.zeros(FRAME) for _ in range(round(delay_s / FRAME_S)))
        self._arrived = np.zeros(0)
        self._speech: deque[np.ndarray] = deque()
        self.loudest_back = 0.0

    def speak(self, pcm: np.ndarray) -> None:
        whole = np.concatenate([pcm, np.zeros(-len(pcm) % FRAME)])
        self._speech.extend(whole.reshape(-1, FRAME))

    async def play(self) -> None:
        """What arrives, at 24 kHz."""
        async for pcm, _ in self._call.audio():
            at = np.arange(len(pcm) * 3 // 2) * 2 / 3
            self._arrived = np.concatenate([self._arrived, np.interp(at, np.arange(len(pcm)), pcm)])

    async def record(self) -> None:
        """A frame every 20 ms."""
        began, sent = time.monotonic(), 0
        while True:
            await asyncio.sleep(max(0.0, began + sent * FRAME_S - time.monotonic()))
            heard, self._arrived = self._arrived[:FRAME], self._arrived[FRAME:]
            self._delayed.append(np.concatenate([heard, np.zeros(FRAME - len(heard))]) * self._gain)
            sound = self._delayed.popleft()
            self.loudest_back = max(self.loudest_back, float(np.abs(sound).max()))
            if self._speech:
                sound = sound + self._speech.popleft()
            self._call.send_audio(np.clip(sound, -32768, 32767).astype(np.int16))
            sent += 1


@asynccontextmanager
async def without_headphones(
    server: Server, *, db: float, delay_s: float, agent: str | None = None
) -> AsyncIterator[tuple[LiveCall, Room]]:
    async with connect(server.url, api_key=API_KEY, agent=agent) as call:
        room = Room(call, db, delay_s)
        tasks = [asyncio.create_task(room.play()), asyncio.create_task(room.record())]
        try:
            yield call, room
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


async def begin_story(call: LiveCall) -> None:
    await call.wait_for("session.created")
    await call.say("Please tell me a very long story.")
    await call.wait_for("output_audio_buffer.started")


async def interrupted(call: LiveCall, seconds: float) -> bool:
    try:
        await call.wait_for("input_audio_buffer.speech_started", timeout=seconds)
    except TimeoutError:
        return False
    return True


async def test_without_the_guard_a_story_is_cut_off_by_its_own_echo(server: Server):
    async with without_headphones(server, db=-20, delay_s=0.15, agent="unguarded") as (call, room):
        await begin_story(call)
        assert await interrupted(call, 8)
        assert room.loudest_back > 300


async def test_a_story_is_not_cut_off_by_its_echo_but_by_the_caller(server: Server):
    """In two rooms at once, an echo that is louder and one that is later."""
    await asyncio.gather(*(hold_out(server, db, delay_s) for db, delay_s in ((-20, 0.1), (-25, 0.25))))


async def hold_out(server: Server, db: float, delay_s: float) -> None:
    async with without_headphones(server, db=db, delay_s=delay_s) as (call, room):
        await begin_story(call)
        assert not await interrupted(call, 8), f"the echo at {db} dB interrupted"
        assert room.loudest_back > 150
        speech = read_audio(HOW_ARE_YOU)
        (loud,) = np.nonzero(np.abs(speech.astype(int)) > 1000)
        room.speak(speech[loud[0] :].astype(float))
        spoke_at = time.monotonic()
        await call.wait_for("input_audio_buffer.speech_started", timeout=3)
        cleared = await call.wait_for("output_audio_buffer.cleared", timeout=3)
        assert cleared["received_at"] - spoke_at < 3.0  # a second is promised
