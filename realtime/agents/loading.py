"""Finds the developer's agents in a file or module, and finds them again when it has changed.

A new version is a new module object: what runs keeps the functions it has. Modules beside the file are
loaded anew with it; what is installed is not. Nothing is left behind by a version that fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from realtime.agents.agent import Agent
from realtime.agents.blame import where
from realtime.agents.functions import BadFunction, takes
from realtime.mistakes import suggest

_versions = itertools.count(1)


class BotError(Exception):
    """The developer's code cannot be used; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Bot:
    """`spec`: as it was named. `files`: what it was loaded from, with the time each was changed."""

    spec: str
    agents: tuple[Agent, ...]
    files: dict[Path, int]

    @property
    def changed(self) -> bool:
        return any(_changed_at(path) != at for path, at in self.files.items())

    def seen(self) -> Bot:
        """The same, with its files as they are now."""
        return replace(self, files={path: _changed_at(path) for path in self.files})


def load(spec: str) -> Bot:
    """`bot.py`, or `module:agent` (`module` alone means all its agents). Raises `BotError`."""
    path = Path(spec)
    if spec.endswith(".py"):
        if not path.is_file():
            raise BotError(f"there is no file {spec}")
        folder = path.resolve().parent
        with _fresh(folder):
            module = _run_file(path.resolve())
            return Bot(spec, _agents_of(module, None, spec), _files(folder, module))
    if path.is_file():
        raise BotError(f"{spec} is no Python file; write bot.py, or module:agent")
    name, _, attribute = spec.partition(":")
    folder = Path.cwd()
    with _fresh(folder):
        module = _import(name)
        return Bot(spec, _agents_of(module, attribute or None, spec), _files(folder, module))


def load_turn(setting: str, spec: str) -> Any:
    """The function that `setting` (such as `[agents.front] chat`) names as `python:module:function`.

    Raises `BotError`, which says in the setting's own words what is wrong and what to write.
    """
    module_name, _, name = spec.partition(":")
    what = f'{setting} = "python:{spec}"'
    folder = Path.cwd()
    _find_last(folder)
    importlib.invalidate_caches()
    if not _is_there(module_name):
        hint = f"put {module_name.replace('.', '/')}.py into the folder where the server is started ({folder})"
        raise BotError(f"{what}: there is no module {module_name}; {hint}, or install it")
    try:
        module = _import(module_name)
    except BotError as error:
        raise BotError(f"{what}: {error}") from error
    function: Any = module
    for part in name.split("."):
        if not hasattr(function, part):
            hint = suggest(name, _turns_of(module), f"what {module_name} has of this kind")
            raise BotError(f"{what}: {module_name} has no {name}; {hint}")
        function = getattr(function, part)
    if not _is_turn(function):
        kind = "a class" if isinstance(function, type) else f"of type {type(function).__name__}"
        if inspect.isroutine(function):
            kind = "a function of another shape"
        raise BotError(f"{what}: {name} is {kind}; write `async def {name}(turn):`, which yields text or returns it")
    try:
        takes(function, "turn")
    except BadFunction as error:
        raise BotError(f"{what}: {error}") from None
    return function


def _is_there(module_name: str) -> bool:
    """Whether something can be imported by this name; what is wrong with it comes to light then."""
    try:
        return importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError as error:
        return not (error.name and f"{module_name}.".startswith(f"{error.name}."))
    except Exception:
        return True  # a package around it that fails


def _is_turn(function: Any) -> bool:
    """An `async def`, or an object that is called like one."""
    if isinstance(function, type) or not callable(function):
        return False
    shapes = (function, function.__call__)
    return any(inspect.isasyncgenfunction(shape) or inspect.iscoroutinefunction(shape) for shape in shapes)


def _turns_of(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if not name.startswith("_") and _is_turn(value)]


def _agents_of(module: ModuleType, attribute: str | None, spec: str) -> tuple[Agent, ...]:
    if attribute is not None:
        found = getattr(module, attribute, None)
        if not isinstance(found, Agent):
            raise BotError(f"{spec}: {attribute!r} is no Agent")
        return (found,)
    agents = [value for value in vars(module).values() if isinstance(value, Agent)]
    unique = tuple({id(agent): agent for agent in agents}.values())
    names = {name: value.name for name, value in vars(module).items() if isinstance(value, Agent)}
    for one, other in itertools.combinations(unique, 2):
        if one.name == other.name:
            both = " and ".join(
                f"`{next(name for name in names if getattr(module, name) is it)}`" for it in (one, other)
            )
            raise BotError(f'{spec}: {both} are both called {one.name!r}; give one of them another: Agent(name="...")')
    if not unique:
        raise BotError(f'{spec} makes no Agent; write for example: agent = Agent(instructions="...")')
    return unique


def _run_file(path: Path) -> ModuleType:
    name = f"_bot_{next(_versions)}_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    with _explained(str(path)):
        found.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    with _explained(name):
        return importlib.import_module(name)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except SyntaxError as error:
        raise BotError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        reason = "".join(traceback.format_exception_only(error)).strip().rpartition("BadFunction: ")[2]
        at = where(error) if error.__traceback__ is not None else what
        frames = reversed(traceback.extract_tb(error.__traceback__))
        ends = ((frame, f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}") for frame in frames)
        line = next((frame.line for frame, end in ends if at.endswith(end)), None)
        raise BotError(f"{what} cannot be loaded: {reason}\n    at {at}" + (f": {line}" if line else "")) from error


def _find_last(folder: Path) -> None:
    """What lies beside the file can be imported; a `media.py` there must not stand for a package of the server's."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    """Modules of `folder` are loaded anew; after a failure they are what they were."""
    _find_last(folder)
    importlib.invalidate_caches()
    before = {name: module for name, module in sys.modules.items() if _is_in(module, folder)}
    for name in before:
        del sys.modules[name]
    try:
        yield
    except BaseException:
        for name in [name for name, module in sys.modules.items() if _is_in(module, folder)]:
            del sys.modules[name]
        sys.modules.update(before)
        raise


def _is_in(module: ModuleType, folder: Path) -> bool:
    """Beside the bot, but not this program itself nor what is installed in an environment that lies there."""
    file = getattr(module, "__file__", None)
    if not file or module.__name__.partition(".")[0] in _OURS or module.__name__ == "__main__":
        return False
    path = Path(file)
    return path.is_relative_to(folder) and "site-packages" not in path.parts


_OURS = {"realtime", "signaling", "media", "token_service", "tests", "conftest", "benchmarks"}


def _files(folder: Path, module: ModuleType) -> dict[Path, int]:
    modules = [module, *(one for one in list(sys.modules.values()) if _is_in(one, folder))]
    paths = {Path(one.__file__) for one in modules if one.__file__}
    return {path: _changed_at(path) for path in paths}


def _changed_at(path: Path) -> int:
    """Nanoseconds; 0 for a file that is gone, for instance while an editor replaces it."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
