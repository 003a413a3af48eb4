"""An agent at work in one call: runs its hooks, tools and turns, and does what they ask for.

`AgentCall` is the session's `CallAgent` and the developer's `Host`: everything here runs on the
server's loop and only hands over to the developer's (`usercode`). What the developer's code does wrong
is logged with its line and costs this call one answer at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from media.leg import SendsKeys, Transfers
from realtime.adapters.base import ChatModel, ToolCall
from realtime.adapters.catalogue import Engines, UnknownEngine
from realtime.agents.agent import APOLOGY, TURN_S, Agent
from realtime.agents.blame import where
from realtime.agents.call import AnyAgent, Call, Caller, CannotSendKeys, CannotTransfer, Said
from realtime.agents.keys import Keys
from realtime.agents.tools import AgentTool, ToolResult, ToolRunner
from realtime.agents.turn import TurnFunction, TurnModel
from realtime.agents.usercode import TookTooLong, UserCode
from realtime.agents.variables import fill
from realtime.live import hooks
from realtime.live.agent import Filler, ServerTool
from realtime.live.config import SessionConfig
from realtime.live.effects import HandOver, HangUp, KeysPressed, SayText, ToolReturned, WhenQuiet
from realtime.live.session import Session
from realtime.live.wire import new_id
from realtime.settings import AgentSettings

log = logging.getLogger("realtime.agents")

START_S = 3.0
"""Seconds for `on_call_start`: nobody answers a call before it has ended."""

HOOK_S = 30.0
"""Seconds for every other hook."""

HOOKS_AT_ONCE = 32
"""Hooks of one call that run at once; keys pressed beyond that are dropped."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What answers under a name: settings, and what is beside them. `agent`: the developer's, if there is one."""

    name: str
    settings: AgentSettings
    tools: Mapping[str, AgentTool]
    agent: Agent | None = None
    answer: TurnFunction | None = None


class House(Protocol):
    """What a call needs of all the agents of the process."""

    @property
    def user(self) -> UserCode: ...

    def behaviour(self, agent: AnyAgent | str) -> Behaviour:
        """Raises `KeyError` for a name that no agent has."""

    def engines(self, settings: AgentSettings) -> Engines: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that may outlive its call; when the server stops, it waits for it a little."""


class AgentCall:
    """A `CallAgent`."""

    def __init__(
        self,
        behaviour: Behaviour,
        house: House,
        *,
        session_id: str,
        caller: Caller,
        variables: Mapping[str, Any],
        greeting: str | None = None,
        before: AgentCall | None = None,
    ) -> None:
        self._behaviour = behaviour
        self._house = house
        self._before = before
        """Who answered until the call was handed over to this one."""
        own = behaviour.agent.variables if behaviour.agent else {}
        # What the caller's side brings comes first: it must not stand for what the agent or the webhook say.
        known = {**hooks.known(caller), **behaviour.settings.variables, **own, **variables}
        self.call = Call(
            session_id,
            agent=behaviour.name,
            caller=caller,
            variables=known,
            instructions=behaviour.settings.instructions,
            greeting=behaviour.settings.greeting if greeting is None else greeting,
            voice=behaviour.settings.voice,
            user=house.user,
            host=self,
        )
        self._session: Session | None = None
        self._records = True
        """False: the recording was paused, perhaps before it had begun."""
        self._log_ids = f"session={session_id}"
        self._tools = ToolRunner(behaviour.tools, self.call, self._log_ids, house.spawn)
        self._model: TurnModel | None = None
        self._hooks: set[asyncio.Task[None]] = set()
        turns = behaviour.agent is not None and behaviour.agent.keys_as_turns
        self._keys = Keys(self._typed if turns else None)
        self._quiet: dict[str, asyncio.Future[None]] = {}

    # --- the session's side -------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._behaviour.name

    @property
    def tools(self) -> tuple[ServerTool, ...]:
        return tuple(tool.spec for tool in self._behaviour.tools.values())

    @property
    def filler(self) -> Filler | None:
        said = self.settings.filler
        return Filler(said, self.settings.filler_after_ms / 1000) if said else None

    @property
    def idle_seconds(self) -> float | None:
        return self._behaviour.agent.idle_seconds if self._behaviour.agent else None

    @property
    def settings(self) -> AgentSettings:
        return self._behaviour.settings

    @property
    def instructions(self) -> str:
        return fill(self.call.instructions, self.call.variables)

    @property
    def greeting(self) -> str | None:
        given = self.call.greeting
        return fill(given, self.call.variables) if given else None

    def dress(self, config: SessionConfig) -> None:
        """Put this agent's words, voice and tools into the call's configuration.

        What the token or the client has set for itself stays.
        """
        before = self._behaviour.settings
        config.server_tools = self.tools
        if config.instructions == before.instructions:
            config.data["instructions"] = self.instructions
        if self.call.voice is not None and self.call.voice != before.voice:
            config.data["audio"]["output"]["voice"] = self.call.voice

    async def start(self) -> None:
        """`on_call_start`, before the call is answered."""
        if self._behaviour.agent is not None and self._behaviour.agent.started is not None:
            await self._hook("on_call_start", self._behaviour.agent.started, START_S, self.call)

    def begin(self, session: Session) -> None:
        """The session that this answers; before it begins."""
        self._session = session
        if not self._records:
            self.record(False)

    def model(self, engine: ChatModel) -> ChatModel:
        if self._behaviour.answer is None:
            return engine
        own = self._behaviour.agent
        self._model = TurnModel(
            self._behaviour.answer,
            engine,
            self.call,
            apology=self._apology,
            seconds=own.turn_timeout if own else TURN_S,
        )
        return self._model

    def run_tool(self, call: ToolCall) -> None:
        self._tools.run(call, self._returned)

    def cancel_tool(self, call_id: str) -> None:
        self._tools.cancel(call_id)

    def key(self, key: str) -> None:
        if self._keys.press(key):
            return
        if self._behaviour.agent is not None and self._behaviour.agent.pressed is not None:
            self._hook_soon("on_key", self._behaviour.agent.pressed, self.call, key)

    def _typed(self, keys: str) -> None:
        if self._session is not None:
            self._session.tell(KeysPressed(keys))

    def quiet(self, token: str) -> None:
        waiting = self._quiet.pop(token, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def idle(self, seconds: float) -> None:
        if self._behaviour.agent is not None and self._behaviour.agent.idled is not None:
            self._hook_soon("on_user_idle", self._behaviour.agent.idled, self.call, seconds)

    def end(self, record: Mapping[str, Any]) -> None:
        """Of every agent that had part in the call: its tools go on as they declare, its hook is called."""
        if self._before is not None:
            self._before.end(record)
        self._tools.end()
        self._end_turn()
        self._keys.close()
        for waiting in self._quiet.values():
            waiting.cancel()
        if self._behaviour.agent is not None and self._behaviour.agent.ended is not None:
            self._hook_soon("on_call_end", self._behaviour.agent.ended, self.call, dict(record))
        self._house.spawn(self._let_go())

    async def _let_go(self) -> None:
        """Once hooks and tools are done nothing refers back any more, so that references alone free what ended."""
        if working := self._hooks | self._tools.tasks:
            await asyncio.wait(working)
        self._session = self._model = None
        del self.call, self._tools

    def _end_turn(self) -> None:
        if self._model is not None:
            self._soon(self._model.close())

    def _returned(self, call_id: str, result: ToolResult) -> None:
        if self._session is None:
            return
        if result.hand_over is not None:
            self._become(result.hand_over, None, call_id)
        self._session.tell(ToolReturned(call_id, result.text))

    @property
    def _apology(self) -> str:
        return self._behaviour.agent.apology if self._behaviour.agent else APOLOGY

    # --- hooks --------------------------------------------------------------------------------

    async def _hook(self, name: str, function: Callable[..., Any], seconds: float, *given: object) -> None:
        try:
            await self._house.user.run(self._house.user.call(function, *given), seconds)
        except TookTooLong as error:
            log.error("%s %s was given up: %s", self._log_ids, name, error)
        except Exception as error:
            log.error("%s %s failed at %s", self._log_ids, name, where(error), exc_info=error)

    def _hook_soon(self, name: str, function: Callable[..., Any], *given: object) -> None:
        if len(self._hooks) >= HOOKS_AT_ONCE:
            log.warning("%s %s is not called: %d hooks are running", self._log_ids, name, len(self._hooks))
            return
        self._soon(self._hook(name, function, HOOK_S, *given))

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._house.spawn(work)
        self._hooks.add(task)
        task.add_done_callback(self._hooks.discard)

    # --- what the developer's code asks for ---------------------------------------------------

    def say(self, text: str) -> None:
        if self._session is not None:
            self._session.tell(SayText(text))

    def hang_up(self, *, at_once: bool) -> None:
        if self._session is not None:
            self._session.tell(HangUp("agent_hangup", at_once))

    async def _when_quiet(self) -> None:
        """Nothing is being said any more; cancelled when the call ends before."""
        if self._session is None:
            return
        token = new_id("quiet")
        self._quiet[token] = waiting = asyncio.get_running_loop().create_future()
        self._session.tell(WhenQuiet(token))
        try:
            await waiting
        finally:
            self._quiet.pop(token, None)

    async def send_keys(self, keys: str, *, at_once: bool) -> None:
        leg = self._session.leg if self._session is not None else None
        if not isinstance(leg, SendsKeys):
            raise CannotSendKeys("no keys can be pressed on this call")
        if not at_once:
            await self._when_quiet()
        try:
            leg.send_keys(keys)
        except ValueError as error:
            raise CannotSendKeys(str(error)) from None

    async def collect_keys(self, count: int | None, until: str, seconds: float) -> str:
        return await self._keys.collect(count, until, seconds)

    def record(self, on: bool) -> None:
        self._records = on
        recording = self._session.recording if self._session is not None else None
        if recording is not None:
            recording.resume() if on else recording.pause()

    def _transferring(self) -> Transfers:
        leg = self._session.leg if self._session is not None else None
        if not isinstance(leg, Transfers) or not leg.abilities.transfer:
            raise CannotTransfer("this call is not held by a carrier that passes calls on")
        return leg

    async def transfer_soon(self, target: str) -> None:
        self._transferring()
        self._soon(self._transfer_or_apologise(target))

    async def _transfer_or_apologise(self, target: str) -> None:
        try:
            await self.transfer(target, at_once=False)
        except CannotTransfer:
            self.say(self._apology)

    async def transfer(self, target: str, *, at_once: bool) -> None:
        leg = self._transferring()
        if not at_once:
            await self._when_quiet()
        try:
            await leg.transfer(target)
        except Exception as error:
            log.warning("%s transfer failed: %s", self._log_ids, error)
            raise CannotTransfer(str(error)) from None

    def hand_over(self, agent: AnyAgent | str, summary: str | None, tool: str | None) -> None:
        self._become(agent, summary, tool)

    def _become(self, agent: AnyAgent | str, summary: str | None, tool: str | None) -> None:
        """The rest of the call is another agent's; tools that this one still runs come to their end."""
        session = self._session
        if session is None or session.agent is not self:
            return
        try:
            behaviour = self._house.behaviour(agent)
            engines = self._house.engines(behaviour.settings)
        except (KeyError, UnknownEngine) as error:
            log.error("%s cannot be handed over: %s", self._log_ids, error)
            return
        self._end_turn()
        heir = AgentCall(
            behaviour,
            self._house,
            session_id=self.call.id,
            caller=self.call.caller,
            variables=self.call.variables,
            before=self,
        )
        heir.begin(session)
        voice = behaviour.settings.voice or session.config.voice
        note = None if summary is None else f"The call so far: {summary}"
        log.info("%s handed over from %s to %s", self._log_ids, self.name, heir.name)
        event = HandOver(heir.name, heir.instructions, voice, heir.tools, note, heir.greeting, tool)
        session.hand_over(heir, engines, event)

    def said(self) -> list[Said]:
        if self._session is None:
            return []
        items = list(self._session.conversation.history)
        return [Said(item.role, item.text) for item in items if item.role in ("user", "assistant") and item.text]
