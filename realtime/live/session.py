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
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from media.audio import Pcm
from media.endpoint import EndpointSettings, SpeechEvent, SpeechStarted
from media.leg import Leg
from media.playout import PlayoutEvent, PlayoutEventKind
from media.vad import SpeechDetector
from realtime.adapters.base import ChatDelta, EngineError, SpeechRequest, SpeechToText, TextDelta
from realtime.adapters.catalogue import Engines
from realtime.live import effects as fx
from realtime.live import wire
from realtime.live.agent import CallAgent
from realtime.live.config import SessionConfig
from realtime.live.conversation import Conversation
from realtime.live.hearing import Hearing
from realtime.live.owned import weakly
from realtime.live.socket_leg import AudioFormat, SocketLeg
from realtime.live.tasks import CallTasks
from realtime.live.text import repaired
from realtime.observe.cost import Bill
from realtime.observe.metrics import Metrics
from realtime.observe.turns import TurnRecord
from realtime.problems import request_id
from realtime.recording.recordings import Recording

log = logging.getLogger("realtime.live")

AHEAD_MS = 10_000.0
"""Speech is made at most this far ahead of what is heard."""

MAX_DELTA = 1000
"""Characters of chat text handled in one go, some 3 ms."""

_ENGINES = {"stt": "Speech-to-text", "chat": "The chat model", "tts": "Text-to-speech"}

SETTLE_S = 1.0
"""Seconds for the streams of a call that has ended to be left."""

MAX_TURNS = 500
"""Turns whose numbers are kept for the end of the call, the latest."""


class Session:
    """One call.

    `agent`: what answers it, beside the engines. `hang_up(reason)` is asked for when the agent ends the call;
    `on_end(session, reason)` is called once, when the leg is gone.
    """

    def __init__(
        self,
        leg: Leg,
        config: SessionConfig,
        engines: Engines,
        detector: Callable[[EndpointSettings, Callable[[SpeechEvent], None]], SpeechDetector],
        metrics: Metrics,
        *,
        greeting: str | None = None,
        agent: CallAgent | None = None,
        recording: Recording | None = None,
        hang_up: Callable[[str], None],
        on_end: Callable[[Session, str], None],
    ) -> None:
        self.id = config.id
        self.log_ids = f"request_id={request_id()} session={config.id}"
        """Which call, for every line of the log: the request is the one that opened it."""
        self.leg = leg
        self.config = config
        self.started_at = time.monotonic()
        self._engines = engines
        self.agent = agent
        self._chat = agent.model(engines.chat) if agent else engines.chat
        self._hang_up = hang_up
        self._metrics = metrics
        self.recording = recording
        self._on_end = on_end
        self._wall_offset = time.time() - time.monotonic()
        self.conversation = Conversation(
            config,
            leg.playout,
            greeting=greeting,
            filler=agent.filler if agent else None,
            engines=engines.names(),
            client_plays=not leg.abilities.plays,
            idle_seconds=agent.idle_seconds if agent else None,
        )
        self.turns: deque[dict[str, Any]] = deque(maxlen=MAX_TURNS)
        """The turns so far: `response_id`, `status`, and the numbers of `realtime.turn.metrics`."""
        self.bill = Bill()
        """What the call has cost so far."""
        self._sidebands: list[Callable[[str], None]] = []
        self._delivering: Pcm | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._detector = detector(config.endpoint or EndpointSettings(), weakly(self._on_speech))
        self._voices: dict[int, asyncio.Queue[fx.Speak | fx.FinishSpeaking]] = {}
        self._tasks = CallTasks(self.id, self.log_ids)
        self.hearing = Hearing(
            config,
            self.log_ids,
            self._tasks,
            weakly(self._recogniser),
            weakly(self._tell),
            partial(weakly(self._blame), kind="stt"),
        )
        self._room = asyncio.Event()
        self._inputs: deque[fx.Input] = deque()
        self._handling = False
        self._ended = False
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Take the leg and say who we are. Called once, before the leg is answered."""
        self.leg.attach(self)
        self._carry_out_all(self.conversation.start())

    # --- what the leg tells -------------------------------------------------------------------

    def on_open(self) -> None:
        if self.recording is not None:
            self.recording.opened()
        self._tell(fx.AudioOpened())

    def on_text_open(self) -> None:
        """Nothing: the leg keeps what was sent before."""

    def on_audio(self, pcm: Pcm, arrived_at: float) -> None:
        if not self.conversation.collects_audio:
            self._tell(fx.AudioArrived(self.hearing.position_ms))
        self.hearing.push(pcm)
        if self.recording is not None:
            self.recording.caller(pcm, arrived_at)
        self._detector.push(pcm, arrived_at)

    def on_text(self, text: str) -> None:
        try:
            self.obey(wire.parse(text))
        except wire.WireError as error:
            self.obey(error)

    def obey(self, event: wire.AnyClientEvent | wire.WireError, *, trusted: bool = False) -> None:
        """A client event, from whichever of the call's channels, or why one could not be taken.

        `trusted`: it comes from who has an API key, and not from the caller.
        """
        if isinstance(event, wire.RecordingControl):
            refused = self._control_recording(event, trusted)
            if refused is None:
                return
            event = refused
        if isinstance(event, wire.ItemTruncate) and isinstance(self.leg, SocketLeg):
            self.leg.stopped()
        self._tell(fx.ClientMessage(event, self.hearing.position_ms))

    def _control_recording(self, event: wire.RecordingControl, trusted: bool) -> wire.WireError | None:
        recording = self.recording
        if recording is None or not (trusted or recording.wish.by_caller):
            message = "There is no recording of this call that you may control."
            return wire.WireError(message, code="not_allowed", param="type", event_id=event.event_id)
        recording.pause() if event.type == "realtime.recording.pause" else recording.resume()
        return None

    def on_key(self, key: str) -> None:
        self._send(wire.KeyPressed(event=key, received_at=int(time.time())))
        if self.agent is not None:
            self.agent.key(key)

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
        self._tasks.cancel_all()
        self._voices.clear()
        self.hearing.close()
        for turn in self.conversation.ended():
            self._record(turn)
        self._on_end(self, reason)

    # --- what the agent tells -----------------------------------------------------------------

    def tell(self, event: fx.Input) -> None:
        """An input of the agent: a tool that returned, words to be said, the end of the call. Nothing after the end."""
        if not self._ended:
            self._tell(event)

    def hand_over(self, agent: CallAgent, engines: Engines, event: fx.HandOver) -> None:
        """From here on `agent` answers, with its own engines."""
        if self._ended:
            return
        self.agent, self._engines = agent, engines
        self._chat = agent.model(engines.chat)
        self.conversation.silence_means(filler=agent.filler, idle_seconds=agent.idle_seconds)
        self._tell(event)

    # --- the core and its effects -------------------------------------------------------------

    def _tell(self, event: fx.Input) -> None:
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

    def _handle(self, event: fx.Input) -> None:
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
        self._tell(fx.Tick())

    def _carry_out_all(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            try:
                self._carry_out(effect)
            except Exception:
                log.exception("%s could not carry out %s", self.log_ids, type(effect).__name__)

    def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Send():
                self._send(effect.event)
            case fx.Listen():
                self.hearing.listen(effect)
            case fx.EndListening():
                self.hearing.end(effect.item_id)
            case fx.DropListening():
                self.hearing.drop(effect.item_id)
            case fx.Transcribe():
                self.hearing.transcribe(effect)
            case fx.ResetDetector():
                self._detector.reset()
            case fx.Think():
                self._tasks.run(("chat", effect.generation), self._think(effect))
            case fx.Speak() | fx.FinishSpeaking():
                self._voice(effect)
            case fx.Stop():
                self._stop(effect.generation)
            case fx.StopThinking():
                self._tasks.cancel(("chat", effect.generation))
            case fx.Deliver():
                self._deliver(effect)
            case fx.Configure():
                self._configure(effect)
            case fx.Record():
                self._record(effect.turn)
            case fx.EndCall():
                self._hang_up(effect.reason)
            case fx.RunTool() | fx.CancelTool() | fx.UserIdle() | fx.IsQuiet():
                self._ask_agent(effect)

    def _ask_agent(self, effect: fx.RunTool | fx.CancelTool | fx.UserIdle | fx.IsQuiet) -> None:
        assert self.agent is not None, "only an agent has tools here and wants to know of silence"
        match effect:
            case fx.RunTool():
                self.agent.run_tool(effect.call)
            case fx.CancelTool():
                self.agent.cancel_tool(effect.call_id)
            case fx.UserIdle():
                self.agent.idle(effect.seconds)
            case fx.IsQuiet():
                self.agent.quiet(effect.token)

    def _send(self, event: wire.ServerEvent) -> None:
        """To the caller's own channel and to every sideband."""
        text = event.serialise()
        if self.leg.abilities.plays or not isinstance(event, wire.OutputBufferEvent):
            self.leg.send_text(text)
        for sink in list(self._sidebands):
            sink(text)

    def _deliver(self, effect: fx.Deliver) -> None:
        """Audio for a client that plays it; sidebands do without."""
        assert isinstance(self.leg, SocketLeg)
        if self._delivering is not None:
            delta = self.leg.encode(self._delivering)
            event = wire.DeltaEvent(type="response.output_audio.delta", delta=delta, **asdict(effect))
            self.leg.send_text(event.serialise())

    def _stop(self, generation: int) -> None:
        self._voices.pop(generation, None)
        self._tasks.cancel(("chat", generation))
        self._tasks.cancel(("speech", generation))

    def _configure(self, effect: fx.Configure) -> None:
        """A detector that was switched off goes on counting media time; `_on_speech` ignores it."""
        if isinstance(self.leg, SocketLeg):
            self.leg.use_formats(AudioFormat(effect.input_format), AudioFormat(effect.output_format))
        if effect.endpoint is None:
            return
        self.hearing.look_back(effect.endpoint.prefix_padding_ms)
        self._detector.configure(effect.endpoint)

    def _on_speech(self, event: SpeechEvent) -> None:
        if isinstance(event, SpeechStarted) and self.config.turn_detection is None:
            return
        self._tell(event)

    # --- answering ----------------------------------------------------------------------------

    def _recogniser(self) -> SpeechToText:
        return self._engines.stt

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

    async def _think(self, effect: fx.Think) -> None:
        try:
            async with self._chat.stream(effect.request) as deltas:
                async for delta in deltas:
                    for piece in _pieces(delta):
                        self._tell(fx.ChatProduced(effect.generation, piece))
                        await asyncio.sleep(0)
        except Exception as error:
            self._tell(fx.ChatFailed(effect.generation, *self._blame(error, "chat")))

    def _voice(self, effect: fx.Speak | fx.FinishSpeaking) -> None:
        queue = self._voices.get(effect.generation)
        if queue is None:
            # Bounded by the text of one response (responses.MAX_TEXT): clauses are never empty.
            queue = self._voices[effect.generation] = asyncio.Queue()
            self._tasks.run(("speech", effect.generation), self._speak(effect.generation, queue))
        queue.put_nowait(effect)

    async def _speak(self, generation: int, queue: asyncio.Queue[fx.Speak | fx.FinishSpeaking]) -> None:
        try:
            while isinstance(order := await queue.get(), fx.Speak):
                await self._speak_clause(order)
            self.leg.playout.finish(generation)
            self._tell(fx.SpeechFinished(generation))  # first: an empty playout may end within wake()
            self.leg.wake()
        except Exception as error:
            self._tell(fx.SpeechFailed(generation, *self._blame(error, "tts")))
        finally:
            self._voices.pop(generation, None)

    async def _speak_clause(self, order: fx.Speak) -> None:
        request = SpeechRequest(order.text, order.voice, self.config.language, order.speed, self.id, order.shared)
        playout = self.leg.playout
        async with self._engines.tts.stream(request) as chunks:
            async for chunk in chunks:
                if len(chunk.pcm) and not playout.push(order.generation, chunk.pcm, chunk.source):
                    return
                ms = len(chunk.pcm) / 24
                self._delivering = chunk.pcm
                self._tell(fx.SpeechProduced(order.generation, order.clause, ms, chunk.words))
                self._delivering = None
                self.leg.wake()
                while playout.buffered_ms > AHEAD_MS:
                    self._room.clear()
                    await self._room.wait()

    # --- what is left of it -------------------------------------------------------------------

    def _record(self, turn: TurnRecord) -> None:
        turn.cost_usd = self.bill.take_turn()
        numbers = turn.metrics(self._wall_offset)
        self.turns.append({"response_id": turn.response_id, "status": turn.status, **numbers})
        self._metrics.turn(turn.status, numbers)
        shown = " ".join(
            f"{name}={value}" for name, value in numbers.items() if value is not None and name != "engines"
        )
        log.info("turn %s response=%s status=%s %s", self.log_ids, turn.response_id, turn.status, shown)
        if self.config.includes("realtime.turn.metrics"):
            self._send(wire.TurnMetrics(response_id=turn.response_id, metrics=numbers))

    async def ended(self) -> str:
        """Wait until the call is over; the reason."""
        return await asyncio.shield(self._over)

    async def settled(self) -> None:
        """After its end: wait a little until nothing of it runs any more, and the bill is complete."""
        await self._tasks.gone(SETTLE_S)

    def transcript(self) -> list[dict[str, str]]:
        """What was said and heard so far: `[{role, text, item_id}]`."""
        return [
            {"item_id": item.id, "role": item.role, "text": item.text}
            for item in self.conversation.history
            if item.type == "message" and item.role is not None and item.text
        ]


def _pieces(delta: ChatDelta) -> Iterator[ChatDelta]:
    """A vendor that sends its whole answer at once must not hold up the loop while it is cut into clauses."""
    if not isinstance(delta, TextDelta):
        yield delta
        return
    for start in range(0, len(delta.text), MAX_DELTA) or (0,):
        last = start + MAX_DELTA >= len(delta.text)
        yield TextDelta(repaired(delta.text[start : start + MAX_DELTA]), complete=delta.complete and last)
