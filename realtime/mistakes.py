"""Mistakes in the settings, as their author should read them: where, what, and what to write instead.

Turns pydantic's errors into plain sentences. Never shows a value that might be a secret: what was
found is described by its type only.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails, PydanticCustomError

from realtime.toml_lines import KeyPath

CUSTOM = "mistake"


@dataclass(frozen=True, slots=True)
class Mistake:
    """`line` counts from 1 and is None where no line of the file is to blame (environment, no file)."""

    line: int | None
    where: str
    message: str
    proposal: str | None = None


class SettingsError(Exception):
    """The settings cannot be used. Holds every mistake that was found, in the file's order."""

    def __init__(self, mistakes: list[Mistake], path: Path | None = None) -> None:
        super().__init__(mistakes, path)
        self.mistakes = mistakes
        self.path = path

    def __str__(self) -> str:
        rows = []
        for mistake in self.mistakes:
            place = f"{self.path}:{mistake.line}: " if mistake.line is not None else ""
            rows.append(f"{place}{mistake.where}: {mistake.message}")
            if mistake.proposal:
                rows.append(f"    {mistake.proposal}")
        return "\n".join(rows)


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake before its line is known."""

    path: KeyPath
    message: str
    proposal: str | None = None


def refuse(message: str, proposal: str | None = None) -> PydanticCustomError:
    """What a validator raises so that `message` and `proposal` arrive unchanged."""
    return PydanticCustomError(CUSTOM, "{message}", {"message": message, "proposal": proposal or ""})


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that `name` was most likely meant to be."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def suggest(name: str, known: Iterable[str], what: str = "known here") -> str:
    """`did you mean ...?` when something is near, else what there is."""
    names = sorted(known)
    close = nearest(name, names)
    if close is not None:
        return f"did you mean `{close}`?"
    return f"{what}: {', '.join(names)}" if names else f"{what}: none"


def spell(path: KeyPath) -> str:
    """`models[0].id`, as one would say it."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("_", "").replace("-", "").isalnum() and step.isascii()
            text += ("." if text else "") + (step if plain else f'"{step}"')
    return text or "settings"


def findings(errors: Iterable[ErrorDetails], model: type[BaseModel]) -> list[Finding]:
    """Pydantic's errors about `model`, in words."""
    return [_finding(error, model) for error in errors]


_TYPES: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}

_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def _finding(error: ErrorDetails, model: type[BaseModel]) -> Finding:
    kind = error["type"]
    path = tuple(step for step in error["loc"] if step != "[key]")
    context: Mapping[str, Any] = error.get("ctx") or {}
    if kind == "extra_forbidden":
        owner = _model_at(model, path[:-1])
        known = owner.model_fields if owner is not None else ()
        return Finding(path, "this key is not known", suggest(str(path[-1]), known))
    if kind == "missing":
        return Finding(path[:-1], f"`{path[-1]}` is missing", f'add {path[-1]} = "..."')
    if kind == CUSTOM:
        return Finding(path, context["message"], context["proposal"] or None)
    if kind in _TYPES:
        return Finding(path, f"expected {_TYPES[kind]}, found {_describe(error['input'])}")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return Finding(path, f"must be {words} {context[name]:g}")
    if kind == "literal_error":
        return Finding(path, f"expected {context['expected']}", _near_literal(error["input"], context["expected"]))
    return Finding(path, error["msg"][:1].lower() + error["msg"][1:])


def _near_literal(found: object, expected: str) -> str | None:
    """`expected` is pydantic's list, `'a', 'b' or 'c'`."""
    close = nearest(found, re.findall(r"'([^']*)'", expected)) if isinstance(found, str) else None
    return f"did you mean `{close}`?" if close else None


def _describe(value: object) -> str:
    for kind, words in (
        (bool, "true or false"),
        (str, "a string"),
        (int, "a whole number"),
        (float, "a number"),
        (list, "a list"),
        (dict, "a table"),
    ):
        if isinstance(value, kind):
            return words
    return f"a {type(value).__name__}"


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model whose fields a key at `path` would be, or None where keys are free."""
    current: Any = model
    for step in path:
        current = _plain(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(step))
            current = field.annotation if field is not None else None
        else:
            arguments = get_args(current)
            current = arguments[-1] if arguments else None
    current = _plain(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _plain(annotation: Any) -> Any:
    """`X` out of `Annotated[X, ...]` and `X | None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = next(arm for arm in get_args(annotation) if arm is not type(None))
        else:
            return annotation
