"""The published Python examples, word for word, against a running server on the embedded engines.

They say `infrai`, which is an alias of our client here. Their example addresses are answered by a web
server of the test, which stands behind the fetch guard: the guard resolves and checks as always.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpcore2
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import realtime.client
from realtime.adapters.embedded.drawing import png
from realtime.gateway.encoding import Encoder
from realtime.gateway.fetch import Fetcher, GuardedBackend
from tests.realtime.gateway.server import KEY, Running, running, settings

BRIEF = Path(__file__).parents[4] / "shared" / "brief" / "ai-runtime.txt"
SNIPPETS = {
    "chat": '''from infrai import ai

# stream=True asks the gateway to deliver the completion incrementally.
result = ai.chat(
    "Tell me a 50-word story about a curious raccoon.",
    prefer="balanced",
    stream=True,
)
print(result.get("text") or result.get("content"))
print("request_id:", result["_metadata"].get("request_id"))
print("vendor:", result["_metadata"].get("vendor"))
''',
    "stream": '''from infrai import ai

for chunk in ai.chat("Tell me a 50-word story about a curious raccoon.", stream=True):
    print(chunk.delta.content or "", end="", flush=True)
''',
    "embed": '''from infrai import ai

# Embed text once for semantic search / RAG, then rank by cosine similarity.
result = ai.embed.create("What animal has clever paws?")
data = result.get("data") or result.get("embeddings") or []
vector = data[0].get("embedding") if data and isinstance(data[0], dict) else data[0]
print("dimensions:", len(vector or []))
''',
    "image": '''from infrai import ai

result = ai.image.generate(
    "A watercolor raccoon reading a book under a maple tree",
    size="1024x1024",
    n=1,
    prefer="balanced",
)
images = result.get("images") or result.get("data") or []
print("first url:", images[0].get("url") if images else None)
''',
    "vision": '''from infrai import ai

r = ai.vision(prompt="What's in this image?",
              images=[{"url": "https://example.com/photo.jpg"}])
print(r.get("content") or r.get("text"))
''',
    "tts": '''from infrai import ai

r = ai.tts(input="Hello from Infrai.", voice="alloy", format="mp3")
print("audio url:", r.get("audio_url"))
''',
    "asr": '''from infrai import ai

r = ai.asr(audio={"url": "https://example.com/clip.mp3"}, language="en")
print("transcript:", r.get("text"))
''',
    "token": '''from infrai import ai

tok = ai.realtime.token(ttl_seconds=300)
print("session:", tok.get("session_id"), "| expires:", tok.get("expires_at"))
''',
    "activate": "from infrai import infra; infra.activate()",
}  # fmt: skip

PRINTS = {
    "chat": r"(?s).*lamp at the harbour.*\nrequest_id: req_\w+\nvendor: embedded\n",
    "stream": r"(?s).*lamp at the harbour.*",
    "embed": r"dimensions: 256\n",
    "image": r"first url: http://127\.0\.0\.1:\d+/v1/ai/files/file_\S+\.png\?exp=\d+&sig=\w+\n",
    "vision": r"I cannot see.* 48 by 32 pixels.*\n",
    "tts": r"audio url: http://127\.0\.0\.1:\d+/v1/ai/files/file_\S+\.mp3\?exp=\d+&sig=\w+\n",
    "asr": r"transcript: .*\n",
    "token": r"session: sess_\w+ \| expires: \d{10}\n",
    "activate": "",
}


def test_these_are_the_published_examples() -> None:
    if not BRIEF.exists():
        pytest.skip("the published description lies beside a development checkout only")
    text = BRIEF.read_text(encoding="utf-8")
    assert [name for name, snippet in SNIPPETS.items() if snippet.rstrip("\n") not in text] == []


# --- the world of the examples ----------------------------------------------------------------------


class _Pages(BaseHTTPRequestHandler):
    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        data = self.files.get(self.path)
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _speech() -> bytes:
    encoder = Encoder("mp3")
    noise = np.random.default_rng(1).integers(-500, 500, 24_000).astype(np.int16)
    return encoder.push(noise) + encoder.finish()


@contextlib.contextmanager
def example_com(folder: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """A web server with a certificate for example.com; its port, and a context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.com")])
    now = datetime.now().astimezone()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "example.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    _Pages.files = {"/photo.jpg": png(np.full((32, 48, 3), 200, np.uint8)), "/clip.mp3": _speech()}
    server = HTTPServer(("127.0.0.1", 0), _Pages)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], ssl.create_default_context(cafile=str(pem))
    finally:
        server.shutdown()
        server.server_close()


class _Elsewhere(httpcore2.AsyncNetworkBackend):
    """Where the guard would connect to the public address, this connects to the test's server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.addresses: list[str] = []

    async def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> httpcore2.AsyncNetworkStream:
        self.addresses.append(host)
        return await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", self._port, 5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    async def names(host: str, port: int) -> Sequence[str]:
        assert host == "example.com"
        return ["93.184.216.34"]

    with (
        example_com(tmp_path_factory.mktemp("web")) as (port, tls),
        running(settings(tmp_path_factory.mktemp("server"))) as started,
    ):
        backend = GuardedBackend(resolve=names, connect=_Elsewhere(port))
        started.gateway.fetcher = Fetcher(backend=backend, tls=tls)
        yield started


@pytest.fixture(autouse=True)
def world(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infrai", realtime.client)
    monkeypatch.setenv("INFRAI_API_KEY", KEY)
    monkeypatch.setenv("INFRAI_BASE_URL", server.url)


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_example_runs_as_it_stands(name: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(SNIPPETS[name], name, "exec"), {"__name__": "__main__"})
    assert re.fullmatch(PRINTS[name], printed.getvalue()), printed.getvalue()


def test_no_server_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("INFRAI_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        from realtime.client import ConnectError, ai

        with pytest.raises(ConnectError, match="cannot be reached"):
            ai.chat("Hello")
