"""`realtime talk --text`: a conversation without sound, typed line by line. Shows the tools that run, too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TextIO

from realtime.client.errors import CallEnded
from realtime.client.live import LiveCall, connect

ANSWER_S = 60.0
"""An answer that has not come by then will not come."""

SETTLE_S = 0.5
"""Nothing more for this long after an answer: the next line is sent."""


async def talk_typed(
    lines: TextIO,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    agent: str | None = None,
    show: Callable[[str], None] = print,
) -> int:
    """Each of `lines` is a turn; after the last one hangs up. 0 when the bot answered, 1 when it did not.

    Raises `ConnectError`, `ApiError`.
    """
    session = {"output_modalities": ["text"], "include": ["realtime.call.ending"]}
    async with connect(base_url, api_key=api_key, agent=agent, session=session, transport="websocket") as call:
        watch = _Watch(show)
        following = asyncio.create_task(watch.follow(call))
        ended = asyncio.create_task(call.ended())
        try:
            await watch.settled()
            async for line in _read(lines, ended):
                if text := line.strip():
                    watch.asked()
                    await call.say(text)
                    await watch.settled()
        except CallEnded:
            pass
        finally:
            following.cancel()
            ended.cancel()
            await asyncio.gather(following, ended, return_exceptions=True)
        if call.closed is not None:
            show(f"the call ended: {watch.reason or call.closed}")
    return 0 if watch.answered else 1


async def _read(lines: TextIO, ended: asyncio.Task[str]) -> AsyncIterator[str]:
    """Lines as they are typed, in a thread that does not keep the program; ends with the call."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        with suppress(RuntimeError, ValueError):  # the loop, or the file, has been closed meanwhile
            for line in lines:
                loop.call_soon_threadsafe(typed.put_nowait, line)
            loop.call_soon_threadsafe(typed.put_nowait, "")

    threading.Thread(target=read, name="typed", daemon=True).start()
    while True:
        waiting = asyncio.ensure_future(typed.get())
        await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() or not (line := waiting.result()):
            waiting.cancel()
            return
        yield line


class _Watch:
    """Prints what is said and done, and knows whether anything is still to come."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._making: set[str] = set()
        self._tools: set[str] = set()
        self._asked = False
        self._news = asyncio.Event()
        self.answered = False
        self.reason: str | None = None
        """Why the server ends the call."""

    def asked(self) -> None:
        self._asked = True

    async def settled(self) -> None:
        """The bot has said everything, and no tool runs."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                while True:
                    self._news.clear()
                    try:
                        async with asyncio.timeout(SETTLE_S):
                            await self._news.wait()
                    except TimeoutError:
                        if not (self._asked or self._making or self._tools):
                            return

    async def follow(self, call: LiveCall) -> None:
        async for event in call.events():
            self._see(event)
            self._news.set()
        self._asked = False
        self._making.clear()
        self._tools.clear()

    def _see(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "response.created":
                self._asked = False
                self._making.add(event["response"]["id"])
            case "response.output_text.done":
                self._say(event["text"])
            case "response.output_audio_transcript.done":
                self._say(event["transcript"])
            case "response.done":
                self._making.discard(event["response"]["id"])
            case "conversation.item.done":
                self._item(event["item"])
            case "realtime.call.ending":
                self.reason = event["reason"]
            case "error":
                self._asked = False
                self._show(f"error: {event['error']['message']}")

    def _say(self, text: str) -> None:
        self.answered = True
        self._show(f"bot: {text.strip()}")

    def _item(self, item: dict[str, Any]) -> None:
        match item["type"]:
            case "function_call":
                self._tools.add(item["call_id"])
                self._show(f"     {item['name']}({item['arguments']})")
            case "function_call_output":
                self._tools.discard(item["call_id"])
                self._show(f"     -> {item['output']}")
