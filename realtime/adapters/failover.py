"""The first of several engines that answers: `FirstOfChat`, `FirstOfSpeechToText`, `FirstOfTextToSpeech`.

Each is an engine itself. It tries its engines in order, each until a deadline for its first output,
and stays with the first that gives one: after that an error is the caller's to see, because half an
answer from two engines is worse than none. An engine that failed often in a row is passed over for a
while, unless all are. This is the only retry loop there is. It must never leave the stream of an
attempt open, nor count an attempt the caller gave up as a failure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from media.audio import RATE_IN, Pcm
from realtime.adapters.base import (
    ChatDelta,
    ChatModel,
    ChatRequest,
    EngineError,
    EngineInfo,
    SpeechChunk,
    SpeechRequest,
    SpeechToText,
    SttOptions,
    TextToSpeech,
    Transcript,
    TranscriptStream,
)
from realtime.adapters.breaker import Breaker
from realtime.adapters.kept import KeptSpeech
from realtime.adapters.metering import ChatMeter, Meter, SpeechMeter, Tell
from realtime.adapters.routing import Amount

FIRST_OUTPUT_S = 10.0
"""Seconds for the first token or the first sound: nobody waits longer on the telephone."""

TRANSCRIPT_S = 15.0
"""Seconds for the transcript, from the end of the utterance: a long one has to be worked through."""

MAX_UTTERANCE_S = 120.0
"""Seconds of audio kept for the next recogniser."""

RESULTS = 64
"""Transcripts that wait for the caller; then the engine waits too."""

HELD_CHUNKS = 32
"""Chunks of speech without a sample that are held back before one counts as output."""


def _nobody(engine: object, session: str, amount: Amount, estimated: bool) -> None:
    """Nobody wants to know what was used."""


@dataclass(frozen=True, slots=True)
class Attempt:
    engine: str
    code: str
    seconds: float


class AllFailed(EngineError):
    """Every engine failed; code and engine are those of the last one."""

    def __init__(self, last: EngineError, attempts: Sequence[Attempt]) -> None:
        tried = ", ".join(f"{attempt.engine}: {attempt.code}" for attempt in attempts)
        super().__init__(f"{last} (tried {tried})", code=last.code, engine=last.engine, retryable=last.retryable)
        self.attempts = tuple(attempts)


class Breakers:
    """One breaker per engine object, shared by all lists the engine stands in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, make: Callable[[], Breaker] = Breaker) -> None:
        self.clock = clock
        self._make = make
        self._of: dict[int, tuple[object, Breaker]] = {}

    def of(self, engine: object) -> Breaker:
        # The engine is kept with its breaker, so that its id stays its own.
        return self._of.setdefault(id(engine), (engine, self._make()))[1]


EngineT = TypeVar("EngineT", ChatModel, SpeechToText, TextToSpeech)
Output = TypeVar("Output")


class _Engines(Generic[EngineT]):
    """What the three have in common: order, breakers, the attempts of a request."""

    def __init__(
        self, engines: Sequence[EngineT], breakers: Breakers | None, deadline_s: float, spent: Tell = _nobody
    ) -> None:
        if not engines:
            raise ValueError("no engine to try")
        self._spent = spent
        self.engines: tuple[EngineT, ...] = tuple(engines)
        self._breakers = breakers or Breakers()
        self._deadline_s = deadline_s

    @property
    def info(self) -> EngineInfo:
        """The first engine's: the one that is meant to answer."""
        return self.engines[0].info

    async def start(self) -> None:
        """Starts all. Those that cannot are left to the calls to find out, unless none can."""
        results = await asyncio.gather(*(engine.start() for engine in self.engines), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if len(errors) == len(self.engines):
            raise errors[0]

    async def close(self) -> None:
        await asyncio.gather(*(engine.close() for engine in self.engines), return_exceptions=True)

    async def _first_of(
        self,
        open_stream: Callable[[EngineT], AbstractAsyncContextManager[AsyncIterator[Output]]],
        is_output: Callable[[Output], bool],
        meter_of: Callable[[EngineT], Meter[Output]],
    ) -> AsyncGenerator[Output, None]:
        run = _Run(self.engines, self._breakers)
        for engine in run.candidates():
            with run.attempt(engine) as verdict:
                async with AsyncExitStack() as stack:
                    meter = meter_of(engine)
                    stack.callback(meter.close)
                    async with _within(self._deadline_s, engine.info.name):
                        stream = await stack.enter_async_context(open_stream(engine))
                        held = await _first_output(stream, is_output)
                    verdict.good()
                    for output in held:
                        meter.see(output)
                        yield output
                    async for output in stream:
                        meter.see(output)
                        yield output
                return
        raise run.failure()


class _Verdict:
    """Whether an attempt has given output: from then on it is the only one."""

    def __init__(self, breaker: Breaker, clock: Callable[[], float]) -> None:
        self._breaker = breaker
        self._clock = clock
        self.given = False

    def good(self) -> None:
        if not self.given:
            self.given = True
            self._breaker.succeeded(self._clock())


class _Run(Generic[EngineT]):
    """The attempts of one request."""

    def __init__(self, engines: Sequence[EngineT], breakers: Breakers) -> None:
        self._engines: Sequence[EngineT] = engines
        self._breakers = breakers
        self._attempts: list[Attempt] = []
        self._last: EngineError | None = None

    def candidates(self) -> Iterator[EngineT]:
        """The engines whose breaker lets an attempt through; all of them when none does."""
        tried = False
        for engine in self._engines:
            if self._breakers.of(engine).allows(self._breakers.clock()):
                tried = True
                yield engine
        if not tried:
            yield from self._engines

    @contextmanager
    def attempt(self, engine: EngineT) -> Iterator[_Verdict]:
        """Keeps the books of one attempt. An error before its output is noted, a later one raised."""
        breaker, began = self._breakers.of(engine), self._breakers.clock()
        verdict = _Verdict(breaker, self._breakers.clock)
        try:
            yield verdict
        except EngineError as error:
            if verdict.given:
                raise
            now = self._breakers.clock()
            self._last = error
            self._attempts.append(Attempt(error.engine or engine.info.name, error.code, now - began))
            if error.retryable or error.code == "auth_failed":
                breaker.failed(now)
            else:
                breaker.undecided()  # the request was at fault, not the engine
        except BaseException:
            if not verdict.given:
                breaker.undecided()
            raise
        else:
            verdict.good()

    def failure(self) -> EngineError:
        assert self._last is not None
        return self._last if len(self._engines) == 1 else AllFailed(self._last, self._attempts)


@asynccontextmanager
async def _within(seconds: float, engine: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise EngineError(f"{engine}: no output within {seconds:g} s", code="timeout", engine=engine) from None


async def _first_output(stream: AsyncIterator[Output], is_output: Callable[[Output], bool]) -> list[Output]:
    """What came up to the first output, that included; all there is when none came."""
    held: list[Output] = []
    async for output in stream:
        held.append(output)
        if is_output(output) or len(held) >= HELD_CHUNKS:
            break
    return held


class FirstOfChat(_Engines[ChatModel]):
    """A `ChatModel` over several."""

    def __init__(
        self,
        engines: Sequence[ChatModel],
        breakers: Breakers | None = None,
        *,
        deadline_s: float = FIRST_OUTPUT_S,
        spent: Tell = _nobody,
    ) -> None:
        super().__init__(engines, breakers, deadline_s, spent)

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        def meter(engine: ChatModel) -> Meter[ChatDelta]:
            return ChatMeter(self._spent, engine, request)

        return aclosing(self._first_of(lambda engine: engine.stream(request), lambda delta: True, meter))


class FirstOfTextToSpeech(_Engines[TextToSpeech]):
    """A `TextToSpeech` over several. `voice_of` says what the voice of a request is called at an engine. `kept`: what
    many calls say, for requests that are `shared`."""

    def __init__(
        self,
        engines: Sequence[TextToSpeech],
        breakers: Breakers | None = None,
        *,
        deadline_s: float = FIRST_OUTPUT_S,
        voice_of: Callable[[str | None, TextToSpeech], str | None] = lambda voice, engine: voice,
        spent: Tell = _nobody,
        kept: KeptSpeech | None = None,
    ) -> None:
        super().__init__(engines, breakers, deadline_s, spent)
        self._voice_of = voice_of
        self._kept = kept

    @property
    def voices(self) -> Sequence[str]:
        return self.engines[0].voices

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        first = speaker = self.engines[0]

        def open_stream(engine: TextToSpeech) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
            nonlocal speaker
            speaker = engine
            return engine.stream(replace(request, voice=self._voice_of(request.voice, engine)))

        def meter(engine: TextToSpeech) -> Meter[SpeechChunk]:
            return SpeechMeter(self._spent, engine, request)

        def make() -> AsyncGenerator[SpeechChunk, None]:
            return self._first_of(open_stream, lambda chunk: len(chunk.pcm) > 0, meter)

        if self._kept is None or not request.shared:
            return aclosing(make())
        key = id(first), self._voice_of(request.voice, first), request.text, request.language, request.speed
        return aclosing(self._kept.stream(key, make, lambda: speaker is first))


class FirstOfSpeechToText(_Engines[SpeechToText]):
    """A `SpeechToText` over several. The audio is kept until the first transcript, for the next engine."""

    def __init__(
        self,
        engines: Sequence[SpeechToText],
        breakers: Breakers | None = None,
        *,
        deadline_s: float = TRANSCRIPT_S,
        spent: Tell = _nobody,
    ) -> None:
        super().__init__(engines, breakers, deadline_s, spent)

    def stream(self, options: SttOptions) -> AbstractAsyncContextManager[TranscriptStream]:
        return self._utterance(options)

    @asynccontextmanager
    async def _utterance(self, options: SttOptions) -> AsyncGenerator[TranscriptStream, None]:
        utterance = _Utterance(_Run(self.engines, self._breakers), options, self._deadline_s, self._spent)
        # Its own task, because the recogniser is to hear while nobody waits for a transcript yet.
        pump = asyncio.create_task(utterance.pump())
        try:
            yield utterance
        finally:
            pump.cancel()
            await asyncio.wait([pump])
            utterance.close()


class _Utterance:
    def __init__(self, run: _Run[SpeechToText], options: SttOptions, deadline_s: float, spent: Tell) -> None:
        self._run = run
        self._spent = spent
        self._given = 0
        """Samples that the engine being tried was given."""
        self._options = options
        self._deadline_s = deadline_s
        self._kept: list[Pcm] | None = []
        """All audio until the first transcript, which makes it useless."""
        self._samples = 0
        self._over = False
        self._current: TranscriptStream | None = None
        self._broken: EngineError | None = None
        self._until: float | None = None
        self._limit: asyncio.Timeout | None = None
        self._results: asyncio.Queue[Transcript | Exception | None] = asyncio.Queue(RESULTS)

    # --- from the caller ----------------------------------------------------------------------

    def push(self, pcm: Pcm) -> None:
        if self._over:
            return
        if self._samples + len(pcm) > MAX_UTTERANCE_S * RATE_IN:
            text = f"an utterance of more than {MAX_UTTERANCE_S:.0f} s"
            raise EngineError(text, code="audio_overflow", retryable=False)
        self._samples += len(pcm)
        if self._kept is not None:
            self._kept.append(pcm)
        if self._current is not None:
            self._give(self._current, [pcm])

    def finish(self) -> None:
        if self._over:
            return
        self._over = True
        if self._broken is None:
            self._set_limit(self._deadline_s)
        if self._current is not None:
            self._current.finish()

    def close(self) -> None:
        """The stream was left: whoever still reads comes to its end."""
        self._over = True
        while not self._results.empty():
            self._results.get_nowait()
        self._results.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while isinstance(result := await self._results.get(), Transcript):
            yield result
        self._results.put_nowait(None)  # the end, for whoever reads again
        if result is not None:
            raise result

    # --- towards the engines ------------------------------------------------------------------

    async def pump(self) -> None:
        try:
            async with aclosing(self._transcripts()) as transcripts:
                async for transcript in transcripts:
                    await self._results.put(transcript)
            await self._results.put(None)
        except Exception as error:
            await self._results.put(error)

    async def _transcripts(self) -> AsyncGenerator[Transcript, None]:
        for engine in self._run.candidates():
            with self._run.attempt(engine) as verdict:
                name = engine.info.name
                self._broken, self._until = None, None
                if self._over:
                    self._set_limit(self._deadline_s)
                self._given = 0
                async with AsyncExitStack() as stack:
                    stack.callback(self._leave, engine, verdict)
                    async with self._limited(name):
                        stream = await stack.enter_async_context(engine.stream(self._options))
                    self._adopt(stream)
                    transcripts = aiter(stream)
                    while True:
                        async with self._limited(name):
                            transcript = await anext(transcripts, None)
                        if transcript is None:
                            raise EngineError(f"{name}: no final transcript", code="bad_response", engine=name)
                        verdict.good()
                        self._kept = None
                        yield transcript
                        if transcript.final:
                            return
        raise self._run.failure()

    def _adopt(self, stream: TranscriptStream) -> None:
        """From now on audio goes to this engine, beginning with all there was."""
        self._current = stream
        self._give(stream, self._kept or [])
        if self._over and self._current is not None:
            stream.finish()

    def _leave(self, engine: SpeechToText, verdict: _Verdict) -> None:
        self._current = None
        if verdict.given:
            self._spent(engine, self._options.session, Amount(audio_seconds=self._given / RATE_IN), False)

    def _give(self, stream: TranscriptStream, parts: Sequence[Pcm]) -> None:
        try:
            for pcm in parts:
                stream.push(pcm)
                self._given += len(pcm)
        except EngineError as error:
            # The task that waits for this engine's transcript is to know; the caller only if all fail.
            self._broken, self._current = error, None
            self._set_limit(0.0)

    def _set_limit(self, seconds: float) -> None:
        self._until = asyncio.get_running_loop().time() + seconds
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._until)

    @asynccontextmanager
    async def _limited(self, engine: str) -> AsyncIterator[None]:
        """Waits for the engine no longer than it may take, nor when it refused audio."""
        try:
            async with asyncio.timeout_at(self._until) as self._limit:
                yield
        except TimeoutError:
            if self._broken is not None:
                raise self._broken from None
            text = f"{engine}: no transcript within {self._deadline_s:g} s"
            raise EngineError(text, code="timeout", engine=engine) from None
        finally:
            self._limit = None
