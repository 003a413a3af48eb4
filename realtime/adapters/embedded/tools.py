"""When the demo responder calls a tool, and with what: by the words, the same words always the same way.

A tool is called when the caller names it, or enough of what its description is about. Required
parameters are filled from the words; what the words do not hold gets the plainest value of its type.
The schema is the client's and may be anything: nothing in it is trusted to be what it should be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from realtime.adapters.base import EngineError, Tool, ToolChoice

_PARAMETERS: Final = 32
_DEPTH: Final = 4
_EMPTY_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "a an and any are as at be by call can current do does fetch find for from function get give given has have i "
        "if in into is it its look me my of on or please return returns set show tell that the their them then this to "
        "tool use used user what when where which who with you your",
    )
)
_UP_TO_TWENTY: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS: Final = {word: value for value, word in enumerate(re.findall(r"\w+", _UP_TO_TWENTY))} | {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "hundred": 100,
}
_DAYS: Final = "today|tonight|tomorrow|yesterday|now|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_NOT_A_PLACE: Final = rf"\b(?:please|right now|and|but|{_DAYS})\b"
_ABOUT = re.compile(r"\b(?:in|at|for|near|about|of|to|from|called|named)\s+(?:the\s+)?(.+)", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”")
_DIGITS = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")


NAMED: Final = 10.0
"""The score of a tool of whose name every word was said."""


def choose(tools: Sequence[Tool], choice: ToolChoice, said: str) -> list[Tool]:
    """The tools to call now, beside each other: all that were named, else the one that fits best.

    Raises `EngineError` when one is asked for that was not given.
    """
    if choice == "none":
        return []
    if choice.startswith("tool:"):
        wanted = choice.removeprefix("tool:")
        for tool in tools:
            if tool.name == wanted:
                return [tool]
        raise EngineError(f"there is no tool {wanted!r:.80}", code="unknown_tool", engine="demo", retryable=False)
    scores = [_score(tool, said) for tool in tools]
    named = [tool for tool, score in zip(tools, scores, strict=True) if score >= NAMED]
    if named or not scores:
        return named
    best = max(scores)
    return [tools[scores.index(best)]] if best > 0 or choice == "required" else []


def arguments(tool: Tool, said: str) -> str:
    """JSON text of an object that fits the tool's schema as far as the words allow."""
    return json.dumps(_object(tool.parameters, said, 0), ensure_ascii=False)


def _words(text: str) -> list[str]:
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return [_stem(word) for word in re.findall(r"[^\W_]+", parted.lower())]


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word


def _content(text: str) -> set[str]:
    return {word for word in _words(text) if word not in _EMPTY_WORDS and len(word) > 1}


def _score(tool: Tool, said: str) -> float:
    """0: not meant. Naming a tool counts more than talking of what it does."""
    heard = set(_words(said))
    name = _content(tool.name) or set(_words(tool.name))
    named = len(name & heard)
    described = len((_content(tool.description[:2000]) - name) & heard)
    if name and named == len(name):
        return NAMED + named + described
    if (named and described) or described >= 2:
        return float(named + described)
    return 0.0


# --- filling a schema ---------------------------------------------------------------------------


def _object(schema: Any, said: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or depth > _DEPTH:
        return {}
    required = schema.get("required")
    needed = {name for name in required if isinstance(name, str)} if isinstance(required, list | tuple) else set()
    numbers = _numbers(said)
    filled: dict[str, Any] = {}
    for name, kind in list(properties.items())[:_PARAMETERS]:
        if not isinstance(name, str) or not isinstance(kind, Mapping):
            continue
        chosen = _listed(kind, said)
        if chosen is not None:
            filled[name] = chosen
        elif name in needed:
            filled[name] = _value(name, kind, said, numbers, depth)
    return filled


def _listed(kind: Mapping[str, Any], said: str) -> Any:
    """The value of an enumeration that the words hold."""
    heard = _plain(said)
    for value in _options(kind):
        if isinstance(value, str) and _plain(value).strip() and _plain(value) in heard:
            return value
    return None


def _plain(text: str) -> str:
    return " " + " ".join(re.findall(r"[^\W_]+", text.lower())) + " "


def _options(kind: Mapping[str, Any]) -> list[Any]:
    options = kind.get("enum")
    return list(options)[:_PARAMETERS] if isinstance(options, list | tuple) else []


def _value(name: str, kind: Mapping[str, Any], said: str, numbers: list[float], depth: int) -> Any:
    if _options(kind):
        return _options(kind)[0]
    type_ = kind.get("type")
    if isinstance(type_, list | tuple):
        type_ = next((one for one in type_ if one != "null"), None)
    if type_ in ("integer", "number"):
        number = numbers.pop(0) if numbers else 0.0
        return int(number) if type_ == "integer" or number.is_integer() else number
    if type_ == "boolean":
        return not re.search(r"\b(no|not|off|don't|never|without|disable)\b", said.lower())
    if type_ == "array":
        items = kind.get("items")
        return (
            [_value(name, items if isinstance(items, Mapping) else {}, said, numbers, depth + 1)] if depth < 4 else []
        )
    if type_ == "object":
        return _object(kind, said, depth + 1)
    return _phrase(name, said)


def _numbers(said: str) -> list[float]:
    found = [(match.start(), float(match.group())) for match in _DIGITS.finditer(said[:4000])]
    for match in re.finditer(r"[a-z]+", said[:4000].lower()):
        if match.group() in NUMBER_WORDS:
            found.append((match.start(), float(NUMBER_WORDS[match.group()])))
    return [value for _, value in sorted(found)]


def _phrase(name: str, said: str) -> str:
    """The part of the words that a parameter called `name` most likely means."""
    quoted = _QUOTED.search(said)
    if quoted:
        return quoted.group(1) or quoted.group(2)
    if _content(name) & {"date", "day", "when", "time"}:
        day = re.search(rf"\b(?:{_DAYS})\b", said.lower())
        if day:
            return day.group()
    own = re.search(rf"\b{re.escape(name.replace('_', ' '))}\s+(?:is|to)?\s*(\S.*)", said, re.IGNORECASE)
    about = own or _ABOUT.search(said)
    phrase = about.group(1) if about else said
    if about:
        phrase = re.split(_NOT_A_PLACE, phrase, maxsplit=1, flags=re.IGNORECASE)[0] or phrase
    return phrase.strip(" \t\n.,;:!?") or said.strip()
