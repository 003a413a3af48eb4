"""Every example of an agent in real calls: over WebRTC, the WebSocket and the telephone.

Each is started as its reader would start it, once on the embedded engines alone and once with a chat model
that nobody here wrote, aimock. Callers type in the page and speak on the telephone.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioice.ice
import pytest
from streamdouble.scenario import Dtmf, Step, Wait, WaitFor

from realtime.client import LiveCall, connect
from tests.calls import phone
from tests.calls.bot import SPOKEN, spoken
from tests.calls.caller import dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import API_KEY, ROOT, Server, free_port
from tests.interop.test_aimock import mocking
from tests.realtime.agents import mcp_server
from tests.realtime.agents.test_http_tools import Api

EXAMPLES = ROOT / "examples"
PATIENCE_S = 30.0
EMBEDDED, AIMOCK = "embedded", "aimock"
ANSWER_S = {EMBEDDED: 10.0, AIMOCK: 4.0, "": 4.0}
"""By the chat model: in which an answer on the telephone has begun, for which the caller listens at the least. The
embedded recogniser takes its time on a busy machine."""
DOOR = {"type": "function", "name": "open_door", "description": "", "parameters": {"type": "object", "properties": {}}}
CALLED = "response.function_call_arguments.done"
GREETED = WaitFor("audio"), WaitFor("quiet")


def calling(*names: str, says: str | None = None, **arguments: Any) -> dict[str, Any]:
    """A fixture: the tools are called when the first of them is there; `says`: words of the caller that it takes."""
    calls = [{"name": name, "arguments": json.dumps(arguments)} for name in names]
    match = {"toolName": names[0], "hasToolResult": False, **({"userMessage": says} if says else {})}
    return {"match": match, "response": {"toolCalls": calls}}


FIXTURES = [
    calling("open_door", "free_rooms", night="tonight"),
    calling("free_rooms", night="tonight"),
    calling("free_tables", day="friday", people=2),
    calling("connect_sales", wish="a boat"),
    calling("find_trains", to="Rome"),
    calling("hang_up", says="Goodbye"),
    calling("check_code", says="hello"),
    calling("take_card", says="hello"),
    {"match": {"endpoint": "chat"}, "response": {"content": "There is one at seven."}},
]
"""On the telephone the caller is understood to say hello."""


@dataclass(frozen=True)
class Example:
    """`asks`: typed by the caller of a page. `hears`: a pattern of all that is said then, by the chat model.

    `runs`: the tool that runs for it, once, and `rings`, on the telephone with aimock. `types`: keys pressed there.
    """

    path: str
    greeting: str | None
    asks: str
    hears: dict[str, str]
    runs: str | None = None
    rings: str | None = None
    types: str = ""
    client_tool: bool = False

    def __str__(self) -> str:
        return self.path

    @property
    def chats(self) -> list[str]:
        return list(self.hears)


TABLES = {EMBEDDED: "19:00", AIMOCK: "one at seven"}
ANYTHING = {EMBEDDED: r"\w", AIMOCK: "one at seven"}
BOOK = "Are there free tables on friday for 2 people?"
TOLD = [
    Example("agents/tables.py", "Hello, how many are you?", BOOK, TABLES, "free_tables", "free_tables"),
    Example("agents/own_turn.py", "Tell me how far to count.", "Up to 2", {EMBEDDED: r"1, 2, done\."}),
    Example("agents/chat_in_turn.py", "Good evening.", "A pool?", {EMBEDDED: r"see\. .*\w", AIMOCK: r"see\. .*seven"}),
    Example("agents/hooks.py", "Hello stranger.", "Good morning", ANYTHING),
    Example(
        "agents/hand_over.py",
        "Good day, what can I do for you?",
        "Connect sales, please.",
        {EMBEDDED: r"Sales here, hello! You would like .*\?", AIMOCK: r"You would like a boat\?"},
        "connect_sales",
        "connect_sales",
    ),
    Example(
        "agents/long_tools.py",
        None,
        "Find trains to Rome.",
        {EMBEDDED: r"One moment, please\. .*at nine and at ten", AIMOCK: r"One moment, please\. .*one at seven"},
        "find_trains",
        "find_trains",
    ),
    Example(
        "agents/telephone.py",
        "Your bank.",
        "Hang up now. Goodbye.",
        ANYTHING,
        "hang_up",
        "check_code",
        "4711",
    ),
    Example(
        "agents/recorded.py",
        "This call is recorded. What would you like to pay?",
        "Good morning",
        ANYTHING,
        None,
        "take_card",
        "4242424242424242",
    ),
    Example(
        "agents/both_tools.py",
        "Welcome to the guest house.",
        "Free rooms tonight, and open door.",
        {EMBEDDED: r"(?s)(?=.*blue)(?=.*door is open)", AIMOCK: "one at seven"},
        "free_rooms",
        "free_rooms",
        client_tool=True,
    ),
    Example("booking/bot.py", "Hello, Chez Ada. How many are you?", BOOK, TABLES, "free_tables", "free_tables"),
    Example("agents/without_python.toml", "Luigi's, good evening!", BOOK, TABLES, "free_tables", "free_tables"),
    Example("own-engines/realtime.toml", None, "When are you open?", {"": "from eight to six"}),
]


@dataclass
class Told:
    """An example that is being served."""

    example: Example
    chat: str
    server: Server
    api: int
    """The port on which the tools of its settings look for their server."""

    def runs(self, tool: str | None) -> int:
        """How often a tool has run so far."""
        return len(re.findall(rf" tool {tool} call=", self.server.log())) if tool else 0


def settings_of(example: Example, api: int, kitchen: Path) -> str:
    """An example's settings, with servers of its own in place of those that it names."""
    text = (EXAMPLES / example.path).read_text(encoding="utf-8")
    text = text.replace("https://api.example", f"http://127.0.0.1:{api}")
    command = json.dumps([sys.executable, str(mcp_server.__file__), "stdio"])
    away = r'url = "https://kitchen.example/mcp"\nheaders = .*\n'
    return re.sub(away, lambda _: f'command = {command}\nenvironment = {{ MCP_NOTES = "env:MCP_NOTES" }}\n', text)


@pytest.fixture(scope="module")
def aimock(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    with mocking(environment("vendors"), fixtures) as url:
        yield url


def mocked(aimock: str) -> str:
    """Settings: aimock is the chat model, and whoever speaks is understood to say hello."""
    return f"""
[vendors.aimock]
base_url = "{aimock}/v1"
key = "env:AIMOCK_KEY"

[live]
stt = "instant"
chat = "aimock/gpt-5"
"""


CASES = [(example, chat) for example in TOLD for chat in example.chats]


@pytest.fixture(scope="module", params=CASES, ids=[f"{example}-{chat or 'own'}" for example, chat in CASES])
def told(request: pytest.FixtureRequest, aimock: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    example, chat = request.param
    with serving(example, chat, aimock, tmp_path_factory.mktemp("agents")) as served:
        yield served


@contextmanager
def serving(example: Example, chat: str, aimock: str, folder: Path, **environ: str) -> Iterator[Told]:
    """`environ`: more of what its settings name."""
    api = free_port()
    config, arguments = phone.CONFIG, [str(EXAMPLES / example.path)]
    if example.path.endswith(".toml"):
        text = settings_of(example, api, folder)
        config, arguments = text if "[telephony" in text else text + config, []
    if chat == AIMOCK:
        config += mocked(aimock)
    environ |= {**phone.ENVIRON, "AIMOCK_KEY": "k", "TABLES_KEY": "t", "MCP_NOTES": str(folder / "notes")}
    environ["PYTHONPATH"] = str(EXAMPLES / "own-engines")
    with Server(folder / "server", *arguments, config=config, environ=environ) as server:
        yield Told(example, chat, server, api)


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture(autouse=True)
async def api(told: Told) -> Any:
    """What the tools of the settings ask."""
    served = Api()
    async with await asyncio.start_server(served.serve, "127.0.0.1", told.api):
        yield served


async def hold(told: Told, hear: Callable[[], Awaitable[str]], ask: Callable[[], Awaitable[None]]) -> None:
    """What a call is: the greeting, the question, and all that is said of it."""
    example = told.example
    before = told.runs(example.runs)
    said = ""
    async with asyncio.timeout(PATIENCE_S):
        while example.greeting is not None and said.strip() != example.greeting:
            said += " " + await hear()
        await ask()
        said = ""
        while re.search(example.hears[told.chat], said) is None:
            said += " " + await hear()
    if example.runs is not None:
        assert told.runs(example.runs) - before == 1


async def test_over_webrtc(told: Told) -> None:
    async with dial(told.server) as caller:

        async def ask() -> None:
            if told.example.client_tool:
                caller.send({"type": "session.update", "session": {"type": "realtime", "tools": [DOOR]}})
            caller.ask(told.example.asks)
            if told.example.client_tool:
                while (called := await caller.wait_for(CALLED))["name"] != "open_door":
                    pass
                await caller.wait_for("response.done")
                output = {"type": "function_call_output", "call_id": called["call_id"], "output": "The door is open."}
                caller.send({"type": "conversation.item.create", "item": output})
                caller.send({"type": "response.create"})

        await hold(told, lambda: spoken(caller), ask)


async def test_over_the_websocket(told: Told) -> None:
    async with connect(told.server.url, api_key=API_KEY, transport="websocket") as call:

        async def hear() -> str:
            return str((await call.wait_for(SPOKEN))["transcript"])

        async def ask() -> None:
            if told.example.client_tool:
                await call.send({"type": "session.update", "session": {"type": "realtime", "tools": [DOOR]}})
            await call.say(told.example.asks)
            if told.example.client_tool:
                await open_the_door(call)

        await hold(told, hear, ask)


async def open_the_door(call: LiveCall) -> None:
    while (called := await call.wait_for(CALLED))["name"] != "open_door":
        pass
    await call.wait_for("response.done")
    output = {"type": "function_call_output", "call_id": called["call_id"], "output": "The door is open."}
    await call.send({"type": "conversation.item.create", "item": output})
    await call.send({"type": "response.create"})


async def test_on_the_telephone(told: Told) -> None:
    example = told.example
    tool = example.rings if told.chat == AIMOCK else None
    before, log = told.runs(tool), len(told.server.log())
    greeted = GREETED if example.greeting is not None else ()
    answered = Wait(ANSWER_S[told.chat]), WaitFor("quiet")
    steps: list[Step] = [*greeted, phone.saying(HOW_ARE_YOU), *answered]
    if tool is not None and example.types:
        steps += [Dtmf(example.types), *answered]
    report = await phone.ring(told.server, *steps, quiet_period_s=2.0)
    assert report.result.violations == []
    assert len(phone.pcm_of(report)) > 8000, "a second was heard"
    if tool is not None:
        assert told.runs(tool) - before == 1
    turns = re.findall(r"turn [^\n]*session=[^\n]* status=(\w+)", told.server.log()[log:])
    assert turns.count("completed") > bool(greeted), turns
