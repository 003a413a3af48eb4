"""A turn that the developer's own generator answers, as the chat model of a call.

`TurnModel` is a `ChatModel`, so that a conversation knows nothing of it: what the generator yields is
what a model would have said. The generator runs on the developer's loop, one piece at a time; leaving
the stream closes it, at its `yield` or at what it awaits.

    RUNNING --turn.chat() called tools--> WAITING --their results--> RUNNING … --> over

Tools that `turn.chat()` calls end the stream as a model's would; the generator waits inside
`turn.chat()` until the conversation asks again, with their results, and goes on. When it asks for
something else instead, the turn is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatModel,
    ChatRequest,
    EngineError,
    EngineInfo,
    Message,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from realtime.agents.blame import AT, of_function, where, where_waiting
from realtime.agents.call import AnyAgent, Call, Caller, Said
from realtime.agents.usercode import TookTooLong

log = logging.getLogger("realtime.agents")

CLOSING_S = 2.0
"""Seconds a generator may take to end when it is closed."""

MAX_TEXT = 100_000
"""Characters of one turn: hours of speech."""

SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "\n")

TurnFunction: TypeAlias = Callable[["Turn"], Any]
"""An async generator function, or an async function that returns the whole answer or None."""


MAX_INSERTED = 16
"""Sentences of `turn.say` that wait to be said."""


class TooMuchText(EngineError):
    """A turn goes on and on; `place` is the line."""

    def __init__(self, place: str) -> None:
        super().__init__(f"An answer of more than {MAX_TEXT} characters.", code="turn_too_long", retryable=False)
        self.place = place


class _Token(str):
    """A piece of a model's stream: a dot at its end need not end a sentence."""


class Turn:
    """What the caller has said, and what can be done about it.

    `text`: the caller's words, "" when something else asks for an answer (a tool's late result): it is in
    `note` then. `history`: what was said before and with it, as it was heard.
    """

    def __init__(self, run: _Run, request: ChatRequest, call: Call) -> None:
        self._run = run
        self._request = request
        self.session = call
        last = request.messages[-1] if request.messages else Message("user")
        self.text = last.content if last.role == "user" else ""
        self.note = last.content if last.role in ("system", "tool") and len(request.messages) > 1 else ""
        self.history = [
            Said("user" if message.role == "user" else "assistant", message.content)
            for message in request.messages
            if message.role in ("user", "assistant") and message.content
        ]

    @property
    def caller(self) -> Caller:
        return self.session.caller

    @property
    def variables(self) -> dict[str, Any]:
        return self.session.variables

    def say(self, text: str) -> None:
        """Have a sentence said now, before what is yielded next."""
        piece = TextDelta(text[: MAX_TEXT + 1] + " ", complete=True)
        self.session.user.post(lambda: self._run.insert(piece))

    def hang_up(self, *, at_once: bool = False) -> None:
        """End the call when this answer has been heard, or `at_once`."""
        self.session.hang_up(at_once=at_once)

    async def transfer(self, target: str) -> None:
        """Pass a telephone call on when this answer has been heard. Raises `CannotTransfer` when it is none."""
        await self.session.transfer_soon(target)

    def hand_over(self, agent: AnyAgent | str, summary: str | None = None) -> None:
        """`agent` answers from here on, and begins when this answer has been made."""
        self.session.hand_over(agent, summary)

    async def chat(
        self, *, instructions: str | None = None, text: str | None = None, tools: bool = True
    ) -> AsyncGenerator[str, None]:
        """The configured chat model's answer, as it comes.

        `instructions` instead of the agent's, `text` instead of what the caller said. `tools`: it may call
        the agent's and the client's tools; they are run before it goes on. Raises `EngineError`.
        """
        request = _changed(self._request, instructions, text, tools)
        while True:
            stream = await self.session.user.main(self._run.ask(request))
            try:
                while (piece := await self.session.user.main(stream.next())) is not None:
                    yield _Token(piece)
            finally:
                self.session.user.post(stream.close)
            if not stream.calls:
                return
            messages = await self.session.user.main(self._run.call_tools(stream))
            request = _changed(replace(request, messages=messages), instructions, text, tools)


def _changed(request: ChatRequest, instructions: str | None, text: str | None, tools: bool) -> ChatRequest:
    messages = list(request.messages)
    if instructions is not None:
        rest = messages[1:] if messages and messages[0].role == "system" else messages
        messages = [Message("system", instructions), *rest]
    if text is not None:
        last = max((place for place, one in enumerate(messages) if one.role == "user"), default=None)
        if last is None:
            messages.append(Message("user", text))
        else:
            messages[last] = replace(messages[last], content=text)
    return replace(request, messages=messages, tools=request.tools if tools else ())


class _ModelStream:
    """One question to the chat model, read by a task of the server's loop; `next` gives its text."""

    def __init__(self, engine: ChatModel, request: ChatRequest) -> None:
        self.calls: list[ToolCallDelta] = []
        self.ending = ChatEnd("stop")
        self._pieces: asyncio.Queue[str | Exception | None] = asyncio.Queue(64)
        self._task = asyncio.get_running_loop().create_task(self._read(engine, request), name="turn.chat")

    async def _read(self, engine: ChatModel, request: ChatRequest) -> None:
        try:
            async with engine.stream(request) as deltas:
                async for delta in deltas:
                    match delta:
                        case TextDelta():
                            await self._pieces.put(delta.text)
                        case ToolCallDelta():
                            self.calls.append(delta)
                        case ChatEnd():
                            self.ending = delta
            await self._pieces.put(None)
        except Exception as error:
            await self._pieces.put(error)

    async def next(self) -> str | None:
        piece = await self._pieces.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self._task.cancel()


@dataclass(slots=True)
class _Failed:
    error: Exception


class _Run:
    """One turn's generator. Its methods run on the server's loop, but for `_drive` and what it calls."""

    def __init__(
        self, function: TurnFunction, engine: ChatModel, request: ChatRequest, call: Call, seconds: float
    ) -> None:
        self._function = function
        self._engine = engine
        self._call = call
        self._seconds = seconds
        self._out: asyncio.Queue[ChatDelta | _Failed] = asyncio.Queue()
        """Holds one piece of the generator, and what was inserted."""
        self._results: asyncio.Future[Sequence[Message]] | None = None
        self._streams: list[_ModelStream] = []
        self._made: Any = None
        self._characters = 0
        self._closed = False
        self._ended = False
        turn = Turn(self, request, call)
        self._task: asyncio.Task[None] | None
        self._task = asyncio.get_running_loop().create_task(self._serve(turn), name="turn")

    @property
    def waits_for_tools(self) -> bool:
        return self._results is not None and not self._results.done()

    async def _serve(self, turn: Turn) -> None:
        try:
            await self._call.user.run(self._drive(turn), None)
        except Exception as error:
            self._out.put_nowait(_Failed(error))
        else:
            self._out.put_nowait(ChatEnd("stop", _sum(stream.ending.usage for stream in self._streams)))
        finally:
            self._task = None  # when it was cancelled, it refers to this frame

    async def _drive(self, turn: Turn) -> None:
        """On the developer's loop."""
        try:
            self._made = self._function(turn)
            if inspect.isawaitable(self._made):
                whole = await self._made
                if whole is not None:
                    await self._give(whole)
            else:
                await self._follow(self._made)
        finally:
            self._ended = True

    async def _follow(self, pieces: AsyncGenerator[object, None]) -> None:
        before = ""
        try:
            async for piece in pieces:
                glue = " " if before.endswith(SENTENCE_ENDS) and isinstance(piece, str) and piece[:1].isalnum() else ""
                before = piece if isinstance(piece, str) and not isinstance(piece, _Token) else ""
                await self._give(piece, glue)
        finally:
            await pieces.aclose()

    async def _give(self, piece: object, glue: str = "") -> None:
        if not isinstance(piece, str):
            error = TypeError(f"a turn yields text, not {type(piece).__name__}")
            error.add_note(AT + (where_waiting(self._made) or of_function(self._function)))
            raise error
        if not piece:
            return
        whole = not isinstance(piece, _Token) and piece.rstrip(" ").endswith(SENTENCE_ENDS)
        await self._call.user.main(self._put(TextDelta(glue + piece[: MAX_TEXT + 1], complete=whole)))

    async def _put(self, delta: ChatDelta) -> None:
        if self._closed:
            raise asyncio.CancelledError  # it was told before, and yields on
        self._out.put_nowait(delta)
        await self._out.join()

    def insert(self, piece: TextDelta) -> None:
        if self._out.qsize() < MAX_INSERTED:
            self._out.put_nowait(piece)

    async def ask(self, request: ChatRequest) -> _ModelStream:
        stream = _ModelStream(self._engine, request)
        self._streams.append(stream)
        return stream

    async def call_tools(self, stream: _ModelStream) -> Sequence[Message]:
        """The conversation runs them; gives the messages with their results."""
        self._results = asyncio.get_running_loop().create_future()
        for delta in stream.calls:
            self._out.put_nowait(delta)
        self._out.put_nowait(ChatEnd("tool_calls", stream.ending.usage))
        return await self._results

    def go_on(self, request: ChatRequest) -> None:
        """The results are there."""
        if self._results is not None and not self._results.done():
            self._results.set_result(request.messages)

    async def deltas(self) -> AsyncGenerator[ChatDelta, None]:
        """Up to a `ChatEnd`. Raises what the generator raises, `TookTooLong` and `TooMuchText`."""
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    piece = await self._out.get()
            except TimeoutError:
                raise TookTooLong(self._seconds, self._place()) from None
            if isinstance(piece, _Failed):
                raise piece.error
            if isinstance(piece, TextDelta):
                self._characters += len(piece.text)
                if self._characters > MAX_TEXT:
                    raise TooMuchText(self._place())
            yield piece
            self._out.task_done()
            if isinstance(piece, ChatEnd):
                return

    def _place(self) -> str:
        """Where the developer's code stands."""
        return self._call.user.place() or where_waiting(self._made) or of_function(self._function)

    def close(self) -> None:
        """Nothing of it is wanted any more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        for stream in self._streams:
            stream.close()
        if not self._ended:
            asyncio.get_running_loop().call_later(CLOSING_S, self._check_ended)

    def _check_ended(self) -> None:
        if not self._ended:
            log.error("session=%s the turn does not end when it is closed: %s", self._call.id, self._place())


class TurnModel:
    """The `ChatModel` of one call whose turns `function` answers.

    `engine`: what `turn.chat()` asks. `seconds`: in which a turn has to yield something more; then, and when it
    raises or floods, `apology` is said.
    """

    def __init__(self, function: TurnFunction, engine: ChatModel, call: Call, *, apology: str, seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._engine = engine
        self._call = call
        self._apology = apology
        self._waiting: _Run | None = None
        self.info = EngineInfo(
            name=f"python:{getattr(function, '__name__', 'turn')}", kind="chat", vendor="python", model="python"
        )

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """The call is over: a turn that waits for tools ends."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.close()

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ChatDelta]]:
        run = self._run_for(request)
        try:
            async with contextlib.aclosing(self._safely(run)) as deltas:
                yield deltas
        finally:
            if run.waits_for_tools:
                self._waiting = run
            else:
                run.close()

    def _run_for(self, request: ChatRequest) -> _Run:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            if waiting.waits_for_tools and request.messages and request.messages[-1].role == "tool":
                waiting.go_on(request)
                return waiting
            waiting.close()
        return _Run(self._function, self._engine, request, self._call, self._seconds)

    async def _safely(self, run: _Run) -> AsyncGenerator[ChatDelta, None]:
        """The turn's text; an apology where it fails, because a caller cannot read the log."""
        try:
            async with contextlib.aclosing(run.deltas()) as deltas:
                async for delta in deltas:
                    yield delta
        except TooMuchText as error:
            # An end would have all of it spoken first; a failure leaves it at what was.
            log.error("session=%s the turn floods text at %s", self._call.id, error.place)
            self._call.say(self._apology)
            raise
        except Exception as error:
            place = error.place if isinstance(error, TookTooLong) else where(error)
            log.error("session=%s the turn failed at %s", self._call.id, place, exc_info=error)
            yield TextDelta(" " + self._apology, complete=True)
            yield ChatEnd("stop")


def _sum(usages: Iterable[Usage | None]) -> Usage | None:
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    return Usage(
        sum(usage.input_tokens for usage in known),
        sum(usage.output_tokens for usage in known),
        sum(usage.cached_tokens for usage in known),
    )
