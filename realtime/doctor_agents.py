"""What `realtime doctor` looks at of the agents: engines and functions of one's own, voices, MCP servers.

Programs and classes that the settings name are started, looked at, and stopped again.
"""

from __future__ import annotations

import asyncio
import os
import shutil

from realtime.adapters.base import EngineError, TextToSpeech
from realtime.adapters.catalogue import OPENAI_VOICES, Catalogue, UnknownEngine
from realtime.adapters.custom.engines import Custom
from realtime.agents.loading import BotError, load_turn
from realtime.check import Check
from realtime.settings import Settings
from realtime.settings_tools import McpSettings


async def check_agents(settings: Settings) -> list[Check]:
    checks = await _check_engines_and_voices(settings)
    checks += _check_functions(settings)
    servers = [
        (f"agents.{name}.mcp.{server}", server, one)
        for name, agent in settings.agents.items()
        for server, one in agent.mcp.items()
    ]
    return checks + await asyncio.gather(*(_check_mcp(*server) for server in servers))


async def _check_engines_and_voices(settings: Settings) -> list[Check]:
    """Engines of the user's own are started, and voices looked for in what the engines then have."""
    try:
        catalogue = Catalogue(settings)
        engines = catalogue.custom()
    except (EngineError, UnknownEngine):
        return []  # told already
    checks = []
    for engine in engines:
        checks.append(await _check_custom(engine))
    for name, agent in settings.agents.items():
        if agent.voice is not None:
            first = catalogue.voice_engines(agent)[0]
            checks.append(_check_voice(f"agents.{name}.voice", agent.voice, first, catalogue, settings))
    return checks


async def _check_custom(engine: Custom) -> Check:
    title = f"engine {engine.info.name}"
    try:
        await engine.start()
        return Check(title, "ok", f"starts, as {engine.info.kind}")
    except EngineError as error:
        advice = "its module must be importable from the folder in which the server is started"
        return Check(title, "fail", str(error), advice)
    finally:
        await engine.close()


def _check_voice(title: str, name: str, engine: TextToSpeech, catalogue: Catalogue, settings: Settings) -> Check:
    """Whether the engine that is tried first has it. A call is never refused for its voice: it gets another one."""
    has = list(engine.voices)
    given = catalogue.voice(name, engine)
    setting = settings.voices.get(name)
    wanted = name if setting is None else setting.voice
    if given == wanted:
        known = "" if has else ", which takes any name: listen to it"
        return Check(title, "ok", f"{wanted} of {engine.info.name}{known}")
    if setting is None and name in OPENAI_VOICES:
        return Check(title, "ok", f"{name} stands for {given} of {engine.info.name}")
    shown = ", ".join(has[:20]) + (f" and {len(has) - 20} more" if len(has) > 20 else "")
    detail = f"{engine.info.name} has no voice {wanted}; callers will hear {given}"
    return Check(title, "warn", detail, f"it has: {shown}" if shown else f"[voices.{name}] is for another engine")


def _check_functions(settings: Settings) -> list[Check]:
    found = []
    for name, agent in settings.agents.items():
        if agent.turn_function is None:
            continue
        try:
            load_turn(f"[agents.{name}] chat", agent.turn_function)
            found.append(Check(f"agents.{name}.chat", "ok", agent.turn_function))
        except BotError as error:
            advice = "the server does not start with it"
            found.append(Check(f"agents.{name}.chat", "fail", str(error).partition("\n")[0], advice))
    return found


async def _check_mcp(title: str, name: str, settings: McpSettings) -> Check:
    if settings.command is not None and shutil.which(settings.command[0]) is None:
        detail = f"there is no program {settings.command[0]}"
        return Check(title, "fail", detail, f"install it, or give its whole path; PATH is {os.environ.get('PATH', '')}")
    try:
        from realtime.agents.mcp_tools import McpServer
    except ModuleNotFoundError as error:
        return Check(title, "fail", f"{error.name} is not installed", "pip install 'infrai-realtime[mcp]'")
    server = McpServer(name, settings)
    try:
        await server.start()
        if server.trouble is not None:
            what = f"`{' '.join(settings.command)}` does not speak MCP" if settings.command else f"{settings.url}"
            advice = "calls begin without its tools; run the command by hand and look at what it says"
            return Check(title, "fail", f"{what}: {server.trouble}", advice if settings.command else "is it running?")
        missing = sorted(set(settings.tools or ()) - set(server.tools))
        if missing:
            advice = f"it has: {', '.join(server.offered)}"
            return Check(title, "warn", f"it has no tool {', '.join(missing)}", advice)
        return Check(title, "ok", f"there, with: {', '.join(server.tools) or 'no tools'}")
    finally:
        await server.close()
