"""Tools with side effects in real calls whose connections are killed, cut and hung up at random moments.

Whatever happens, a tool that began ran once, came to its end or was cancelled as it declares, and a request was made
once, though its server answered late, badly or not at all. Run by `make soak`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets

from tests.calls.bot import Bot
from tests.calls.caller import clip, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import API_KEY, free_port

pytestmark = pytest.mark.timeout(300)

BOT = Path(__file__).parents[1] / "calls" / "bots" / "effects.py"
CALLS, AT_ONCE, SEEDS = 80, 6, (1, 2)
PORT = free_port()
CONFIG = f"""
[[agents.effects.http_tools]]
name = "send_refund"
description = "Sends a refund."
parameters = {{ type = "object", properties = {{ number = {{ type = "integer" }} }}, required = ["number"] }}
url = "http://127.0.0.1:{PORT}/refunds/{{number}}"
timeout_seconds = 0.5
"""
ASKS = ("Charge card number {}", "Check card number {}", "Order goods number {}", "Send refund number {}")
Json = dict[str, Any]


class Refunds:
    """A server that answers well, late, never, with errors, with redirects, or hangs up in the middle."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: Counter[int] = Counter()
        self.keys: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked[int(head.split()[1].rpartition("/")[2])] += 1
            self.keys[head.lower().partition("idempotency-key: ")[2].split("\r\n")[0]] += 1
            how = self.random.choice(["well", "late", "never", "broken", "503", "307"])
            if how == "never":
                await reader.read()
            elif how == "late":
                await asyncio.sleep(0.7)
            status = {"503": "503 Busy\r\nretry-after: 0", "307": f"307 There\r\nlocation: {head.split()[1]}"}
            body = b"refunded" if how != "broken" else b""
            writer.write(f"HTTP/1.1 {status.get(how, '200 OK')}\r\ncontent-length: 8\r\n\r\n".encode() + body)
        writer.close()


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    with Bot(tmp_path, str(BOT), config=CONFIG, environ={"BOT_NOTES": str(tmp_path / "notes")}) as running:
        yield running


@contextlib.asynccontextmanager
async def socket(bot: Bot) -> AsyncIterator[websockets.ClientConnection]:
    url = f"{bot.url.replace('http', 'ws')}/v1/realtime?model=effects"
    async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {API_KEY}"}) as opened:
        yield opened


class Soak:
    def __init__(self, bot: Bot, seed: int) -> None:
        self.bot, self.random, self.numbers = bot, random.Random(seed), count(1)
        self.calls_seen: list[str] = []
        """Ids of calls that the model has made, as clients saw them: they are answered again, by anybody."""

    def events(self) -> Iterator[Json]:
        """What a client does next, and again: asks, cancels, answers for tools that are not its own, twice."""
        for _ in range(self.random.randint(1, 4)):
            text = self.random.choice(ASKS).format(next(self.numbers))
            content = [{"type": "input_text", "text": text}]
            yield {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}
            yield {"type": "response.create"}
            if self.calls_seen and self.random.random() < 0.5:
                call_id = self.random.choice(self.calls_seen)
                output = {"type": "function_call_output", "call_id": call_id, "output": "told by a client"}
                yield {"type": "conversation.item.create", "item": output}
                yield {"type": "conversation.item.create", "item": output}
            if self.random.random() < 0.3:
                yield {"type": "response.cancel"}

    async def over_the_websocket(self) -> None:
        async with socket(self.bot) as opened:
            for event in self.events():
                await opened.send(orjson.dumps(event).decode())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.random.uniform(0.0, 0.8)):
                        while True:
                            told = orjson.loads(await opened.recv())
                            if told["type"] == "response.function_call_arguments.done":
                                self.calls_seen.append(told["call_id"])
            if self.random.random() < 0.7:
                opened.transport.abort()

    async def over_webrtc(self) -> None:
        async with dial(self.bot, agent="effects") as caller:
            for event in self.events():
                caller.send(event)
                await asyncio.sleep(self.random.uniform(0.0, 0.8))
            if self.random.random() < 0.5:
                await caller.microphone.say(clip(HOW_ARE_YOU))
            if self.random.random() < 0.5:
                await self.bot.request("DELETE", f"/v1/ai/realtime/sessions/{caller.session_id}")

    async def run(self, calls: int) -> None:
        for _ in range(calls):
            call = self.over_the_websocket if self.random.random() < 0.7 else self.over_webrtc
            with contextlib.suppress(websockets.ConnectionClosed):
                await call()


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_begun_ran_once(bot: Bot, seed: int) -> None:
    refunds = Refunds(seed)
    async with await asyncio.start_server(refunds.serve, "127.0.0.1", PORT):
        await asyncio.gather(*(Soak(bot, 1000 * seed + one).run(CALLS // AT_ONCE) for one in range(AT_ONCE)))
        await bot.until_calls(0, 30)
        end = asyncio.get_running_loop().time() + 10
        while (found := Counter(note["what"] for note in bot.all_notes()))["begun"] != found["done"] + found[
            "cancelled"
        ]:
            assert asyncio.get_running_loop().time() < end, f"what began does not end: {found}"
            await asyncio.sleep(0.1)
    assert found["begun"] > CALLS / 4, "or nothing was tried"
    assert sum(refunds.asked.values()) > CALLS / 10
    runs = Counter((note["session"], note["number"]) for note in bot.all_notes() if note["what"] == "begun")
    assert set(runs.values()) == {1}, runs.most_common(3)
    assert set(refunds.keys.values()) == {1}, refunds.keys.most_common(3)
    print(found, sum(refunds.asked.values()), "requests")
