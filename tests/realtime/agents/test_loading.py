"""A developer's file is found, named where it is wrong, and found again when it has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from realtime.adapters.catalogue import Catalogue
from realtime.agents import Agent
from realtime.agents.house import Agents
from realtime.agents.loading import BotError, load, load_turn
from realtime.agents.usercode import Inline
from realtime.settings import Settings
from realtime.testing import SimulatedCall

BEGUN = "from realtime.agents import Agent\nagent = Agent()\n"
AGENT = "from realtime.agents import Agent\nfrom beside import WORD\nagent = Agent(WORD)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bot.py").write_text(AGENT)
    (tmp_path / "beside.py").write_text("WORD = 'one'\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    """A change that shows even on a clock of whole seconds."""
    path.write_text(text)
    at = path.stat().st_mtime_ns + 2_000_000_000
    os.utime(path, ns=(at, at))


def test_a_file_and_what_stands_beside_it_are_loaded_anew(folder: Path) -> None:
    bot = load("bot.py")
    assert {path.name for path in bot.files} == {"bot.py", "beside.py"}
    assert not bot.changed
    write(folder / "beside.py", "WORD = 'two'\n")
    assert bot.changed
    assert not bot.seen().changed
    assert load("bot.py").agents[0]._given["instructions"] == "two"
    assert bot.agents[0]._given["instructions"] == "one", "what was loaded before is as it was"


def test_a_file_beside_it_does_not_stand_for_a_package_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "bot.py").write_text(BEGUN)
    (tmp_path / "media.py").write_text("raise RuntimeError('not this one')\n")
    load(str(tmp_path / "bot.py"))
    imports = [sys.executable, "-c", "import media.audio"]
    subprocess.run(imports, check=True, cwd="/", env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_a_module_and_one_of_its_agents(folder: Path) -> None:
    assert [agent.name for agent in load("bot:agent").agents] == ["default"]
    assert [agent.name for agent in load("bot").agents] == ["default"]
    with pytest.raises(BotError, match="'WORD' is no Agent"):
        load("bot:WORD")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent = Agent(\n", r"bot\.py:1: "),
        ("import sys\nsys.exit('no')\n", r"SystemExit: no\n    at bot\.py:2"),
        (
            "def inner():\n    return 1 / 0\ninner()\n",
            r"ZeroDivisionError: division by zero\n    at bot\.py:2 in inner",
        ),
        ("import no_such_module\n", r"no_such_module"),
        ("x = 1\n", "makes no Agent"),
        ("from realtime.agents import Agent\nAgent(voice=7)\n", r"Agent\(voice=...\): Input .*\n    at bot\.py:2"),
        (BEGUN + "@agent.tool\nasync def look(day): ...\n", r"bot\.py:3 in look: parameter 'day' has no type"),
        (BEGUN + "@agent.tool\nasync def look():\n    yield 1\n", r"bot\.py:3 in look: a tool returns its result"),
        (BEGUN + "@agent.tool('look')\nasync def look(): ...\n", r"its options have names.*\n    at bot\.py:3"),
        (BEGUN + "@agent.tools\nasync def look(): ...\n", r"at bot\.py:3 in <module>: @agent.tools"),
        (BEGUN + "@agent.on_start\nasync def begin(call): ...\n", r"no `on_start`.*\n    at bot\.py:3"),
        (BEGUN + "@agent.turns\nasync def answer(turn): ...\n", r"did you mean `turn`\?\n    at bot\.py:3"),
        (BEGUN + "@agent.turn\nasync def answer(): ...\n", r"bot\.py:3 in answer: .* write `answer\(turn\)`"),
        (BEGUN + "@agent.on_user_idle\nasync def idle(call, seconds): ...\n", r"on_user_idle\(seconds=8\)"),
        (BEGUN + "other = Agent()\n", r"bot\.py: `agent` and `other` are both called 'default'"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_its_line_and_leaves_nothing(
    folder: Path, text: str, message: str
) -> None:
    load("bot.py")
    before = sys.modules["beside"]
    write(folder / "bot.py", text)
    with pytest.raises(BotError, match=message):
        load("bot.py")
    assert sys.modules["beside"] is before


def test_what_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(BotError, match=r"there is no file other\.py"):
        load("other.py")
    with pytest.raises(BotError, match="no_such_module"):
        load("no_such_module:agent")


SHAPES = """
text = "hi"
class Answer: pass
class Answering:
    async def __call__(self, turn):
        yield "hi"
called = Answering()
async def answer(turn):
    yield "hi"
async def nothing():
    yield "hi"
def plain(turn):
    return "hi"
"""


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("no_module:answer", "there is no module no_module; put no_module.py into the folder"),
        ("beside.deeper:answer", "there is no module beside.deeper"),
        ("shapes:anwser", "shapes has no anwser; did you mean `answer`?"),
        ("shapes:text", "text is of type str; write `async def text(turn):`"),
        ("shapes:Answer", "Answer is a class; write `async def"),
        ("shapes:plain", "plain is a function of another shape; write `async def plain(turn):`"),
        ("shapes:nothing", "write `nothing(turn)`"),
        ("broken:answer", "No module named 'missing_elsewhere'"),
    ],
)
def test_a_function_of_the_settings_that_cannot_be_used_is_told_with_its_setting(
    folder: Path, spec: str, says: str
) -> None:
    (folder / "shapes.py").write_text(SHAPES)
    (folder / "broken.py").write_text("import missing_elsewhere\n")
    assert callable(load_turn("[agents.front] chat", "shapes:answer"))
    assert callable(load_turn("[agents.front] chat", "shapes:called"))
    with pytest.raises(BotError) as refused:
        load_turn("[agents.front] chat", spec)
    assert str(refused.value).startswith(f'[agents.front] chat = "python:{spec}": ')
    assert says in str(refused.value)


def test_a_function_of_the_settings_answers_the_turns(folder: Path) -> None:
    (folder / "own_answers.py").write_text("async def answer(turn):\n    yield f'You said {turn.text}'\n")
    settings = Settings.model_validate({"agents": {"own": {"chat": ["python:own_answers:answer"]}}})
    with SimulatedCall(Agent(name="own"), settings=settings) as call:
        call.says("Hello there.")
        assert call.hears() == "You said Hello there."


def test_two_agents_of_one_name_are_a_mistake_and_change_nothing() -> None:
    settings = Settings.model_validate({"agents": {"filed": {"instructions": "filed"}}})
    agents = Agents(settings, Catalogue(settings), Inline())
    agents.adopt([Agent("one"), Agent("two", name="other")])
    with pytest.raises(BotError, match="two agents called 'same'"):
        agents.adopt([Agent(name="same"), Agent(name="same")])
    assert {"default", "other", "filed"} == set(settings.agents)
    agents.adopt([Agent("three", name="filed")])
    assert settings.agents["filed"].instructions == "three"
    assert "other" not in settings.agents, "gone with its version"
    agents.adopt([Agent("four", name="alone")])
    assert settings.agents["default"].instructions == "four", "the only one there is answers every call"
    assert settings.agents["filed"].instructions == "filed", "as the file has it"
