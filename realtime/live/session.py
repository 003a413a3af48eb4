"""Runs one conversation: leg, detector, engines, and the effects that tie them together.

A session is the leg's listener and the only place where a call's tasks live: one per open chat
stream, one per open speech stream, one per utterance being transcribed. It decides nothing: what
happens goes into `Conversation.handle`, what comes out is carried out in order. Audio frames never
cross a task or a queue on their way to the detector and the recogniser.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict
from typing import Any

from media.audio import RATE_IN, Pcm
from media.endpoint import EndpointSettings, SpeechEvent, SpeechStarted
from media.leg import Leg
from media.playout import PlayoutEvent, PlayoutEventKind
from media.resample import Resampler
from media.vad import SpeechDetector
from realtime.adapters.base import ChatDelta, EngineError, SpeechRequest, SttOptions, TextDelta
from realtime.adapters.catalogue import Engines
from realtime.live import wire
from realtime.live.config import SessionConfig
from realtime.live.conversation import Conversation, Filler
from realtime.live.ear import Ear
from realtime.live.effects import (
    AudioArrived,
    AudioOpened,
    ChatFailed,
    ChatProduced,
    ClientMessage,
    Configure,
    Deliver,
    DropListening,
    Effect,
    EndListening,
    FinishSpeaking,
    Input,
    Listen,
    Record,
    ResetDetector,
    Send,
    Speak,
    SpeechFailed,
    SpeechFinished,
    SpeechProduced,
    Stop,
    StopThinking,
    Think,
    Tick,
    Transcribe,
    TranscriptFailed,
    TranscriptHeard,
)
from realtime.live.socket_leg import AudioError, AudioFormat, SocketLeg, decode
from realtime.observe.metrics import Metrics
from realtime.observe.turns import TurnRecord
from realtime.problems import request_id

log = logging.getLogger("realtime.live")

AHEAD_MS = 10_000.0
"""Speech is made at most this far ahead of what is heard."""

MAX_EARS = 4
"""Utterances that may wait for their transcripts at once."""

MAX_DELTA = 1000
"""Characters of chat text handled in one go, some 3 ms."""

_ENGINES = {"stt": "Speech-to-text", "chat": "The chat model", "tts": "Text-to-speech"}

MAX_TURNS = 500
"""Turns whose numbers are kept for the end of the call, the latest."""

LOOKBACK_SLACK_MS = 600
"""Kept beside the prefix padding: how late the detector may notice speech."""


class Session:
    """One call. `on_end(session, reason)` is called once, when the leg is gone."""

    def __init__(
        self,
        leg: Leg,
        config: SessionConfig,
        engines: Engines,
        detector: Callable[[EndpointSettings, Callable[[SpeechEvent], None]], SpeechDetector],
        metrics: Metrics,
        *,
        greeting: str | None = None,
        filler: Filler | None = None,
        on_end: Callable[[Session, str], None],
    ) -> None:
        self.id = config.id
        self.log_ids = f"request_id={request_id()} session={config.id}"
        """Which call, for every line of the log: the request is the one that opened it."""
        self.leg = leg
        self.config = config
        self.started_at = time.monotonic()
        self._engines = engines
        self._metrics = metrics
        self._on_end = on_end
        self._wall_offset = time.time() - time.monotonic()
        self.conversation = Conversation(
            config,
            leg.playout,
            greeting=greeting,
            filler=filler,
            engines=engines.names(),
            client_plays=not leg.abilities.plays,
        )
        self.turns: deque[dict[str, Any]] = deque(maxlen=MAX_TURNS)
        """The turns so far: `response_id`, `status`, and the numbers of `realtime.turn.metrics`."""
        self._sidebands: list[Callable[[str], None]] = []
        self._delivering: Pcm | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._detector = detector(config.endpoint or EndpointSettings(), self._on_speech)
        self._recent: deque[tuple[float, Pcm]] = deque()
        """The latest audio, each piece with the media time (ms) at its end."""
        self._position_ms = 0.0
        self._lookback_ms = LOOKBACK_SLACK_MS
        self._ears: dict[str, Ear] = {}
        self._voices: dict[int, asyncio.Queue[Speak | FinishSpeaking]] = {}
        self._tasks: dict[tuple[str, object], asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._inputs: deque[Input] = deque()
        self._handling = False
        self._ended = False
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Take the leg and say who we are. Called once, before the leg is answered."""
        self.leg.attach(self)
        self._carry_out_all(self.conversation.start())

    # --- what the leg tells -------------------------------------------------------------------

    def on_open(self) -> None:
        self._tell(AudioOpened())

    def on_text_open(self) -> None:
        """Nothing: the leg keeps what was sent before."""

    def on_audio(self, pcm: Pcm, arrived_at: float) -> None:
        if not self.conversation.collects_audio:
            self._tell(AudioArrived(self._position_ms))
        self._position_ms += len(pcm) * 1000 / RATE_IN
        self._recent.append((self._position_ms, pcm))
        while self._recent[0][0] < self._position_ms - self._lookback_ms:
            self._recent.popleft()
        for ear in list(self._ears.values()):
            self._hear(ear, pcm)
        self._detector.push(pcm, arrived_at)

    def _hear(self, ear: Ear, pcm: Pcm) -> None:
        try:
            ear.push(pcm)
        except EngineError as error:
            # Too long for this recogniser: the words so far are worth more than none.
            log.info("%s hears no more of %s: %s", self.log_ids, ear.item_id, error)
            self._ears.pop(ear.item_id, None)
            ear.finish()

    def on_text(self, text: str) -> None:
        try:
            self.obey(wire.parse(text))
        except wire.WireError as error:
            self.obey(error)

    def obey(self, event: wire.AnyClientEvent | wire.WireError) -> None:
        """A client event, from whichever of the call's channels, or why one could not be taken."""
        self._tell(ClientMessage(event, self._position_ms))

    def on_key(self, key: str) -> None:
        self._send(wire.KeyPressed(event=key, received_at=int(time.time())))

    def on_text_refused(self, code: str, detail: str) -> None:
        self.obey(wire.WireError(detail, code=code))

    def watch(self, sink: Callable[[str], None]) -> Callable[[], None]:
        """Give every further event (without audio) to `sink` as well; call what is returned to stop."""
        self._sidebands.append(sink)
        return lambda: self._sidebands.remove(sink)

    def on_playout(self, event: PlayoutEvent) -> None:
        if event.kind is not PlayoutEventKind.STARTED:
            self._room.set()
        self._tell(event)

    def on_closed(self, reason: str) -> None:
        self._ended = True
        if not self._over.done():
            self._over.set_result(reason)
        self._detector.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        self._ears.clear()
        self._voices.clear()
        self._recent.clear()
        for turn in self.conversation.ended():
            self._record(turn)
        self._on_end(self, reason)

    # --- the core and its effects -------------------------------------------------------------

    def _tell(self, event: Input) -> None:
        """Hand an input to the conversation; inputs that arise meanwhile wait their turn."""
        self._inputs.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._inputs and not self._ended:
                self._handle(self._inputs.popleft())
            self._set_timer()
        finally:
            self._handling = False
            self._inputs.clear()

    def _handle(self, event: Input) -> None:
        try:
            effects = self.conversation.handle(event, time.monotonic())
        except Exception:
            # A defect must cost one event of one call, not the call and never another.
            log.exception("%s could not handle %s", self.log_ids, type(event).__name__)
            self._send(wire.ErrorEvent.make("Something went wrong here.", code="internal", kind="server_error"))
            return
        self._carry_out_all(effects)

    def _set_timer(self) -> None:
        """Wake up when the conversation wants to be told of the time."""
        deadline = None if self._ended else self.conversation.deadline
        if deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        if deadline is not None:
            delay = max(0.0, deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = self._timer_at = None
        self._tell(Tick())

    def _carry_out_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect.event)
            case Listen():
                self._listen(effect)
            case EndListening():
                ear = self._ears.pop(effect.item_id, None)
                if ear is not None:
                    ear.finish()
            case DropListening():
                self._drop_ear(effect.item_id)
            case Transcribe():
                self._run(("ear", effect.item_id), self._transcribe_sound(effect))
            case ResetDetector():
                self._detector.reset()
            case Think():
                self._run(("chat", effect.generation), self._think(effect))
            case Speak() | FinishSpeaking():
                self._voice(effect)
            case Stop():
                self._stop(effect.generation)
            case StopThinking():
                self._cancel(("chat", effect.generation))
            case Deliver():
                self._deliver(effect)
            case Configure():
                self._configure(effect)
            case Record():
                self._record(effect.turn)

    def _send(self, event: wire.ServerEvent) -> None:
        """To the caller's own channel and to every sideband."""
        text = event.serialise()
        if self.leg.abilities.plays or not isinstance(event, wire.OutputBufferEvent):
            self.leg.send_text(text)
        for sink in list(self._sidebands):
            sink(text)

    def _deliver(self, effect: Deliver) -> None:
        """Audio for a client that plays it; sidebands do without."""
        assert isinstance(self.leg, SocketLeg)
        if self._delivering is not None:
            delta = self.leg.encode(self._delivering)
            event = wire.DeltaEvent(type="response.output_audio.delta", delta=delta, **asdict(effect))
            self.leg.send_text(event.serialise())

    def _run(self, key: tuple[str, object], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{self.id}:{key[0]}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._done(key, done))

    def _done(self, key: tuple[str, object], task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s %s task failed", self.log_ids, key[0], exc_info=error)

    def _stop(self, generation: int) -> None:
        self._voices.pop(generation, None)
        self._cancel(("chat", generation))
        self._cancel(("speech", generation))

    def _cancel(self, key: tuple[str, object]) -> None:
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()

    def _configure(self, effect: Configure) -> None:
        """A detector that was switched off goes on counting media time; `_on_speech` ignores it."""
        if isinstance(self.leg, SocketLeg):
            self.leg.use_formats(AudioFormat(effect.input_format), AudioFormat(effect.output_format))
        if effect.endpoint is None:
            return
        self._lookback_ms = effect.endpoint.prefix_padding_ms + LOOKBACK_SLACK_MS
        self._detector.configure(effect.endpoint)

    def _on_speech(self, event: SpeechEvent) -> None:
        if isinstance(event, SpeechStarted) and self.config.turn_detection is None:
            return
        self._tell(event)

    # --- listening ----------------------------------------------------------------------------

    def _listen(self, effect: Listen) -> None:
        if sum(1 for kind, _ in self._tasks if kind == "ear") >= MAX_EARS:
            self._tell(TranscriptFailed(effect.item_id, "recogniser_busy", "Too many utterances wait for transcripts."))
            return
        pieces = [pcm for end_ms, pcm in self._recent if end_ms > effect.from_ms]
        ear = Ear(effect.item_id, pieces)
        self._ears[effect.item_id] = ear
        self._run(("ear", effect.item_id), self._transcribe(ear))

    def _drop_ear(self, item_id: str) -> None:
        self._ears.pop(item_id, None)
        self._cancel(("ear", item_id))

    async def _transcribe_sound(self, effect: Transcribe) -> None:
        """Words of a sound that the client put into an item."""
        form = AudioFormat(self.config.audio_format("input"))
        try:
            resampler = Resampler(form.rate, RATE_IN)
            pcm = resampler.push(decode(effect.audio, form))
        except AudioError as error:
            self._tell(TranscriptFailed(effect.item_id, "invalid_audio", str(error)))
            return
        ear = Ear(effect.item_id, [pcm[at : at + RATE_IN] for at in range(0, len(pcm), RATE_IN)])
        ear.finish()
        await self._transcribe(ear)

    async def _transcribe(self, ear: Ear) -> None:
        options = SttOptions(self.config.language, self.config.transcription_prompt, self.id)
        final = False
        try:
            async with self._engines.stt.stream(options) as stream:
                ear.attach(stream)
                async for heard in stream:
                    final = final or heard.final
                    self._tell(TranscriptHeard(ear.item_id, heard.text, heard.final, heard.spoken))
            if not final:
                raise EngineError("The recogniser gave no final transcript.", code="no_transcript")
        except Exception as error:
            self._tell(TranscriptFailed(ear.item_id, *self._blame(error, "stt")))
        finally:
            self._ears.pop(ear.item_id, None)

    def _blame(self, error: Exception, kind: str) -> tuple[str, str]:
        """A code and a sentence for an engine's failure; only expected failures are quoted to the caller."""
        if isinstance(error, EngineError):
            code, message = error.code, str(error)
            log.warning("%s %s failed: %s (%s)", self.log_ids, kind, message, code)
        else:
            code, message = "engine_error", f"{_ENGINES[kind]} failed."
            log.error("%s %s failed unexpectedly", self.log_ids, kind, exc_info=error)
        self._metrics.engine_failed(kind, code)
        return code, message

    # --- answering ----------------------------------------------------------------------------

    async def _think(self, effect: Think) -> None:
        try:
            async with self._engines.chat.stream(effect.request) as deltas:
                async for delta in deltas:
                    for piece in _pieces(delta):
                        self._tell(ChatProduced(effect.generation, piece))
                        await asyncio.sleep(0)
        except Exception as error:
            self._tell(ChatFailed(effect.generation, *self._blame(error, "chat")))

    def _voice(self, effect: Speak | FinishSpeaking) -> None:
        queue = self._voices.get(effect.generation)
        if queue is None:
            # Bounded by the text of one response (responses.MAX_TEXT): clauses are never empty.
            queue = self._voices[effect.generation] = asyncio.Queue()
            self._run(("speech", effect.generation), self._speak(effect.generation, queue))
        queue.put_nowait(effect)

    async def _speak(self, generation: int, queue: asyncio.Queue[Speak | FinishSpeaking]) -> None:
        try:
            while isinstance(order := await queue.get(), Speak):
                await self._speak_clause(order)
            self.leg.playout.finish(generation)
            self._tell(SpeechFinished(generation))  # first: an empty playout may end within wake()
            self.leg.wake()
        except Exception as error:
            self._tell(SpeechFailed(generation, *self._blame(error, "tts")))
        finally:
            self._voices.pop(generation, None)

    async def _speak_clause(self, order: Speak) -> None:
        request = SpeechRequest(order.text, order.voice, self.config.language, order.speed, self.id)
        playout = self.leg.playout
        async with self._engines.tts.stream(request) as chunks:
            async for chunk in chunks:
                if len(chunk.pcm) and not playout.push(order.generation, chunk.pcm):
                    return
                ms = len(chunk.pcm) / 24
                self._delivering = chunk.pcm
                self._tell(SpeechProduced(order.generation, order.clause, ms, chunk.words))
                self._delivering = None
                self.leg.wake()
                while playout.buffered_ms > AHEAD_MS:
                    self._room.clear()
                    await self._room.wait()

    # --- what is left of it -------------------------------------------------------------------

    def _record(self, turn: TurnRecord) -> None:
        numbers = turn.metrics(self._wall_offset)
        self.turns.append({"response_id": turn.response_id, "status": turn.status, **numbers})
        self._metrics.turn(turn.status, numbers)
        shown = " ".join(
            f"{name}={value}" for name, value in numbers.items() if value is not None and name != "engines"
        )
        log.info("turn %s response=%s status=%s %s", self.log_ids, turn.response_id, turn.status, shown)
        if self.config.includes("realtime.turn.metrics"):
            self._send(wire.TurnMetrics(response_id=turn.response_id, metrics=numbers))

    @property
    def position_ms(self) -> float:
        """Media time: all audio that came."""
        return self._position_ms

    async def ended(self) -> str:
        """Wait until the call is over; the reason."""
        return await asyncio.shield(self._over)

    def transcript(self) -> list[dict[str, str]]:
        """What was said and heard so far: `[{role, text, item_id}]`."""
        return [
            {"item_id": item.id, "role": item.role, "text": item.text}
            for item in self.conversation.history
            if item.type == "message" and item.role is not None and item.text
        ]


def _pieces(delta: ChatDelta) -> Iterator[ChatDelta]:
    """A vendor that sends its whole answer at once must not hold up the loop while it is cut into clauses."""
    if isinstance(delta, TextDelta) and len(delta.text) > MAX_DELTA:
        for start in range(0, len(delta.text), MAX_DELTA):
            yield TextDelta(delta.text[start : start + MAX_DELTA])
    else:
        yield delta
