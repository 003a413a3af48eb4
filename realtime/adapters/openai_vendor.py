"""One OpenAI-compatible address: its client, its answers as bytes, its failures as `EngineError`.

An address is trusted to bill us, not to behave: error texts, bodies, and the time they take are
bounded, redirects are not followed (they would carry the key elsewhere), and neither the key nor what
looks like one is ever part of a message. Without a configured key none is sent, whatever stands in
the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
import httpx2
import openai
import orjson

from realtime.adapters.base import EngineError
from realtime.adapters.openai_wire import WireError
from realtime.adapters.wav import AudioError
from realtime.settings import VendorSettings

OPENAI_URL = "https://api.openai.com/v1"

CONNECT_S = 5.0

KEEP_ALIVE_S = 60.0
"""Seconds an idle connection is kept: longer than the pause between two turns, TLS set-up costs one."""

WARM_UP_S = 2.0
"""Seconds that a vendor may delay the server's start by."""

MAX_RETRY_AFTER_S = 3600.0
"""Seconds a vendor may ask for; more is a mistake, or an outage that a breaker handles better."""

MAX_ERROR_BYTES = 1 << 16
MAX_MESSAGE = 300

_SECRET = re.compile(r"(?i)\b(?:sk|pk|rk|ek|key|gsk|xai)[-_][\w*.-]{6,}|bearer\s+\S+")

logger = logging.getLogger(__name__)


class Refusal(EngineError):
    """The address refused the request as such (400, 422)."""

    def __init__(self, message: str, *, engine: str, param: str | None) -> None:
        super().__init__(message, code="bad_request", engine=engine, retryable=False)
        self.param = param

    def dialect(self, body: Mapping[str, Any]) -> tuple[str, str | None] | None:
        """A field of `body` that this server does not know, and what it calls it instead, if anything."""
        text = str(self).lower()
        unsupported = "unsupported" in text or "not support" in text
        if "max_tokens" in body and "max_completion_tokens" in text:
            return "max_tokens", "max_completion_tokens"
        if "stream_options" in body and ("stream_options" in text or self.param == "stream_options"):
            return "stream_options", None
        if "temperature" in body and unsupported and ("temperature" in text or self.param == "temperature"):
            return "temperature", None
        return None


class Answer:
    """A body on its way. An async context manager; leaving it closes the connection."""

    def __init__(self, vendor: OpenAIVendor, engine: str, response: httpx2.Response, limit: int) -> None:
        self._vendor = vendor
        self._engine = engine
        self._response = response
        self._limit = limit
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._response.aclose()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes as they arrive; `EngineError` when there are too many or they stop."""
        size = 0
        with self._vendor.failures(self._engine):
            async for piece in self._body():
                size += len(piece)
                if size > self._limit:
                    raise WireError(f"the answer is longer than {self._limit} bytes")
                yield piece

    def _body(self) -> AsyncIterator[bytes]:
        """Straight from the wire unless the server compressed although it was asked not to: each generator in
        between costs every token some microseconds."""
        stream = self._response.stream
        if "content-encoding" in self._response.headers or not isinstance(stream, httpx2.AsyncByteStream):
            return self._response.aiter_bytes()
        return aiter(stream)

    async def read(self) -> bytes:
        """The whole body, within the vendor's time limit."""
        with self._vendor.failures(self._engine):
            async with asyncio.timeout(self._vendor.timeout_s):
                return b"".join([piece async for piece in self.pieces()])


class OpenAIVendor:
    """`[vendors.NAME]` of kind `openai`. The client is made at the first use and closed by the last user."""

    def __init__(self, name: str, settings: VendorSettings) -> None:
        self.name = name
        self.timeout_s = settings.timeout_seconds
        self.speech_format = settings.speech_format
        self._url = settings.base_url or OPENAI_URL
        self.tells_times = settings.transcription_format == "verbose_json"
        self.dialect: dict[str, str | None] = {}
        """Fields that this address does not know, and what it calls them instead, if anything."""
        if (settings.max_tokens_field or self._own_name()) == "max_completion_tokens":
            self.dialect["max_tokens"] = "max_completion_tokens"
        if not settings.stream_usage:
            self.dialect["stream_options"] = None
        self.has_batches = self.is_openai if settings.batches is None else settings.batches
        self.key = settings.key.get_secret_value() if settings.key else ""
        self._client: openai.AsyncOpenAI | None = None
        self._users: set[object] = set()
        self._warming: asyncio.Lock | None = None
        self._warm = False

    def _own_name(self) -> str:
        return "max_completion_tokens" if self.is_openai else "max_tokens"

    @property
    def is_openai(self) -> bool:
        """OpenAI itself, which takes fields that others refuse."""
        return self._url == OPENAI_URL

    async def start(self, user: object) -> None:
        """Opens a connection ahead of the first call. A vendor that does not answer is only logged."""
        self._users.add(user)
        self._warming = self._warming or asyncio.Lock()
        async with self._warming:
            if self._warm:
                return
            self._warm = True
            try:
                with self.failures(self.name):
                    async with asyncio.timeout(WARM_UP_S):
                        async with await self.get(self.name, "/models", 1 << 22) as answer:
                            await answer.read()
            except EngineError as error:
                if error.code not in ("bad_request", "not_found"):  # some servers have no list of models
                    logger.warning("vendor %s", error)

    async def close(self, user: object) -> None:
        self._users.discard(user)
        if not self._users and self._client is not None:
            client, self._client = self._client, None
            self._warm = False
            await client.close()

    async def get(self, engine: str, path: str, limit: int) -> Answer:
        """Returns when the status is known to be good."""
        with self.failures(engine):
            stream = await self._ready().get(
                path,
                options={"headers": self._headers()},
                cast_to=object,
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
        return Answer(self, engine, stream.response, limit)

    async def delete(self, engine: str, path: str) -> None:
        with self.failures(engine):
            await self._ready().delete(path, options={"headers": self._headers()}, cast_to=object)

    async def post(
        self,
        engine: str,
        path: str,
        limit: int,
        *,
        accept: str,
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str | list[str]] | None = None,
        file: tuple[str, bytes, str] | None = None,
    ) -> Answer:
        """Posts `body` as JSON, or a `form` with a `file`; returns when the status is known to be good."""
        headers = self._headers() | {"Accept": accept}
        if file is not None:
            headers["Content-Type"] = "multipart/form-data"
        try:
            with self.failures(engine):
                stream = await self._ready().post(
                    path,
                    content=written(body) if body is not None else None,
                    body=dict(form) if form is not None else None,
                    files={"file": file} if file is not None else None,
                    options={"headers": headers},
                    cast_to=object,
                    stream=True,
                    stream_cls=openai.AsyncStream[object],
                )
        except (TypeError, ValueError) as error:
            # What JSON or a header cannot carry.
            raise self._error(engine, str(error), "bad_request", retryable=False) from None
        return Answer(self, engine, stream.response, limit)

    @contextlib.contextmanager
    def failures(self, engine: str) -> Iterator[None]:
        """Turns what the client, the wire and the parsers raise into `EngineError`, without a chain."""
        try:
            yield
        except EngineError:
            raise
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
            raise self._client_error(error, engine) from None
        except TimeoutError:
            raise EngineError(f"{engine}: no answer in time", code="timeout", engine=engine) from None
        except WireError as error:
            code = "rate_limited" if "rate_limit" in error.code or error.code == "429" else "bad_response"
            raise self._error(engine, str(error), code) from None
        except AudioError as error:
            raise self._error(engine, str(error), "bad_response") from None
        except OSError as error:
            raise self._error(engine, error.strerror or "connection failed", "connection_failed") from None

    def _client_error(self, error: Exception, engine: str) -> EngineError:
        if isinstance(error, openai.APIStatusError):
            return self._status_error(error, engine)
        if _is_timeout(error):
            return self._error(engine, "no answer in time", "timeout")
        if isinstance(error, (openai.APIConnectionError, httpx2.TransportError)):
            return self._error(engine, "the connection failed", "connection_failed")
        return self._error(engine, f"an answer that cannot be read ({type(error).__name__})", "bad_response")

    def _status_error(self, error: openai.APIStatusError, engine: str) -> EngineError:
        status = error.status_code
        if status in (401, 403):
            # What the vendor says here often quotes the key.
            return self._error(engine, f"the address refused the key ({status})", "auth_failed", retryable=False)
        if status in (400, 422):
            return Refusal(self._message(engine, error.message), engine=engine, param=error.param)
        if status == 429:
            wait = _seconds(error.response.headers.get("retry-after"))
            return self._error(engine, error.message, "rate_limited", retry_after=wait)
        if status in (408, 504):
            return self._error(engine, f"no answer in time ({status})", "timeout")
        if status in (409, 425):
            return self._error(engine, error.message, "busy")
        if status == 404:
            return self._error(engine, error.message, "not_found", retryable=False)
        if 400 <= status < 500:
            return self._error(engine, error.message, "bad_request", retryable=False)
        if status in (503, 529):
            wait = _seconds(error.response.headers.get("retry-after"))
            return self._error(engine, error.message, "overloaded", retry_after=wait)
        return self._error(engine, error.message, "bad_response")

    def _error(
        self, engine: str, text: str, code: str, *, retryable: bool = True, retry_after: float | None = None
    ) -> EngineError:
        message = self._message(engine, text)
        return EngineError(message, code=code, engine=engine, retryable=retryable, retry_after=retry_after)

    def _message(self, engine: str, text: str) -> str:
        text = " ".join(text[: 4 * MAX_MESSAGE].split())
        if self.key:
            text = text.replace(self.key, "***")
        text = _SECRET.sub("***", text)
        return f"{engine}: {text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + '…'}"

    def _ready(self) -> openai.AsyncOpenAI:
        if self._client is None:
            self._client = self._new_client()
        return self._client

    def _new_client(self) -> openai.AsyncOpenAI:
        timeout = httpx2.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s))
        transport = openai.DefaultAioHttpClient(
            timeout=timeout,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=KEEP_ALIVE_S),
            event_hooks={"response": [self._bound_error]},
        )
        return openai.AsyncOpenAI(
            api_key=self.key or "none",
            base_url=self._url,
            timeout=timeout,
            max_retries=0,
            http_client=transport,
        )

    def _headers(self) -> dict[str, str | openai.Omit]:
        """Of every request. The SDK would else send what stands in the environment for OpenAI to anyone."""
        headers: dict[str, str | openai.Omit] = {"Accept-Encoding": "identity"}
        if not self.key:
            headers["Authorization"] = openai.Omit()
        if not self.is_openai:
            headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        return headers

    async def _bound_error(self, response: httpx2.Response) -> None:
        """The SDK reads the whole body of an error: let it be a short one."""
        if response.status_code >= 300 and isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream, self.timeout_s)


def _is_timeout(error: BaseException | None) -> bool:
    """The client calls a connection that was cut before the answer a timeout; its cause in aiohttp knows better."""
    known = False
    while error is not None:
        if isinstance(error, aiohttp.ClientError):
            return isinstance(error, TimeoutError)
        known = known or isinstance(error, (openai.APITimeoutError, httpx2.TimeoutException))
        error = error.__cause__
    return known


def _seconds(header: str | None) -> float | None:
    """`Retry-After` in seconds; the form with a date is rare enough to be passed over."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds <= MAX_RETRY_AFTER_S else None


def written(body: Mapping[str, Any]) -> bytes:
    """JSON. Half a surrogate pair, which a caller's history may hold for ever, becomes a question mark."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return json.dumps(body, ensure_ascii=False).encode(errors="replace")


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, until = MAX_ERROR_BYTES, time.monotonic() + self._seconds
        async for piece in self._stream:
            yield piece[:left]
            left -= len(piece)
            if left <= 0 or time.monotonic() > until:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()
