"""Where in the developer's own code something happened: `bot.py:14 in free_tables`."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType, TracebackType

_OURS = Path(__file__).parents[1]
_FOREIGN = tuple(
    {str(_OURS) + os.sep, *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib"))}
)
"""This package, Python's own library, and what is installed: never the line that the developer looks for."""

AT = "at "
"""Begins a note on an error that says where a thread was."""


def where(error: BaseException) -> str:
    """The innermost line of the developer's code that `error` went through; of any code, where there is none."""
    for note in getattr(error, "__notes__", ()):
        if note.startswith(AT):
            return str(note.removeprefix(AT))
    places = list(_of_traceback(error.__traceback__))
    cause = error.__cause__ or error.__context__
    if not any(_own(code) for code, _ in places) and cause is not None:
        return where(cause)
    return _innermost(places) or type(error).__name__


def where_now(frame: FrameType | None) -> str | None:
    """The same for a thread that is at `frame`; None when no code of the developer's is running there."""
    places: list[tuple[CodeType, int]] = []
    while frame is not None:
        places.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return _innermost([place for place in reversed(places) if _own(place[0])])


def where_waiting(suspended: object) -> str | None:
    """The line at which a coroutine or generator is suspended; None when that is none of the developer's."""
    places: list[tuple[CodeType, int]] = []
    while suspended is not None:
        frame = _first(suspended, "cr_frame", "ag_frame", "gi_frame")
        if isinstance(frame, FrameType):
            places.append((frame.f_code, frame.f_lineno))
        suspended = _first(suspended, "cr_await", "ag_await", "gi_yieldfrom")
    return _innermost([place for place in places if _own(place[0])])


def _first(of: object, *names: str) -> object:
    return next((found for name in names if (found := getattr(of, name, None)) is not None), None)


def of_function(function: object) -> str:
    """Where a function stands."""
    code = getattr(function, "__code__", None)
    return _named(code, code.co_firstlineno) if isinstance(code, CodeType) else str(function)


def _of_traceback(traceback: TracebackType | None) -> Iterable[tuple[CodeType, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code, traceback.tb_lineno
        traceback = traceback.tb_next


def _innermost(places: list[tuple[CodeType, int]]) -> str | None:
    own = [place for place in places if _own(place[0])]
    chosen = own or places
    return _named(*chosen[-1]) if chosen else None


def _own(code: CodeType) -> bool:
    return not code.co_filename.startswith(("<", *_FOREIGN))


def _named(code: CodeType, line: int) -> str:
    return f"{_short(code.co_filename)}:{line} in {code.co_name}"


def _short(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file
