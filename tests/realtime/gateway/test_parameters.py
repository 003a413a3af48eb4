"""The table of `parameters.py` through both clients: the Python one, and the JavaScript one in Node."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from realtime.client import AI, ApiError
from realtime.gateway.batches import PATH as BATCHES
from realtime.gateway.errors import GatewayError
from tests.realtime.gateway.conftest import Vendors
from tests.realtime.gateway.parameters import FETCHED, GREETING, ROWS, Like, Row
from tests.realtime.gateway.server import KEY
from tests.vendors.openai_stub import CHAT, Plan

HERE = Path(__file__).parent
CLIENT_JS = Path(__file__).parents[3] / "realtime" / "web" / "static" / "client.js"


class Refused(Exception):
    """`code` as the client said it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Client(Protocol):
    def call(self, method: str, options: dict[str, Any], abort_after: int | None = None) -> Any: ...


class InPython:
    """`abort_after`: chunks after which the stream is left."""

    def __init__(self, url: str) -> None:
        self._last: Any = None
        self.ai = AI(api_key=KEY, base_url=url)

    def call(self, method: str, options: dict[str, Any], abort_after: int | None = None) -> Any:
        if method == "wait":
            return dict(self._last.wait(10).items())
        methods = {"streamChat": self._stream, "embed": self.ai.embed.create, "image": self.ai.image.generate}
        own = self.ai.realtime.token if method == "liveToken" else getattr(self.ai, method, None)
        try:
            found = methods.get(method, own)(**options, **({"abort_after": abort_after} if abort_after else {}))
            self._last = found
            return json.loads(json.dumps(found if isinstance(found, list) else dict(found.items())))
        except ApiError as error:
            raise Refused(error.code) from error

    def _stream(self, abort_after: int | None = None, **options: Any) -> list[Any]:
        chunks = []
        with self.ai.chat(stream=True, **options) as stream:
            for chunk in stream:
                chunks.append(chunk)
                if len(chunks) == abort_after:
                    raise Refused("aborted")
        return chunks


class InNode:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, method: str, options: dict[str, Any], abort_after: int | None = None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"method": method, "options": options, "abort_after": abort_after}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]


@pytest.fixture(scope="module")
def node(all_vendors: Vendors) -> Iterator[InNode]:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    environ = {**os.environ, "INFRAI_API_KEY": KEY, "INFRAI_BASE_URL": all_vendors.server.url}
    command = [program, str(HERE / "client_driver.mjs"), CLIENT_JS.as_uri()]
    with subprocess.Popen(command, env=environ, stdin=-1, stdout=-1, text=True) as process:
        yield InNode(process)
        process.stdin.close()  # type: ignore[union-attr]


@pytest.fixture(params=["python", "node"])
def client(request: pytest.FixtureRequest, all_vendors: Vendors) -> Client:
    if request.param == "python":
        return InPython(all_vendors.server.url)
    found: InNode = request.getfixturevalue("node")
    return found


class Fetched:
    """In place of the guarded fetcher, which has tests of its own."""

    async def fetch(self, url: str, limit: int, param: str) -> bytes:
        if url not in FETCHED:
            raise GatewayError(422, "fetch_failed", url, param=param)
        return base64.b64decode(FETCHED[url])


@pytest.fixture(autouse=True)
def fetched(all_vendors: Vendors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_vendors.server.gateway, "fetcher", Fetched())


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_published(vendors: Vendors, client: Client, row: Row, request: pytest.FixtureRequest) -> None:
    row.prepare(vendors)
    options = dict(row.options)
    if "idempotency_key" in options:
        options["idempotency_key"] = f"{row.method}-{request.node.callspec.params['client']}"
    if options.get("messages") == "Cached":
        options["messages"] = f"Cached for {request.node.callspec.params['client']}"
    if row.error is not None:
        with pytest.raises(Refused) as caught:
            client.call(row.method, options)
        assert caught.value.code == row.error
    else:
        answer = [client.call(row.method, options) for _ in range(row.times)][-1]
        for path, expected in row.gives.items():
            check(at(answer, path), expected, path)
    seen = [record for stub in vendors.stubs for record in stub.requests(row.sent[0] if row.sent else CHAT)]
    if row.sent is not None:
        for name, value in row.sent[1].items():
            assert seen[-1].body.get(name) == value
    if row.asked is not None:
        assert len(seen) == row.asked
    if "object" in row.gives:  # else it asks again, in other tests
        assert vendors.server.ok(f"{BATCHES}/{answer['id']}/cancel")["status"] == "cancelled"


def at(answer: Any, path: str) -> Any:
    for part in path.split("."):
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer


def check(found: Any, expected: Any, path: str) -> None:
    if isinstance(expected, Like):
        assert re.fullmatch(expected.pattern, found), f"{path}: {found}"
    elif isinstance(expected, type):
        # JSON has one kind of number.
        kinds = (int, float) if expected is float else expected
        assert isinstance(found, kinds), f"{path}: {found!r}"
        assert not isinstance(found, bool)
    else:
        assert found == expected, path


async def test_a_stream_that_is_left_is_left_at_the_vendor(vendors: Vendors, client: Client) -> None:
    """`signal` in JavaScript; closing the stream in Python."""
    vendors.first.plan(CHAT, Plan(hang=True, after=3))
    with pytest.raises(Refused) as caught:
        client.call("streamChat", {"messages": "Hi"}, abort_after=1)
    assert caught.value.code == "aborted"
    await vendors.first.until(lambda: vendors.first.requests(CHAT)[0].closed_early)


def test_a_batch_job_can_be_waited_for(vendors: Vendors, client: Client) -> None:
    job = client.call("chat", {"messages": "Hi", "batch_mode": True, "timeout_seconds": 0.05})
    assert job["object"] == "batch_job"
    assert client.call("wait", job)["content"] == GREETING


def test_the_address_of_speech_holds_it(vendors: Vendors, client: Client) -> None:
    url = client.call("tts", {"input": "Hello.", "format": "wav"})["audio_url"]
    data = vendors.server.client.get(url).content
    assert data[:4] == b"RIFF"
    assert len(data) > 24_000
