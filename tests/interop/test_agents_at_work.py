"""What an agent does beside answering, in real calls of every kind: it pauses its recording, is chosen, asks who

calls, notices silence, writes down the end, and tells results that come late. On the embedded engines and on aimock.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets
from streamdouble.scenario import Step, Wait

from realtime.client import connect
from realtime.client.talk import read_audio
from tests.calls import phone
from tests.calls.bot import SPOKEN, spoken
from tests.calls.caller import clip, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import API_KEY, Server, free_port
from tests.calls.test_webhooks import SECRET
from tests.interop.test_agents import AIMOCK, EMBEDDED, EXAMPLES, GREETED, calling, mocked, on_loopback
from tests.interop.test_aimock import mocking

__all__ = ["on_loopback"]

WEBRTC, WEBSOCKET, PHONE = "webrtc", "websocket", "phone"
KINDS = [WEBRTC, WEBSOCKET, PHONE]
WHO_CALLS = EXAMPLES / "who-calls"
SESSIONS = "/v1/ai/realtime/sessions"
FIXTURES = [
    calling("pause_recording", says="Pause"),
    calling("pause_recording", says="hello"),
    calling("resume_recording", says="Resume"),
    calling("compare_prices", to="Rome", says="Compare"),
    calling("book_hotel", town="Rome"),
    calling("compare_prices", to="Rome"),
    {"match": {"endpoint": "chat"}, "response": {"content": "There is one at seven."}},
]


@pytest.fixture(scope="module")
def aimock(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_bytes(orjson.dumps({"fixtures": FIXTURES}))
    with mocking(environment("vendors"), fixtures) as url:
        yield url


@pytest.fixture(scope="module", params=[EMBEDDED, AIMOCK])
def chat(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def serve(chat: str, aimock: str, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    def serve(*arguments: str, config: str = "", **environ: str) -> Server:
        if "[telephony" not in config:
            config += phone.CONFIG
        config += mocked(aimock) if chat == AIMOCK else ""
        environ |= {**phone.ENVIRON, "AIMOCK_KEY": "k"}
        return Server(tmp_path_factory.mktemp("work") / "server", *arguments, config=config, environ=environ)

    return serve


@pytest.fixture(scope="module")
def paused(serve: Serve) -> Iterator[Server]:
    with serve(config=(EXAMPLES / "agents/paused.toml").read_text()) as server:
        yield server


@pytest.fixture(scope="module")
def chosen(serve: Serve) -> Iterator[Server]:
    config = (EXAMPLES / "agents/chosen.toml").read_text() + 'socket_signature = "if-present"\n'
    with serve(config=config) as server:
        yield server


def copied(example: str, folder: Path, **other: str) -> str:
    """An example with other numbers, so that nobody has to wait for so long."""
    text = (EXAMPLES / example).read_text()
    for old, new in other.items():
        old = old.replace("_", " ")
        assert old in text
        text = text.replace(old, new)
    (folder / "bot.py").write_text(text)
    return str(folder / "bot.py")


@dataclass
class Talk:
    """A call that is not one of the telephone's."""

    session: str
    say: Callable[[str], Awaitable[Any]]
    send: Callable[[dict[str, Any]], Awaitable[Any]]
    hear: Callable[[], Awaitable[str]]
    speak: Callable[[], Awaitable[Any]]
    """HOW_ARE_YOU, aloud."""


@asynccontextmanager
async def talk(server: Server, kind: str) -> AsyncIterator[Talk]:
    if kind == WEBSOCKET:
        async with connect(server.url, api_key=API_KEY, transport="websocket") as call:
            session = (await call.wait_for("session.created"))["session"]["id"]

            async def heard() -> str:
                return str((await call.wait_for(SPOKEN))["transcript"])

            async def speak() -> None:
                call.send_audio(read_audio(HOW_ARE_YOU))

            yield Talk(session, call.say, call.send, heard, speak)
        return
    async with dial(server) as caller:

        async def say(text: str) -> None:
            caller.ask(text)

        async def send(event: dict[str, Any]) -> None:
            caller.send(event)

        yield Talk(
            caller.session_id, say, send, lambda: spoken(caller), lambda: caller.microphone.say(clip(HOW_ARE_YOU))
        )


async def ring(server: Server, *steps: Step) -> tuple[str, asyncio.Task[Any]]:
    """A telephone call under way: its session, and what becomes its report."""
    known = {call["session_id"] for call in await server.sessions()}
    ringing = asyncio.create_task(phone.ring(server, *steps))
    async with asyncio.timeout(15):
        while not (new := [one["session_id"] for one in await server.sessions() if one["session_id"] not in known]):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return new[0], ringing


async def until(check: Callable[[], Awaitable[object]], what: str, seconds: float = 20.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not await check():
        assert asyncio.get_running_loop().time() < end, f"{what} did not come about"
        await asyncio.sleep(0.05)


async def recording(server: Server, session: str, status: str) -> None:
    async def has() -> bool:
        return bool((await server.get(f"{SESSIONS}/{session}/recording"))["status"] == status)

    await until(has, status)


def ran(server: Server, session: str, tool: str) -> int:
    return sum(f"session={session} tool {tool} call=" in line for line in server.log().splitlines())


async def words(server: Server, session: str) -> str:
    return str((await server.get(f"{SESSIONS}/{session}/transcript"))["transcript"])


PAUSE, RESUME = {"type": "realtime.recording.pause"}, {"type": "realtime.recording.resume"}


@pytest.mark.parametrize("kind", [WEBRTC, WEBSOCKET])
async def test_the_recording_is_paused_and_resumed_by_the_model_and_by_the_page(paused: Server, kind: str) -> None:
    async with talk(paused, kind) as call:
        assert await call.hear() == "What would you like to pay?"
        await call.send(PAUSE)
        await recording(paused, call.session, "paused")
        await call.say("Resume recording, please.")
        await recording(paused, call.session, "recording")
        assert ran(paused, call.session, "resume_recording") == 1
    async with talk(paused, kind) as call:
        await call.hear()
        await call.say("Pause recording, please.")
        await recording(paused, call.session, "paused")
        assert ran(paused, call.session, "pause_recording") == 1
        await call.send(RESUME)
        await recording(paused, call.session, "recording")


async def test_on_the_telephone_the_recording_is_paused_by_the_model_and_by_a_sideband(
    paused: Server, chat: str
) -> None:
    session, ringing = await ring(paused, *GREETED, phone.saying(HOW_ARE_YOU), Wait(6.0))
    url = f"{paused.url.replace('http', 'ws')}/v1/realtime?call_id={session.replace('sess', 'rtc')}"
    async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {API_KEY}"}) as sideband:
        if chat == AIMOCK:
            await recording(paused, session, "paused")
            assert ran(paused, session, "pause_recording") == 1
        else:
            await sideband.send(orjson.dumps(PAUSE).decode())
            await recording(paused, session, "paused")
        await sideband.send(orjson.dumps(RESUME).decode())
        await recording(paused, session, "recording")
    assert (await ringing).result.violations == []


async def test_an_agent_is_chosen_by_token_key_model_or_dialled_number(chosen: Server) -> None:
    async with talk(chosen, WEBRTC) as call:
        assert await call.hear() == "Reception, good day."
    async with dial(chosen, agent="ada") as caller:
        assert await spoken(caller) == "Ada speaking."
        caller.ask("Good morning")
        assert await spoken(caller)
    arguments = ["keys", "create", "--agent", "ada", "--config", str(chosen.folder / "realtime.toml")]
    environ = {**os.environ, **phone.ENVIRON, "AIMOCK_KEY": "k", "REALTIME_DATA": str(chosen.folder / "data")}
    making = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "realtime.cli", *arguments, env=environ, stdout=asyncio.subprocess.PIPE
    )
    made, _ = await making.communicate()
    key = next(word for word in made.decode().split() if word.startswith("ifr_"))
    async with connect(chosen.url, api_key=key, transport="websocket") as call_:
        assert (await call_.wait_for(SPOKEN))["transcript"] == "Ada speaking."
    url = f"{chosen.url.replace('http', 'ws')}/v1/realtime?model=ada"
    async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {API_KEY}"}) as socket:
        async with asyncio.timeout(15):
            while (event := orjson.loads(await socket.recv()))["type"] != SPOKEN:
                """What comes before."""
        assert event["transcript"] == "Ada speaking."
    session, ringing = await ring(chosen, *GREETED, phone.saying(HOW_ARE_YOU), Wait(3.0))
    assert [one["agent"] for one in await chosen.sessions() if one["session_id"] == session] == ["ada"]
    assert (await ringing).result.violations == []
    assert "Ada speaking." in await words(chosen, session)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The example's: its port, and the file of what it prints."""
    port, told = free_port(), tmp_path / "told"
    command = [sys.executable, "-m", "uvicorn", "receiver:app", "--port", str(port), "--log-level", "warning"]
    environ = {**os.environ, "WEBHOOK_SECRET": SECRET}
    with told.open("w") as out, subprocess.Popen(command, cwd=WHO_CALLS, env=environ, stdout=out) as receiving:
        yield port, told
        receiving.terminate()


async def test_the_developers_server_says_who_answers_and_is_told_of_the_call(
    serve: Serve, receiver: tuple[int, Path]
) -> None:
    port, told = receiver
    config = (WHO_CALLS / "realtime.toml").read_text().replace(":9000/", f":{port}/")
    with serve(config=config, WEBHOOK_SECRET=SECRET) as server:
        sessions = []
        for kind in (WEBRTC, WEBSOCKET):
            async with talk(server, kind) as call:
                assert await call.hear() == "Good day, who is calling?"
                await call.say("Good morning")
                assert await call.hear()
                sessions.append((call.session, "default"))
        session, ringing = await ring(server, *GREETED, phone.saying(HOW_ARE_YOU), Wait(3.0))
        assert (await ringing).result.violations == []
        assert "Hello Ada." in await words(server, session)

        async def all_told() -> bool:
            return told.read_text().count("call.ended") == 3

        await until(all_told, "the end of each")
    lines = told.read_text().splitlines()
    for called, agent in (*sessions, (session, "known")):
        heard = [line.split() for line in lines if called in line]
        assert [kind for kind, *_ in heard] == ["call.incoming", "call.started", "call.ended"]
        assert [of for _, _, of, *_ in heard] == ["default", agent, agent]


@pytest.fixture(scope="module")
def hooked(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    changed = {"seconds=8": "seconds=2", "< 16": "< 4"}
    with serve(copied("agents/hooks.py", tmp_path_factory.mktemp("hooks"), **changed)) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
async def test_silence_is_noticed_and_the_end_is_written_down(hooked: Server, kind: str) -> None:
    if kind == PHONE:
        session, ringing = await ring(hooked, *GREETED, Wait(12.0))
        await ringing
    else:
        async with talk(hooked, kind) as call:
            session = call.session
            assert await call.hear() == "Hello stranger."
            assert await call.hear() == "Are you still there?"
            await hooked.until_calls(0, 15)
    assert "Are you still there?" in await words(hooked, session)

    async def written() -> bool:
        return "stranger: agent_hangup, 2 lines" in hooked.log().partition(session)[2]

    await until(written, "the end")


@pytest.fixture(scope="module")
def late(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(copied("agents/long_tools.py", tmp_path_factory.mktemp("late"), **{"sleep(30)": "sleep(2)"})) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
async def test_a_tool_answers_later(late: Server, chat: str, kind: str) -> None:
    async def booked() -> bool:
        return "is booked." in await words(late, session)

    if kind == PHONE:
        session, ringing = await ring(late, phone.saying(HOW_ARE_YOU), Wait(10.0))
        if chat == AIMOCK:
            await until(booked, "the result")
            assert ran(late, session, "book_hotel") == 1
        assert (await ringing).result.violations == []
        return
    async with talk(late, kind) as call:
        session = call.session
        await call.say("Book hotel in Rome.")
        assert await call.hear(), "it goes on talking"
        await until(booked, "the result")
        assert await call.hear(), "the result is told"
        assert ran(late, session, "book_hotel") == 1


@pytest.mark.parametrize("kind", [WEBRTC, WEBSOCKET])
async def test_a_tool_is_cancelled_by_who_goes_on_to_something_else(late: Server, kind: str) -> None:
    async with talk(late, kind) as call:
        await call.say("Compare prices to Rome.")
        assert await call.hear() == "One moment, please."
        await call.speak()
        await cancelled(late, call.session)
        assert await call.hear(), "it goes on talking"


async def test_a_tool_is_cancelled_by_who_goes_on_on_the_telephone(serve: Serve, chat: str, tmp_path: Path) -> None:
    if chat == EMBEDDED:
        pytest.skip("the demo calls a tool that is named, and nobody says one's name on the telephone")
    bot = tmp_path / "bot.py"
    bot.write_text((EXAMPLES / "agents/long_tools.py").read_text().replace("book_hotel", "book_room"))
    with serve(str(bot)) as server:
        session, ringing = await ring(server, phone.saying(HOW_ARE_YOU), *GREETED, phone.saying(HOW_ARE_YOU), Wait(4.0))
        await cancelled(server, session)
        assert (await ringing).result.violations == []


async def cancelled(server: Server, session: str) -> None:
    async def over() -> bool:
        return ran(server, session, "compare_prices") > 0

    await until(over, "the end of the tool")
    (told,) = [line for line in server.log().splitlines() if f"session={session} tool compare_prices call=" in line]
    assert told.endswith("cancelled")
