"""`realtime talk`: hold a call from the command line, with a sound file or a microphone.

Prints both sides' words and, for every turn, where its time went. With a file it speaks the file,
waits for the answers, and hangs up; with a microphone it goes on until it is interrupted.
"""

from __future__ import annotations

import asyncio
import time
import wave
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realtime.client.errors import CallEnded, ConnectError
from realtime.client.live import LiveCall, Transport, connect

if TYPE_CHECKING:
    from media.audio import Pcm

SETTLE_S = 1.5
"""Quiet on both sides for this long, after all was said, ends a call held with a file."""

ANSWER_S = 60.0
"""An answer that has not come by then will not come."""

INCLUDE = ["realtime.turn.metrics"]

STEPS = (
    ("endpoint_ms", "endpoint"),
    ("transcript_ms", "transcript"),
    ("chat_first_token_ms", "first token"),
    ("speech_first_audio_ms", "first audio"),
    ("first_packet_ms", "first packet"),
)


async def talk(
    *,
    wav: Path | None = None,
    out: Path | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    agent: str | None = None,
    voice: str | None = None,
    transport: Transport = "webrtc",
    show: Callable[[str], None] = print,
) -> int:
    """0 when the bot answered, 1 when it did not. Raises `ConnectError`, `ApiError`, `OSError`."""
    question = read_audio(wav) if wav is not None else None
    async with connect(base_url, api_key=api_key, agent=agent, voice=voice, transport=transport) as call:
        await call.send({"type": "session.update", "session": {"type": "realtime", "include": INCLUDE}})
        watch = _Watch(show)
        answer = _Recorder()
        tasks = [asyncio.create_task(watch.follow(call)), asyncio.create_task(answer.record(call))]
        try:
            if question is not None:
                await _speak(call, question, watch)
            else:
                await _microphone(call, answer, show)
        except CallEnded as ended:
            show(f"the call ended: {ended.reason}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if out is not None:
            answer.write(out)
            show(f"wrote {answer.seconds:.1f} s of answer to {out}")
    return 0 if watch.answered else 1


def read_audio(path: Path) -> Pcm:
    """Any sound file that FFmpeg reads, as 24 kHz mono. Raises `OSError` with the reason."""
    import av
    import numpy as np

    from media.audio import RATE_OUT

    try:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler("s16", "mono", RATE_OUT)
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            frames += resampler.resample(None)
    except (av.FFmpegError, IndexError) as error:
        raise OSError(f"{path} is not a sound file that can be read: {error}") from error
    return np.concatenate([np.zeros(0, np.int16), *(frame.to_ndarray()[0] for frame in frames)])


class _Watch:
    """Follows the events: prints them, and knows whether anything is still to come."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._pending: set[str] = set()
        self._quiet_since = time.monotonic()
        self.answered = False
        self.failed = False

    @property
    def quiet_for(self) -> float:
        return 0.0 if self._pending else time.monotonic() - self._quiet_since

    async def follow(self, call: LiveCall) -> None:
        async for event in call.events():
            self._see(event)

    def _begin(self, what: str) -> None:
        self._pending.add(what)

    def _end(self, what: str) -> None:
        self._pending.discard(what)
        self._quiet_since = time.monotonic()

    def _see(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "input_audio_buffer.speech_started":
                self._begin(event["item_id"])
            case "conversation.item.input_audio_transcription.completed":
                self._show(f"you: {event['transcript'] or '(no words recognised)'}")
                self._end(event["item_id"])
            case "conversation.item.input_audio_transcription.failed":
                self._end(event["item_id"])
            case "response.created":
                self._begin(event["response"]["id"])
            case "response.output_audio_transcript.done":
                self._show(f"bot: {event['transcript'].strip()}")
            case "response.done":
                self._end(event["response"]["id"])
            case "output_audio_buffer.started":
                self.answered = True
                self._begin("playout:" + event["response_id"])
            case "output_audio_buffer.stopped" | "output_audio_buffer.cleared":
                self._end("playout:" + event["response_id"])
            case "realtime.turn.metrics":
                self._show("     " + describe(event["metrics"]))
            case "error":
                self._show(f"error: {event['error']['message']}")


def describe(metrics: dict[str, Any]) -> str:
    """One line of a turn's record."""
    parts = []
    if metrics.get("voice_to_voice_ms") is not None:
        steps = [f"{label} {metrics[name]:.0f}" for name, label in STEPS if metrics.get(name) is not None]
        parts.append(f"voice to voice {metrics['voice_to_voice_ms']:.0f} ms ({', '.join(steps)})")
    if metrics.get("barge_in_ms") is not None:
        parts.append(f"cut off after {metrics['barge_in_ms']:.0f} ms")
    if metrics.get("heard_ms") is not None:
        parts.append(f"heard {metrics['heard_ms'] / 1000:.1f} s")
    return "; ".join(parts) or "no speech in this turn"


class _Recorder:
    """The bot's audio as it came: pauses within it are kept as silence, those around it are not."""

    def __init__(self) -> None:
        self._pieces: list[Pcm] = []
        self.listener: Callable[[Pcm], None] | None = None

    async def record(self, call: LiveCall) -> None:
        async for pcm, _ in call.audio():
            if self._pieces or pcm.any():
                self._pieces.append(pcm)
            if self.listener is not None:
                self.listener(pcm)

    def _sound(self) -> Pcm:
        import numpy as np

        whole = np.concatenate([np.zeros(0, np.int16), *self._pieces])
        sounding = np.flatnonzero(whole)
        return whole[: sounding[-1] + 1] if len(sounding) else whole[:0]

    @property
    def seconds(self) -> float:
        from media.audio import RATE_IN

        return len(self._sound()) / RATE_IN

    def write(self, path: Path) -> None:
        from media.audio import RATE_IN

        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_IN)
            file.writeframes(self._sound().tobytes())


async def _speak(call: LiveCall, question: Pcm, watch: _Watch) -> None:
    """The greeting first, if there is one; then the file; then wait for what comes of it."""
    await _settled(call, watch, 0.3)
    step = 24_000
    for start in range(0, len(question), step):
        call.send_audio(question[start : start + step])
        await asyncio.sleep(0)
    await call.audio_sent()
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            await _settled(call, watch, SETTLE_S)


async def _settled(call: LiveCall, watch: _Watch, seconds: float) -> None:
    begun = time.monotonic()
    while min(watch.quiet_for, time.monotonic() - begun) < seconds:
        if call.closed is not None:
            raise CallEnded(call.closed)
        await asyncio.sleep(0.05)


async def _microphone(call: LiveCall, answer: _Recorder, show: Callable[[str], None]) -> None:
    """Until the call ends or the user interrupts. Raises `ConnectError` where there is no sound device."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        hint = "pip install 'infrai-realtime[microphone]' (and PortAudio), or use --wav"
        raise ConnectError(f"no microphone can be used: {error}; {hint}") from error
    import numpy as np

    from media.audio import RATE_IN, RATE_OUT

    loop = asyncio.get_running_loop()

    def hear(data: Any, frames: int, at: Any, status: Any) -> None:
        pcm = np.frombuffer(bytes(data), np.int16)
        loop.call_soon_threadsafe(_push, call, pcm)

    try:
        microphone = sounddevice.RawInputStream(RATE_OUT, 480, channels=1, dtype="int16", callback=hear)
        speaker = sounddevice.RawOutputStream(RATE_IN, channels=1, dtype="int16", latency="low")
    except Exception as error:
        raise ConnectError(f"no microphone or speaker can be used: {error}; use --wav") from error
    with microphone, speaker:
        answer.listener = lambda pcm: _play(speaker, pcm)
        show("talk; Ctrl-C hangs up (use headphones: there is no echo canceller here)")
        raise CallEnded(await call.ended())


def _push(call: LiveCall, pcm: Pcm) -> None:
    if call.closed is None:
        call.send_audio(pcm)


def _play(speaker: Any, pcm: Pcm) -> None:
    """Never waits: what does not fit into the device's buffer is dropped."""
    if speaker.write_available >= len(pcm):
        speaker.write(pcm.tobytes())
