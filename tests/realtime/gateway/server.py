"""The application on a real loopback socket, in a thread of the test's own process, so that parts can be doubled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
import orjson
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from realtime.app import create_app
from realtime.gateway.work import Gateway
from realtime.settings import LiveSettings, ModelSettings, ServerSettings, Settings, VendorSettings

KEY = "ifr_pk_proj_" + "g" * 32
CHAT = "/v1/ai/chat"
PRICES = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}


class Running:
    """A server that accepts requests. `client`: with the key."""

    def __init__(self, app: FastAPI, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.url = url
        self._loop = loop
        self.client = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
        )

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway

    def post(self, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx2.Response:
        return self.client.post(path, json=body, headers=headers)

    def ok(self, path: str, **body: Any) -> dict[str, Any]:
        response = self.post(path, **body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert answer["metadata"] == answer["_metadata"]
        return answer

    def error(self, status: int, path: str, **body: Any) -> dict[str, Any]:
        return problem(self.post(path, **body), status)

    def events(self, **body: Any) -> list[tuple[str, Any]]:
        """Kind and data of every event of a streamed chat."""
        response = self.post(CHAT, stream=True, **body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return parsed(response.text)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """`work` on the server's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


def problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    found: dict[str, Any] = body["error"]
    return found


def parsed(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        kind, data = "message", None
        for line in block.split("\n"):
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:"):
                data = line[5:].strip()
        if data is not None:
            found.append((kind, data if data == "[DONE]" else orjson.loads(data)))
    return found


def said(events: list[tuple[str, Any]]) -> str:
    return "".join(data["delta"].get("content") or "" for kind, data in events if data != "[DONE]")


def settings(folder: Path, **sections: Any) -> Settings:
    return Settings(server=ServerSettings(data=folder, api_key=SecretStr(KEY)), **sections)


def vendor(base_url: str, **values: Any) -> VendorSettings:
    return VendorSettings(
        base_url=base_url, key=SecretStr("sk-of-the-vendor-1234"), **{"timeout_seconds": 10, **values}
    )


def model(id_: str, vendor: str, kind: Any = "chat", **values: Any) -> ModelSettings:
    prices = PRICES if kind in ("chat", "embed") and not {"input_cost_per_token"} & values.keys() else {}
    return ModelSettings(id=id_, vendor=vendor, kind=kind, **{**prices, **values})


INSTANT = LiveSettings(stt=["instant"], tts=["instant"])


@contextlib.contextmanager
def running(settings: Settings, engines: Literal["instant"] | None = None) -> Iterator[Running]:
    app = create_app(settings, engines=engines)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, loop="asyncio", log_level="critical", timeout_graceful_shutdown=3)
        server = uvicorn.Server(config)
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[listener])

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        wait(lambda: server.started or not thread.is_alive(), 20)
        assert server.started
        found = Running(app, f"http://127.0.0.1:{listener.getsockname()[1]}", loops[0])
        try:
            yield found
        finally:
            found.client.close()
            server.should_exit = True
            thread.join(15)


def wait(predicate: Callable[[], bool], seconds: float = 5.0) -> None:
    """Until `predicate` holds; what is waited for happens in another thread."""
    until = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.005)


@asynccontextmanager
async def async_client(server: Running) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client
