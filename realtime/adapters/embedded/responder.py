"""The demo chat engine: rules instead of a model, so that calls work with the network unplugged.

It greets, tells the time, repeats, counts, jokes, tells stories, reflects what it heard, and calls a
tool when the words or the request ask for one. The same words get the same answer. It must never pass
itself off as a model: asked who it is it says so, and its `info` names it a demo.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineInfo,
    Message,
    TextDelta,
    Tool,
    ToolCallDelta,
    Usage,
)
from realtime.adapters.embedded import story, tools

_HEARD_AT_MOST: Final = 60
"""Words of the caller that are said back."""
_RESULT_AT_MOST: Final = 40
_READ_AT_MOST: Final = 4096
"""Characters of the caller's words that the rules look at: they must never hold up the event loop."""
_COUNT_AT_MOST: Final = 100
_NOTICE = re.compile(r"\[([\d.]+) seconds of speech; no recogniser is installed")
_COUNT = re.compile(r"\bcount (?:up |from one )?to ([a-z]+|\d+)\b")
_REPEAT = re.compile(
    r"(?:\b(?:repeat after me|please repeat|say after me)\b|^repeat\b)[\s:,]*(.+)", re.IGNORECASE | re.DOTALL
)

_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\b(who|what) are you\b|\byour name\b|\bare you (a |an )?(real|human|robot|person|machine|ai|bot)\b", "who"),
        (r"\bwhat can you do\b|\bhelp( me)?$|\bhow do(es)? (you|this) work\b", "help"),
        (r"\b(very |really )?long story\b|\blong tale\b", "long_story"),
        (r"\bstor(y|ies)\b", "short_story"),
        (r"\bjokes?\b|\bmake me laugh\b", "joke"),
        (r"\bwhat('s| is)? (the )?time\b|\b(tell|give) me the time\b|\btime is it\b", "time"),
        (r"\b(what|which) day\b|\bwhat('s| is)? (the |today's )?date\b|\bdate today\b", "date"),
        (r"\bcount\b", "count"),
        (r"\bthank(s| you)\b", "thanks"),
        (r"\b(good ?bye|bye|see you|good night|farewell)\b", "bye"),
        (r"^(hello|hi|hey|good (morning|afternoon|evening)|greetings)\b", "hello"),
        (r"\bhow are you\b", "how"),
    )
)

_REFLECTIONS: Final = {
    "i": "you", "me": "you", "my": "your", "mine": "yours", "am": "are", "myself": "yourself", "i'm": "you're",
    "you": "me", "your": "my", "yours": "mine", "yourself": "myself", "i've": "you've", "i'll": "you'll",
}  # fmt: skip
_ELIZA: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), answer)
    for pattern, answer in (
        (r"\bi (?:feel|am feeling) (.+)", "Why do you feel {}?"),
        (r"\bi(?:'m| am) (.+)", "How long have you been {}?"),
        (r"\bi (?:want|need|would like) (.+)", "What would it mean to you to have {}?"),
        (r"\bi (?:think|believe) (.+)", "What makes you think {}?"),
        (r"\bmy (.+)", "Tell me more about your {}."),
    )
)


def _local_time() -> datetime:
    return datetime.now().astimezone()


class Responder:
    """A `ChatModel`. `clock`: what time it tells. `words_per_second`: None streams as fast as it is read."""

    info = EngineInfo(
        name="embedded",
        kind="chat",
        vendor="embedded",
        model="demo",
        quality="demo: fixed rules, no language model",
    )

    def __init__(self, *, clock: Callable[[], datetime] = _local_time, words_per_second: float | None = None) -> None:
        self._clock = clock
        self._pause = 1.0 / words_per_second if words_per_second else 0.0

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ChatDelta]]:
        async with aclosing(self._deltas(request)) as deltas:
            yield deltas

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        read = sum(len(message.content.split()) for message in request.messages)
        said = _last_said(request)
        chosen: list[Tool] = []
        if not _results(request):
            chosen = tools.choose(request.tools, request.tool_choice, said)
        arguments = [tools.arguments(tool, said) for tool in chosen]
        for index, (tool, written) in enumerate(zip(chosen, arguments, strict=True)):
            yield ToolCallDelta(index, id=_call_id(request, tool.name), name=tool.name)
            await asyncio.sleep(self._pause)
            yield ToolCallDelta(index, arguments=written)
        if chosen:
            yield ChatEnd("tool_calls", Usage(read, sum(len(written.split()) for written in arguments)))
            return
        words = re.findall(r"\S+\s*", self.answer(request) if request.response_format is None else _json(request))
        limit = len(words) if request.max_tokens is None else max(request.max_tokens, 0)
        for word in words[:limit]:
            await asyncio.sleep(self._pause)
            yield TextDelta(word)
        written_words = min(len(words), limit)
        yield ChatEnd("length" if limit < len(words) else "stop", Usage(read, written_words))

    def answer(self, request: ChatRequest) -> str:
        """The whole answer in words."""
        if results := _results(request):
            return " ".join(_result(message, request) for message in results)
        said = _last_said(request).strip()
        if not said:
            return "Hello! I am a demo voice. Say something, or ask me for a story."
        notice = _NOTICE.match(said)
        if notice:
            return (
                f"I heard {notice.group(1)} seconds of speech, but no recogniser is installed here, so I do not know "
                "what you said. Install the local extra, or set a speech to text engine."
            )
        repeat = _REPEAT.search(said)
        if repeat:
            return repeat.group(1).strip()
        plain = re.sub(r"[^\w\s']", " ", said.lower().replace("’", "'"))
        plain = " ".join(plain.split())
        for pattern, name in _RULES:
            if pattern.search(plain):
                return self._by_rule(name, plain, request)
        return _reflect(said)

    def _by_rule(self, name: str, plain: str, request: ChatRequest) -> str:
        now = self._clock()
        turns = sum(message.role == "user" for message in request.messages)
        greeting = "I am well, thank you." if "how are you" in plain else "How can I help you?"
        answers = {
            "who": "I am a demo: a few fixed rules and no language model. Connect a model to talk about anything.",
            "help": "I can tell the time, count, joke, tell a story, repeat after you, and call a tool.",
            "long_story": story.LONG_STORY,
            "short_story": story.SHORT_STORY,
            "joke": story.JOKES[turns % len(story.JOKES)],
            "time": f"It is {now.hour % 12 or 12}:{now.minute:02d} {'AM' if now.hour < 12 else 'PM'}.",
            "date": f"Today is {now:%A}, {now:%B} {now.day}, {now.year}.",
            "count": _count(plain),
            "thanks": "You are welcome.",
            "bye": "Goodbye! It was nice talking to you.",
            "hello": f"Hello! {greeting}",
            "how": "I am well, thank you. How are you?",
        }
        return answers[name]


def _json(request: ChatRequest) -> str:
    """An answer in the wanted shape: the schema's fields filled from the caller's words, as for a tool."""
    form, said = request.response_format, _last_said(request)
    if form is None or form.schema is None:
        return json.dumps({"heard": " ".join(said.split()[:_HEARD_AT_MOST])})
    return tools.arguments(Tool("answer", parameters=form.schema), said)


def _last_said(request: ChatRequest) -> str:
    said = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
    return said[:_READ_AT_MOST]


def _call_id(request: ChatRequest, name: str) -> str:
    """Differs within a conversation, and is the same for the same conversation."""
    past = f"{request.session} {len(request.messages)} {_last_said(request)} {name}"
    return "call_" + hashlib.sha256(past.encode("utf-8", "replace")).hexdigest()[:20]


def _count(plain: str) -> str:
    match = _COUNT.search(plain)
    asked = match.group(1) if match else "ten"
    number = int(asked[:4]) if asked.isdecimal() else tools.NUMBER_WORDS.get(asked, 10)
    return ", ".join(str(value) for value in range(1, min(max(number, 1), _COUNT_AT_MOST) + 1)) + "."


def _reflect(said: str) -> str:
    words = said.split()
    heard = " ".join(words[:_HEARD_AT_MOST])
    for pattern, answer in _ELIZA:
        match = pattern.search(heard)
        if match:
            rest = match.group(1).rstrip(" .!?,;:")
            turned = [_REFLECTIONS.get(word.lower(), word) for word in rest.split()]
            return answer.format(" ".join(turned))
    return f"I heard: {heard}"


def _results(request: ChatRequest) -> list[Message]:
    """What tools have answered since the caller last spoke, the earliest first."""
    since = takewhile(lambda message: message.role != "user", reversed(request.messages))
    return [message for message in since if message.role == "tool"][::-1]


def _result(message: Message, request: ChatRequest) -> str:
    """A tool's result in words."""
    name = next(
        (
            call.name
            for past in reversed(request.messages)
            for call in past.tool_calls
            if call.id == message.tool_call_id
        ),
        "the tool",
    )
    told = _told(message.content).split()
    if not told:
        return f"{_spaced(name)} is done."
    more = " and so on" if len(told) > _RESULT_AT_MOST else ""
    return f"{_spaced(name)} says: {' '.join(told[:_RESULT_AT_MOST])}{more}".rstrip(".") + "."


def _spaced(name: str) -> str:
    words = re.sub(r"[_\W]+", " ", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)).strip().lower()
    return words[:1].upper() + words[1:]


def _told(content: str) -> str:
    try:
        return _in_words(json.loads(content[:20_000]), 0)
    except (ValueError, RecursionError):
        return content[:2000]


def _in_words(value: Any, depth: int) -> str:
    if depth > 3:
        return "more"
    if isinstance(value, dict):
        return ", ".join(f"{_spaced(str(key)).lower()} {_in_words(one, depth + 1)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_in_words(one, depth + 1) for one in value[:20])
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "yes", False: "no"}[value]
    return str(value)
