"""What the one-shot methods return: dictionaries that also read as attributes, and streams that are both.

`ChatStream` is a dictionary of the whole result and an iterable of chunks at once, because both are how
callers use `ai.chat(..., stream=True)`: reading a key waits for the end, iterating gives chunks as they
come, and both may be done again. `json.dumps` of one that was not read yet sees an empty dictionary; say
`dict(stream)` first.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from realtime.client.errors import ApiError


class Result(dict[str, Any]):
    """A dictionary whose keys are attributes too; what is missing reads None. `text` is `content`."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__({name: wrap(value) for name, value in fields.items()})
        if "content" in fields and "text" not in fields and "delta" not in fields and "metadata" in fields:
            self["text"] = fields["content"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


def wrap(value: Any) -> Any:
    if isinstance(value, dict):
        return Result(value)
    # Vectors are lists of many thousand numbers: only lists of objects need a look.
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [wrap(item) for item in value]
    return value


def problem(status: int, text: str, request_id: str | None) -> ApiError:
    """The error that an answer says."""
    try:
        error = json.loads(text)["error"]
        return ApiError(status, str(error["code"]), str(error["message"]), request_id)
    except (ValueError, KeyError, TypeError):
        return ApiError(status, "http_error", text[:200], request_id)


class Events:
    """Lines of a stream in, chunks out; the whole result at its end. Raises `ApiError` for an error event."""

    def __init__(self) -> None:
        self.done = False
        self.result: dict[str, Any] = {"content": None, "finish_reason": None}
        self._kind = ""
        self._text: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def line(self, line: str) -> Result | None:
        if line.startswith("event:"):
            self._kind = line[6:].strip()
        elif line.startswith("data:"):
            return self._data(line[5:].strip())
        elif not line:
            self._kind = ""
        return None

    def _data(self, data: str) -> Result | None:
        if self._kind == "error":
            raise problem(200, data, None)
        if data == "[DONE]":
            self.done = True
            return None
        chunk = Result(json.loads(data))
        delta = chunk["delta"]
        if delta.content:
            self._text.append(delta.content)
        for made in delta.tool_calls or ():
            self._call(made)
        if chunk.finish_reason is not None:
            self.result |= {name: value for name, value in chunk.items() if name not in ("delta", "index")}
        return chunk

    def _call(self, made: Result) -> None:
        call = self._calls.setdefault(made["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
        call["id"] = made.id or call.get("id")
        call["function"]["name"] = made["function"].name or call["function"]["name"]
        call["function"]["arguments"] += made["function"].arguments or ""

    def whole(self) -> Result:
        calls = [self._calls[index] for index in sorted(self._calls)]
        self.result["content"] = "".join(self._text) if self._text or not calls else None
        if calls:
            self.result["tool_calls"] = calls
        return Result(self.result)


class BrokenStream(ApiError):
    """The stream ended without its end mark."""

    def __init__(self) -> None:
        super().__init__(200, "stream_broken", "the answer stopped in the middle")


class ChatStream(dict[str, Any]):
    """Made by `ai.chat(..., stream=True)`. `close`, or leaving a `with` block, ends it at the vendor too."""

    def __init__(self, lines: Iterator[str], close: Any) -> None:
        super().__init__()
        self._lines = lines
        self._close = close
        self._events = Events()
        self._chunks: list[Result] = []
        self._ended = False
        self._failed: BaseException | None = None
        """Raised again: half an answer must not pass for a whole one the second time."""

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while True:
            while position < len(self._chunks):
                yield self._chunks[position]
                position += 1
            if not self._more():
                return

    def close(self) -> None:
        self._ended = True
        self._close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self) -> bool:
        """Reads up to the next chunk; whether there was one."""
        if self._failed is not None:
            raise self._failed
        if self._ended:
            return False
        try:
            for line in self._lines:
                chunk = self._events.line(line)
                if chunk is not None:
                    self._chunks.append(chunk)
                    return True
                if self._events.done:
                    break
            if not self._events.done:
                raise BrokenStream
        except BaseException as error:
            self._failed = error
            self.close()
            raise
        self.close()
        super().update(self._events.whole())
        return False

    def _whole(self) -> ChatStream:
        while self._more():
            pass
        return self

    def __getitem__(self, name: str) -> Any:
        self._whole()
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._whole()
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self._whole()
        return super().__contains__(name)

    def __len__(self) -> int:
        self._whole()
        return super().__len__()

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self.keys() == other.keys() and super().__eq__(other) if isinstance(other, dict) else False

    def keys(self) -> Any:
        self._whole()
        return super().keys()

    def values(self) -> Any:
        self._whole()
        return super().values()

    def items(self) -> Any:
        self._whole()
        return super().items()

    def __repr__(self) -> str:
        return super().__repr__() if self._ended else "<ChatStream under way>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


class AsyncChatStream:
    """An async iterable of chunks; `await stream.result()` for the whole. An async context manager."""

    def __init__(self, lines: AsyncIterator[str], close: Any) -> None:
        self._lines = lines
        self._close = close
        self._events = Events()
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[Result]:
        if self._ended:
            return
        try:
            async for line in self._lines:
                chunk = self._events.line(line)
                if chunk is not None:
                    yield chunk
                if self._events.done:
                    break
            if not self._events.done:
                raise BrokenStream
        finally:
            await self.close()

    async def result(self) -> Result:
        async for _ in self:
            pass
        return self._events.whole()

    async def close(self) -> None:
        self._ended = True
        await self._close()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
