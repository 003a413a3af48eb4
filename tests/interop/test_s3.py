"""Made files in a bucket of a server that speaks S3 and knows when a URL has expired: `s3rver`."""

from __future__ import annotations

import hashlib
import hmac
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from realtime.gateway.s3_files import S3Files
from realtime.settings import FilesSettings
from tests.interop.test_aimock import wait_for
from tests.realtime.gateway.server import Running, running, settings

KEY = "S3RVER"
"""Its access key and its secret."""


@pytest.fixture(scope="module")
def bucket(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesSettings]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["node", "node_modules/s3rver/bin/s3rver.js", "-p", str(port), "--configure-bucket", "made"]
    command += ["-d", str(tmp_path_factory.mktemp("bucket")), "--silent", "--no-vhost-buckets"]
    with subprocess.Popen(command, cwd=environment("vendors")) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/", process)
            yield FilesSettings(
                bucket="made",
                endpoint=f"http://127.0.0.1:{port}",
                key=SecretStr(KEY),
                secret=SecretStr(KEY),
                prefix="voice",
            )
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def server(bucket: FilesSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(settings(tmp_path_factory.mktemp("server"), files=bucket)) as started:
        yield started


def fetch(url: str, **headers: str) -> httpx2.Response:
    return httpx2.get(url, headers=headers, trust_env=False)


def test_speech_and_pictures_are_fetched_from_the_bucket(server: Running, bucket: FilesSettings) -> None:
    said = server.ok("/v1/ai/tts", input="Hello there.", format="wav")
    assert said["audio_url"].startswith(f"{bucket.endpoint}/made/voice/file_")
    answer = fetch(said["audio_url"])
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.content[:4] == b"RIFF"
    (image,) = server.ok("/v1/ai/image", prompt="A cat", size="64x64")["images"]
    assert fetch(image["url"]).content.startswith(b"\x89PNG")


def test_ranges_are_served(server: Running) -> None:
    url = server.ok("/v1/ai/tts", input="Hello there.", format="wav")["audio_url"]
    part = fetch(url, Range="bytes=4-7")
    assert (part.status_code, len(part.content)) == (206, 4)
    assert part.headers["content-range"].startswith("bytes 4-7/")


def test_the_signature_is_that_of_aws(server: Running) -> None:
    """Reckoned here by AWS's own rules (Signature Version 4), which `s3rver` does not do."""
    url = urlsplit(server.ok("/v1/ai/tts", input="Hello there.")["audio_url"])
    query = dict(parse_qsl(url.query))
    given = query.pop("X-Amz-Signature")
    canonical = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    request = f"GET\n{url.path}\n{canonical}\nhost:{url.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    _, scope = query["X-Amz-Credential"].split("/", 1)
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{scope}\n{hashed}"
    key = f"AWS4{KEY}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    assert key.hex() == given


async def test_a_recording_is_moved_to_the_bucket_and_deleted_from_it(bucket: FilesSettings, tmp_path: Path) -> None:
    files = S3Files(bucket, seconds=60)
    recording = tmp_path / "sess_1.3600.ogg"
    recording.write_bytes(b"OggS" * 3_000_000)  # in parts
    id_ = await files.adopt(recording, "audio/ogg", seconds=3600)
    assert not recording.exists()
    url = await files.url("", id_, seconds=600)
    answer = fetch(url)
    assert (answer.headers["content-type"], len(answer.content)) == ("audio/ogg", 12_000_000)
    await files.delete(id_)
    await files.delete(id_)
    assert fetch(url).status_code == 404


async def test_a_url_expires(bucket: FilesSettings) -> None:
    files = S3Files(bucket, seconds=1)
    url = await files.url("", await files.put(b"\x89PNG", "image/png"))
    until = time.monotonic() + 10
    while (answer := fetch(url)).status_code == 200:
        assert time.monotonic() < until, "it never expired"
    assert answer.status_code == 403
    assert "expired" in answer.text
