"""All agents of the process: those of the settings, and the developer's own, by name.

`adopt` lays the developer's agents over those of the settings file. It may be called again while calls
are under way: new calls get the new agents, running ones keep theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from realtime.adapters.catalogue import Catalogue, Engines
from realtime.agents import builtin
from realtime.agents.agent import Agent
from realtime.agents.call import AnyAgent, Caller
from realtime.agents.calls import AgentCall, Behaviour
from realtime.agents.loading import BotError, load_turn
from realtime.agents.remote import RemoteTools
from realtime.agents.turn import TurnFunction
from realtime.agents.usercode import UserCode
from realtime.settings import AgentSettings, Settings

GRACE_S = 5.0
"""Seconds for what is under way when the server stops."""


class Agents:
    """Raises `BotError` for functions that the settings name and that cannot be loaded."""

    def __init__(self, settings: Settings, catalogue: Catalogue, user: UserCode) -> None:
        self.user = user
        self._settings = settings
        self._catalogue = catalogue
        self._of_file = dict(settings.agents)
        self._own: dict[str, Agent] = {}
        self._functions: dict[str, TurnFunction] = {}
        self._started = False
        self._working: set[asyncio.Task[None]] = set()
        self._remote = RemoteTools(settings.agents)
        self._builtin = {name: builtin.of_settings(agent) for name, agent in settings.agents.items()}
        for name, agent in settings.agents.items():
            if agent.turn_function is not None:
                self._functions[agent.turn_function] = load_turn(f"[agents.{name}] chat", agent.turn_function)

    async def start(self) -> None:
        """The developer's code may run, and MCP servers are connected to as far as they are there."""
        self._started = True
        self._start_user()
        await self._remote.start()

    def _start_user(self) -> None:
        """Only where there is code that runs there."""
        if self._started and (self._own or self._functions or any(self._builtin.values())):
            self.user.start()

    def adopt(self, agents: Sequence[Agent]) -> None:
        """These are the developer's agents from here on. Raises `BotError`; then nothing has changed."""
        own: dict[str, Agent] = {}
        for agent in agents:
            if agent.name in own:
                raise BotError(f"there are two agents called {agent.name!r}; give one another name=")
            own[agent.name] = agent
        if len(own) == 1 and "default" not in self._of_file:
            own["default"] = agents[0]  # the only one there is answers every call
        merged = {name: agent.settings(self._of_file.get(name, AgentSettings())) for name, agent in own.items()}
        for name in self._settings.agents.keys() - self._of_file.keys() - merged.keys():
            del self._settings.agents[name]
        self._own = own
        self._start_user()
        self._settings.agents.update({**self._of_file, **merged})

    def for_call(
        self, name: str, *, session_id: str, caller: Caller, variables: Mapping[str, Any], greeting: str | None
    ) -> AgentCall:
        """What answers a call that the agent called `name` gets. Raises `KeyError` when there is none.

        `greeting`: instead of the agent's.
        """
        return AgentCall(
            self.behaviour(name),
            self,
            session_id=session_id,
            caller=caller,
            variables=variables,
            greeting=greeting,
        )

    def behaviour(self, agent: AnyAgent | str) -> Behaviour:
        """Raises `KeyError` for a name that no agent has."""
        name = agent.name if isinstance(agent, AnyAgent) else agent
        settings = self._settings.agent(name)
        own = agent if isinstance(agent, Agent) else self._own.get(name)
        if isinstance(agent, Agent):
            settings = agent.settings(self._of_file.get(name, AgentSettings()))
        if settings is None:
            raise KeyError(f"there is no agent called {name!r}")
        answer = own.answer if own else None
        if answer is None and settings.turn_function is not None:
            answer = self._functions[settings.turn_function]
        tools = {**self._remote.of(name), **self._builtin.get(name, {}), **(own.tools if own else {})}
        return Behaviour(name, settings, tools, own, answer)

    def engines(self, settings: AgentSettings) -> Engines:
        return self._catalogue.engines(settings)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that may outlive its call; `close` waits for it a little."""
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def close(self) -> None:
        """Hooks and tools under way are finished, for a few seconds; then the developer's loop stops."""
        if self._working:
            await asyncio.wait(self._working, timeout=GRACE_S)
        await self._remote.close()
        self.user.close()
