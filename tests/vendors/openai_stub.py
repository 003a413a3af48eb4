"""A vendor with an OpenAI-compatible API on a real loopback socket, for tests.

It answers chat, speech and transcription well by default; `plan` lets the next requests to a path go
wrong in a named way. The journal says what each request held and whether its client left early. Its
own test drives it with the official client, so that our engines are not only checked against
themselves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
import struct
import threading
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
MODELS = "/v1/models"
EMBEDDINGS = "/v1/embeddings"
IMAGES = "/v1/images/generations"

_transports: dict[Any, asyncio.Transport] = {}


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _transports[transport.get_extra_info("peername")] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        _transports.pop(self.transport.get_extra_info("peername"), None)
        super().connection_lost(exc)


@dataclass
class Plan:
    """How one request goes. `after`: pieces of the body that come before it goes wrong."""

    status: int = 200
    message: str = "planned failure"
    code: str | None = None
    param: str | None = None
    hang: bool = False
    reset: bool = False
    garbage: bool = False
    after: int = 0
    body: bytes | None = None
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Record:
    """One request, as it was received."""

    path: str
    headers: dict[str, str]
    client: Any = None
    body: dict[str, Any] = field(default_factory=dict)
    wav: wave._wave_params | None = None
    samples: np.ndarray | None = None
    sent: int = 0
    closed_early: bool = False
    finished: bool = False


class OpenAIStub:
    def __init__(self) -> None:
        self.journal: list[Record] = []
        self.key: str | None = None
        self.tokens = ["Hello", " there", ",", " friend", "."]
        self.tool_calls: list[tuple[str, str]] = []
        self.tool_arguments: str | None = None
        self.usage = True
        self.refuses: tuple[str, ...] = ()
        self.transcript = "what was said"
        self.dimensions = 8
        self.picture = b"\x89PNG\r\n\x1a\n" + b"not really" * 3
        self.speech_ms = 600
        self.speech_rate = 24_000
        self.speech_piece = 4_801
        """Bytes in a piece of speech: odd, so that samples are torn."""
        self.base_url = ""
        self._plans: dict[str, list[Plan]] = {}
        self._changed = threading.Condition()

    def plan(self, path: str, plan: Plan, times: int = 1) -> None:
        self._plans.setdefault(path, []).extend([plan] * times)

    def answers_with_tools_when_asked(self, arguments: str) -> None:
        """From now on a request that names a tool in `tool_choice` gets a call of it."""
        self.tool_arguments = arguments

    def requests(self, path: str) -> list[Record]:
        return [record for record in self.journal if record.path == path]

    async def until(self, predicate: Callable[[], bool], seconds: float = 5.0) -> None:
        """Waits for something the journal will say."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(predicate, seconds)

        assert await asyncio.to_thread(wait), "the stub never saw it"

    @contextlib.contextmanager
    def serve(self) -> Iterator[OpenAIStub]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            app = Starlette(
                routes=[
                    Route(CHAT, self._chat, methods=["POST"]),
                    Route(SPEECH, self._speech, methods=["POST"]),
                    Route(TRANSCRIPTIONS, self._transcriptions, methods=["POST"]),
                    Route(MODELS, self._models, methods=["GET"]),
                    Route(EMBEDDINGS, self._embeddings, methods=["POST"]),
                    Route(IMAGES, self._images, methods=["POST"]),
                ]
            )
            config = uvicorn.Config(
                app, http=_Protocol, loop="asyncio", lifespan="off", log_level="critical", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join(10)

    # --- routes -------------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        record, plan = self._receive(request, {})
        early = await self._early(request, record, plan)
        return early or JSONResponse({"object": "list", "data": [{"id": "stub", "object": "model"}]})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        record, plan = self._receive(request, body)
        early = await self._early(request, record, plan)
        if early:
            return early
        for refused in self.refuses:
            if refused in body:
                return _error(400, f"Unsupported parameter: '{refused}' is not supported here.", refused)
        if "max_tokens" in body and "max_tokens!" in self.refuses:
            return _error(
                400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens"
            )
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(self.tokens)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return JSONResponse(
                {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            )
        pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in self._chat_events(body)]
        return self._stream(request, record, plan, [*pieces, b"data: [DONE]\n\n"], "text/event-stream")

    def _chat_events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        def event(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}

        yield event({"role": "assistant", "content": ""})
        calls, choice = self.tool_calls, body.get("tool_choice")
        if self.tool_arguments is not None and isinstance(choice, dict):
            calls = [(choice["function"]["name"], self.tool_arguments)]
        if calls and choice != "none":
            for index, (name, arguments) in enumerate(calls):
                head = {"index": index, "id": f"call_{index}", "type": "function"}
                yield event({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
                for at in range(0, len(arguments), 5):
                    yield event({"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 5]}}]})
            yield event({}, "tool_calls")
        else:
            for token in self.tokens:
                yield event({"content": token})
            yield event({}, "stop")
        if self.usage and body.get("stream_options", {}).get("include_usage"):
            counts = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
            usage = {**counts, "prompt_tokens_details": {"cached_tokens": 3}}
            yield {**event({}), "choices": [], "usage": usage}

    async def _speech(self, request: Request) -> Response:
        body = await request.json()
        record, plan = self._receive(request, body)
        early = await self._early(request, record, plan)
        if early:
            return early
        pcm = self.tone()
        if body["response_format"] == "wav":
            # As servers that stream do: the length is not known yet.
            head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 1, self.speech_rate,
                               self.speech_rate * 2, 2, 16)  # fmt: skip
            data = head + b"LIST\x04\x00\x00\x00INFO" + b"data\xff\xff\xff\xff" + pcm
            kind = "audio/wav"
        else:
            data, kind = pcm, "audio/pcm"
        pieces = [data[at : at + self.speech_piece] for at in range(0, len(data), self.speech_piece)]
        return self._stream(request, record, plan, pieces, kind)

    async def _embeddings(self, request: Request) -> Response:
        body = await request.json()
        record, plan = self._receive(request, body)
        early = await self._early(request, record, plan)
        if early:
            return early
        size = body.get("dimensions", self.dimensions)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [
            {"object": "embedding", "index": index, "embedding": [float(len(text)), *[0.5] * (size - 1)]}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        # In another order than asked: the index counts, not the place.
        return JSONResponse({"object": "list", "model": body["model"], "data": data[::-1], "usage": usage})

    async def _images(self, request: Request) -> Response:
        body = await request.json()
        record, plan = self._receive(request, body)
        early = await self._early(request, record, plan)
        if early:
            return early
        for refused in self.refuses:
            if refused in body:
                return _error(400, f"Unknown parameter: '{refused}'.", refused)
        one = {"b64_json": base64.b64encode(self.picture).decode()}
        return JSONResponse({"created": 0, "data": [one] * body.get("n", 1)})

    def tone(self) -> bytes:
        time = np.arange(self.speech_rate * self.speech_ms // 1000) / self.speech_rate
        return (8000 * np.sin(2 * np.pi * 440 * time)).astype("<i2").tobytes()

    async def _transcriptions(self, request: Request) -> Response:
        form = await request.form()
        record, plan = self._receive(request, {name: value for name, value in form.items() if isinstance(value, str)})
        upload = form["file"]
        assert not isinstance(upload, str)
        with wave.open(io.BytesIO(await upload.read())) as file:
            record.wav = file.getparams()
            record.samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        early = await self._early(request, record, plan)
        if early:
            return early
        answer: dict[str, Any] = {"text": self.transcript}
        if record.body.get("response_format") == "verbose_json":
            if "verbose_json" in self.refuses:
                return _error(400, "response_format 'verbose_json' is not compatible with model", "response_format")
            words = self.transcript.split()
            answer |= {
                "language": "english",
                "duration": 1.0 * len(words),
                "segments": [{"id": 0, "start": 0.0, "end": 1.0 * len(words), "text": f" {self.transcript}"}],
                "words": [{"word": word, "start": 1.0 * at, "end": at + 0.9} for at, word in enumerate(words)],
            }
        return self._stream(request, record, plan, [json.dumps(answer).encode()], "application/json")

    # --- what goes wrong ----------------------------------------------------------------------

    def _receive(self, request: Request, body: dict[str, Any]) -> tuple[Record, Plan]:
        path = request.url.path
        record = Record(path, dict(request.headers), request.client, body)
        plans = self._plans.get(path)
        plan = plans.pop(0) if plans else Plan()
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            wrong = request.headers.get("authorization", "nothing")
            plan = Plan(status=401, message=f"Incorrect API key provided: {wrong}")
        with self._changed:
            self.journal.append(record)
            self._changed.notify_all()
        return record, plan

    def _mark(self, record: Record, **values: object) -> None:
        with self._changed:
            for name, value in values.items():
                setattr(record, name, value)
            self._changed.notify_all()

    async def _early(self, request: Request, record: Record, plan: Plan) -> Response | None:
        """What comes instead of an answer, when nothing of the body is to come before it."""
        if plan.status != 200:
            self._mark(record, finished=True)
            return _error(plan.status, plan.message, plan.param, plan.code, plan.headers)
        if plan.body is not None:
            self._mark(record, finished=True)
            return Response(plan.body, media_type=plan.content_type or "text/event-stream")
        if plan.garbage and plan.after == 0:
            return Response(b"data: {]\n\n\xff\xfe", media_type=plan.content_type or "text/event-stream")
        if plan.reset and plan.after == 0:
            _transports[tuple(request.client or ())].abort()
            await asyncio.sleep(60)
        if plan.hang and plan.after == 0:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self._mark(record, closed_early=True)
            return Response(status_code=499)
        return None

    def _stream(self, request: Request, record: Record, plan: Plan, pieces: list[bytes], kind: str) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                for number, piece in enumerate(pieces):
                    if plan.after and number == plan.after:
                        await self._break(request, plan)
                        if plan.garbage:
                            yield b"data: {]\n\n"
                    yield piece
                    self._mark(record, sent=number + 1)
                    await asyncio.sleep(0)
                self._mark(record, finished=True)
            except asyncio.CancelledError:
                self._mark(record, closed_early=True)
                raise

        return StreamingResponse(body(), media_type=plan.content_type or kind)

    async def _break(self, request: Request, plan: Plan) -> None:
        if plan.reset:
            _transports[tuple(request.client or ())].abort()
        if plan.reset or plan.hang:
            await asyncio.sleep(60)


def _error(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers=headers)
