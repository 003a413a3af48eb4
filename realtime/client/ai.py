"""The one-shot methods: `from realtime.client import ai`, then `ai.chat("Hello")["content"]`.

    ai.chat(prompt, ...)             a dictionary; with stream=True also an iterable of chunks
    ai.embed.create(text, ...)       ai.image.generate(prompt, ...)      ai.vision(prompt=..., images=[...])
    ai.tts(input=...)                ai.asr(audio=...)                   ai.realtime.token(ttl_seconds=300)

The server and the key are those of `INFRAI_BASE_URL` and `INFRAI_API_KEY`, else the local ones; `AI` and
`AsyncAI` take them as arguments. Errors are `ApiError` and `ConnectError`. HTTP is loaded by the first call.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, cast

from realtime.client import calls
from realtime.client.calls import Post
from realtime.client.errors import ConnectError
from realtime.client.http import api_key_from, base_url_from
from realtime.client.results import AsyncChatStream, ChatStream, Result, problem

if TYPE_CHECKING:
    import httpx2

POLL_S = (0.2, 10.0)
"""Seconds between two looks at a batch job: the first, and the most."""
CONNECT_S = 10.0

P = ParamSpec("P")


class BatchJob(Result):
    """A batch job that is not done yet."""

    _ai: AI

    def wait(self, timeout: float | None = None) -> Result:
        """Its result; `TimeoutError` when it takes longer than `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = POLL_S[0]
        while True:
            found = self._ai.request("GET", f"/v1/ai/batches/{self['id']}")
            if found["status"] not in ("queued", "running"):
                return finished(found)
            if until is not None and time.monotonic() + pause > until:
                raise TimeoutError(f"the batch job {self['id']} is not done")
            time.sleep(pause)
            pause = min(POLL_S[1], 1.5 * pause)


def finished(job: Result) -> Result:
    if "result" in job:
        return cast(Result, job["result"])
    from realtime.client.errors import ApiError

    error = job.error or {"status": 409, "code": "batch_cancelled", "message": "the batch job was cancelled"}
    raise ApiError(int(error["status"]), str(error["code"]), str(error["message"]))


class Endpoint:
    """A method that has a second name: `ai.embed(...)` and `ai.embed.create(...)`."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        self._call = call
        setattr(self, name, call)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._call(*arguments, **named)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]: ...


class Realtime:
    """`token(model=None, voice=None, ttl_seconds=None)`: a token for a live call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.token = call


class AI:
    """A synchronous client. A context manager; leaving it closes its connections."""

    def __init__(self, *, api_key: str | None = None, base_url: str | None = None) -> None:
        self._api_key = api_key
        self._base_url = base_url
        self._client: httpx2.Client | None = None
        self.embed = Endpoint(self._method(calls.embed), "create")
        self.image = Endpoint(self._method(calls.image), "generate")
        self.realtime = Realtime(self._method(calls.token))
        self.vision = self._method(calls.vision)
        self.tts = self._method(calls.tts)
        self.asr = self._method(calls.asr)

    def chat(self, *arguments: Any, **named: Any) -> Any:
        """See `calls.chat` for the parameters. A `Result`; a `ChatStream` with `stream=True`; a `BatchJob`."""
        post = calls.chat(*arguments, **named)
        if post.body["stream"]:
            return self._stream(post)
        found = self.request("POST", post.path, post)
        if found.object == "batch_job":
            job = BatchJob(found)
            job.__dict__["_ai"] = self
            return job
        return found

    def request(self, method: str, path: str, post: Post | None = None) -> Result:
        """One request; its answer as a dictionary."""
        import httpx2

        try:
            response = self._ready().request(
                method,
                path,
                json=post.body if post else None,
                headers=self._headers(),
                timeout=httpx2.Timeout(post.seconds if post else 30.0, connect=CONNECT_S),
            )
        except httpx2.HTTPError as error:
            raise unreachable(self._url(), error) from error
        if not response.is_success:
            raise problem(response.status_code, response.text, response.headers.get("x-request-id"))
        return Result(response.json())

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> AI:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _method(self, build: Callable[P, Post]) -> Callable[P, Result]:
        @functools.wraps(build)
        def method(*arguments: P.args, **named: P.kwargs) -> Result:
            post = build(*arguments, **named)
            return self.request("POST", post.path, post)

        return method

    def _stream(self, post: Post) -> ChatStream:
        import httpx2

        client = self._ready()
        request = client.build_request(
            "POST",
            post.path,
            json=post.body,
            headers=self._headers(),
            timeout=httpx2.Timeout(post.seconds, connect=CONNECT_S),
        )
        try:
            response = client.send(request, stream=True)
            if not response.is_success:
                response.read()
                raise problem(response.status_code, response.text, response.headers.get("x-request-id"))
        except httpx2.HTTPError as error:
            raise unreachable(self._url(), error) from error
        return ChatStream(response.iter_lines(), response.close)

    def _ready(self) -> httpx2.Client:
        if self._client is None:
            import httpx2

            self._client = httpx2.Client(base_url=self._url())
        return self._client

    def _url(self) -> str:
        return base_url_from(self._base_url)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {api_key_from(self._api_key)}"}


class AsyncAI:
    """The same for asyncio: every method is awaited. An async context manager."""

    def __init__(self, *, api_key: str | None = None, base_url: str | None = None) -> None:
        self._api_key = api_key
        self._base_url = base_url
        self._client: httpx2.AsyncClient | None = None
        self.embed = Endpoint(self._method(calls.embed), "create")
        self.image = Endpoint(self._method(calls.image), "generate")
        self.realtime = Realtime(self._method(calls.token))
        self.vision = self._method(calls.vision)
        self.tts = self._method(calls.tts)
        self.asr = self._method(calls.asr)

    async def chat(self, *arguments: Any, **named: Any) -> Any:
        """A `Result`; an `AsyncChatStream` with `stream=True`; for a batch job its result once it is done."""
        post = calls.chat(*arguments, **named)
        if post.body["stream"]:
            return await self._stream(post)
        return await self.request("POST", post.path, post)

    async def wait(self, job: Result) -> Result:
        """The result of a batch job."""
        pause = POLL_S[0]
        while True:
            found = await self.request("GET", f"/v1/ai/batches/{job['id']}")
            if found["status"] not in ("queued", "running"):
                return finished(found)
            await asyncio.sleep(pause)
            pause = min(POLL_S[1], 1.5 * pause)

    async def request(self, method: str, path: str, post: Post | None = None) -> Result:
        import httpx2

        try:
            response = await self._ready().request(
                method,
                path,
                json=post.body if post else None,
                headers=self._headers(),
                timeout=httpx2.Timeout(post.seconds if post else 30.0, connect=CONNECT_S),
            )
        except httpx2.HTTPError as error:
            raise unreachable(self._url(), error) from error
        if not response.is_success:
            raise problem(response.status_code, response.text, response.headers.get("x-request-id"))
        return Result(response.json())

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def __aenter__(self) -> AsyncAI:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _method(self, build: Callable[P, Post]) -> Callable[P, Any]:
        @functools.wraps(build)
        async def method(*arguments: P.args, **named: P.kwargs) -> Result:
            post = build(*arguments, **named)
            return await self.request("POST", post.path, post)

        return method

    async def _stream(self, post: Post) -> AsyncChatStream:
        import httpx2

        client = self._ready()
        request = client.build_request(
            "POST",
            post.path,
            json=post.body,
            headers=self._headers(),
            timeout=httpx2.Timeout(post.seconds, connect=CONNECT_S),
        )
        try:
            response = await client.send(request, stream=True)
            if not response.is_success:
                await response.aread()
                raise problem(response.status_code, response.text, response.headers.get("x-request-id"))
        except httpx2.HTTPError as error:
            raise unreachable(self._url(), error) from error
        return AsyncChatStream(response.aiter_lines(), response.aclose)

    def _ready(self) -> httpx2.AsyncClient:
        if self._client is None:
            import httpx2

            self._client = httpx2.AsyncClient(base_url=self._url())
        return self._client

    def _url(self) -> str:
        return base_url_from(self._base_url)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {api_key_from(self._api_key)}"}


def unreachable(url: str, error: Exception) -> ConnectError:
    return ConnectError(f"{url} cannot be reached: {error or type(error).__name__}")


# --- the module itself as a client ---------------------------------------------------------------


class _Default(AI):
    """Looks at the environment anew when it has changed: tests and notebooks change it."""

    def _ready(self) -> httpx2.Client:
        if self._client is not None and self._client.base_url != self._url() + "/":
            self.close()
        return super()._ready()


_default = _Default()
chat = _default.chat
embed = _default.embed
image = _default.image
vision = _default.vision
tts = _default.tts
asr = _default.asr
realtime = _default.realtime
