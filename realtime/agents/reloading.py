"""`realtime serve bot.py --reload`: takes up a changed file. Calls under way keep what they began with."""

from __future__ import annotations

import asyncio
import logging

from realtime.adapters.catalogue import Catalogue
from realtime.agents.house import Agents
from realtime.agents.loading import Bot, BotError, load

log = logging.getLogger("realtime.agents")

LOOK_S = 0.5
"""Seconds between looks at the files."""


async def reload(bot: Bot, agents: Agents, catalogue: Catalogue) -> None:
    """For ever. A version that cannot be used is logged with its line, and the one before it stays."""
    while True:
        await asyncio.sleep(LOOK_S)
        if not bot.changed:
            continue
        seen = bot.seen()
        try:
            # In a thread, because importing what the file imports may take seconds.
            bot = await asyncio.to_thread(load, bot.spec)
            agents.adopt(bot.agents)
            await catalogue.start_added()
        except Exception as error:
            # The file is the developer's, and so may be what it raises; the server goes on with the one before.
            log.error(
                "%s is not taken up: %s", bot.spec, error, exc_info=None if isinstance(error, BotError) else error
            )
            bot = seen
        else:
            log.info("%s is taken up: %s", bot.spec, ", ".join(agent.name for agent in bot.agents))
