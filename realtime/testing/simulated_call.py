"""A call to one's own agent, in a test: a caller who says lines, and hears words, under a virtual clock.

    def test_a_table_is_booked():
        with SimulatedCall(agent, model=[calls("free_tables", day="Friday", people=2), "At seven."]) as call:
            assert call.hears() == "Hello, how many are you?"
            call.says("Two, on Friday.")
            assert call.hears() == "At seven."
            assert call.tools[0].result == '["19:00"]'

Everything between the caller's words and the bot's is the server's own: turn-taking, interruption, tools, hooks,
what is written down as heard. Only sound and vendors are simulated (`parts`). A minute of a call takes a fraction of a
second, and the same every time. For plain test functions: inside a running event loop there is no room for another.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from media.vad import Vad
from realtime.adapters.base import ChatModel
from realtime.adapters.catalogue import Catalogue
from realtime.agents.agent import Agent
from realtime.agents.house import Agents
from realtime.agents.usercode import Inline
from realtime.live.policy import Policy
from realtime.live.sessions import Call, Sessions
from realtime.observe.metrics import Metrics
from realtime.observe.webhooks import Webhooks
from realtime.settings import Settings
from realtime.store.memory import MemoryStore
from realtime.testing.parts import Detectors, Ears, Line, Model, Pace, Script, Voice
from realtime.testing.virtual_time import VirtualLoop
from signaling.caller import Caller
from token_service.tokens import Claims, new_session_id

T = TypeVar("T")

PATIENCE_S = 60.0
"""Virtual seconds after which what is waited for does not come."""

_STEP_S = 0.02
_QUIET_S = 0.6
"""Silence after which the bot has said what it had to say."""


@dataclass
class ToolRun:
    """One call of a tool that runs on the server. Seconds since the call began; `result`: None while it runs."""

    id: str
    name: str
    arguments: dict[str, Any]
    began: float
    result: str | None = None
    ended: float | None = None


@dataclass
class _Heard:
    words: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    taken: int = 0


class InPlace(Inline):
    """The developer's code on the virtual loop; plain functions too, which real calls run in threads."""

    async def call(self, function: Callable[..., Any], *given: object, **named: object) -> Any:
        result = function(*given, **named)
        return await result if asyncio.iscoroutine(result) or isinstance(result, Awaitable) else result


class SimulatedCall:
    """A context manager; its methods let virtual time pass.

    `agents`: one, or several of which the first answers. `model`: what the chat model says, a list of answers
    (text, or `calls(...)`), a function of the `ChatRequest`, or a `ChatModel` of your own; the bot is silent
    without. `caller`: who calls, as far as a carrier says so. `settings`: as of a file, for what the agents leave open.
    """

    def __init__(
        self,
        agents: Agent | Sequence[Agent],
        *,
        model: Script | ChatModel = (),
        caller: Caller | None = None,
        variables: Mapping[str, str] | None = None,
        settings: Settings | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._agents = [agents] if isinstance(agents, Agent) else list(agents) if isinstance(agents, Sequence) else []
        if not self._agents or not all(isinstance(agent, Agent) for agent in self._agents):
            raise TypeError(f"a call is to an Agent, or to a list of them, not to {agents!r:.80}")
        if isinstance(model, str):
            raise TypeError(f"the model says a list of answers: model=[{model[:40]!r}]")
        self._caller = caller or Caller("phone", number="+15550100", dialled="+15550199")
        self._variables = dict(variables or {})
        self._settings = (settings or Settings()).model_copy(deep=True)
        self.pace = pace or Pace()
        self.model: Model | ChatModel = (
            Model(model, self.pace) if callable(model) or isinstance(model, Sequence) else model
        )
        self.events: list[dict[str, Any]] = []
        """Every event that a client would have got, as OpenAI has them; `at`: seconds since the call began."""
        self.tools: list[ToolRun] = []
        self._loop = VirtualLoop()
        self._began = self._loop.time()
        self._voice, self._ears, self._detectors = Voice(self.pace), Ears(self.pace), Detectors()
        self._line = Line(self._voice, self._on_word, self._on_text)
        self._heard = _Heard()
        self._stopped_at: float | None = None
        self._reply: float | None = None
        self._responding = 0
        self._call: Call | None = None
        self._sessions: Sessions | None = None
        self._entered = False

    # --- the call -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._entered = True
        self._loop.run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.run(self._end())
        finally:
            self._loop.close()

    async def _open(self) -> None:
        engines = {("instant", "stt"): self._ears, ("instant", "tts"): self._voice, ("instant", "chat"): self.model}
        built_in: Any = {key: lambda engine=engine: engine for key, engine in engines.items()}
        catalogue = Catalogue(self._settings, override="instant", built_in=built_in)
        store, metrics = MemoryStore(), Metrics()
        house = Agents(self._settings, catalogue, InPlace())
        house.adopt(self._agents)
        self._sessions = Sessions(
            self._settings,
            catalogue,
            Policy(self._settings, catalogue),
            cast(Vad, self._detectors),
            metrics,
            store,
            Webhooks(store, lambda agent: None),
            house,
        )
        await catalogue.start()
        await house.start()
        now = int(time.time())
        claims = Claims(new_session_id(), "simulated", "simulated", self._agents[0].name, now, now + 3600)
        caller = Caller(
            self._caller.kind,
            self._caller.number,
            self._caller.dialled,
            self._caller.carrier,
            {**self._caller.parameters, **self._variables},
        )
        self._call = await self._sessions.open(self._line, claims, {}, caller)
        self._line.open()

    async def _end(self) -> None:
        if self._sessions is not None:
            await self._line.close("remote_closed")
            await self._sessions.drain()
            await asyncio.sleep(1.0)  # hooks of the end

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._entered:
            work.close()
            raise RuntimeError("the call has not begun; write `with SimulatedCall(...) as call:`")
        return self._loop.run(work)

    # --- what the caller does -----------------------------------------------------------------

    def says(self, text: str) -> None:
        """Speak, over the bot if it speaks. Returns when the last word has been said."""
        self._run(self._say(text))

    async def _say(self, text: str) -> None:
        detector = self._detectors.made
        assert detector is not None
        self._ears.saying = text
        onset_ms, onset_at = self._line.media_ms, self._loop.time()
        seconds = max(0.2, len(text.split()) * self.pace.word)
        self._loop.call_later(self.pace.detect, self._unless_over, detector.started, onset_ms, onset_at)
        await asyncio.sleep(seconds)
        ended_ms, ended_at = self._line.media_ms, self._loop.time()
        self._stopped_at, self._reply = ended_at, None
        silence = detector.settings.silence_duration_ms / 1000
        self._loop.call_later(max(silence, self.pace.detect), self._unless_over, detector.stopped, ended_ms, ended_at)

    def _unless_over(self, call: Callable[..., None], *given: Any) -> None:
        if self._line.closed is None:
            call(*given)

    def presses(self, keys: str) -> None:
        """Keys of the telephone, one after the other."""
        self._run(self._press(keys))

    async def _press(self, keys: str) -> None:
        for key in keys:
            self._line.press(key)
            await asyncio.sleep(0.2)

    def waits(self, seconds: float) -> None:
        """Say nothing for so long."""
        self._run(asyncio.sleep(seconds))

    def hangs_up(self) -> None:
        self._run(self._line.close("remote_closed"))

    # --- what the caller hears ----------------------------------------------------------------

    def hears(self, *, words: int | None = None, within: float = PATIENCE_S) -> str:
        """What the bot says, from where the caller last listened, until it has fallen silent; with `words`, until so
        many were heard. AssertionError when nothing comes `within` seconds.
        """
        self._run(self._hear(words, within))
        heard = self._heard
        said = heard.words[heard.taken :] if words is None else heard.words[heard.taken : heard.taken + words]
        heard.taken += len(said)
        return " ".join(said)

    async def _hear(self, words: int | None, within: float) -> None:
        until = self._loop.time() + within
        while True:
            new = len(self._heard.words) - self._heard.taken
            if words is not None and new >= words:
                return
            if words is None and new and self._is_quiet:
                return
            if self._line.closed is not None:
                if words is None and new:
                    return
                raise AssertionError(f"the call is over ({self._line.closed}): {self._told()}")
            if self._loop.time() >= until:
                raise AssertionError(f"in {within:g} s the caller heard {new} words: {self._told()}")
            await asyncio.sleep(_STEP_S)

    @property
    def _is_quiet(self) -> bool:
        last = self._heard.times[-1] if self._heard.times else 0.0
        running = any(tool.result is None for tool in self.tools)
        return not (self._responding or running or self._line.sounds) and self.now - last > _QUIET_S

    def _told(self) -> str:
        lines = [f"{said['role']}: {said['text']}" for said in self.transcript]
        errors = [event["error"]["message"] for event in self.events if event["type"] == "error"]
        return " / ".join([*lines[-6:], *(f"error: {error}" for error in errors)]) or "nothing was said"

    # --- what came of it ----------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the call began."""
        return self._loop.time() - self._began

    @property
    def heard(self) -> str:
        """Everything the caller heard so far."""
        return " ".join(self._heard.words)

    @property
    def reply_seconds(self) -> float | None:
        """From the end of what the caller said last to the first sound of the answer; None when there was none yet."""
        return self._reply

    @property
    def transcript(self) -> list[dict[str, str]]:
        """What was said by whom, as the server keeps it: `role`, `text`, `item_id`."""
        return self._call.session.transcript() if self._call is not None else []

    @property
    def ended(self) -> str | None:
        """Why the call is over; None while it is not."""
        return self._line.closed

    @property
    def transferred(self) -> str | None:
        """Where the call was passed on to."""
        return self._line.transferred

    def _on_word(self, word: str) -> None:
        if self._stopped_at is not None and self._reply is None:
            self._reply = self._loop.time() - self._stopped_at - self.pace.word / 2
        self._heard.words.append(word)
        self._heard.times.append(self.now)

    def _on_text(self, text: str) -> None:
        event = json.loads(text)
        event["at"] = round(self.now, 3)
        self.events.append(event)
        item = event.get("item") or {}
        match event["type"]:
            case "response.created":
                self._responding += 1
            case "response.done":
                self._responding -= 1
            case "response.function_call_arguments.done":
                arguments = json.loads(event["arguments"])
                self.tools.append(ToolRun(event["call_id"], event["name"], arguments, event["at"]))
            case "conversation.item.added" if item.get("type") == "function_call_output":
                for tool in self.tools:
                    if tool.id == item["call_id"] and tool.result is None:
                        tool.result, tool.ended = item["output"], event["at"]
