"""Files in a bucket, as far as no server is needed for it; tests/interop has one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from realtime.gateway.errors import GatewayError
from realtime.gateway.routes import open_files
from realtime.gateway.s3_files import S3Files
from realtime.settings import FilesSettings, Settings, SettingsError, load
from realtime.store.memory import MemoryStore

NOBODY = "http://127.0.0.1:9"


def bucket(**values: object) -> FilesSettings:
    named = {"bucket": "made", "key": SecretStr("AK"), "secret": SecretStr("very-secret"), **values}
    return FilesSettings.model_validate(named)


async def test_urls_are_of_the_bucket_signed_and_expire_within_what_s3_allows() -> None:
    files = S3Files(bucket(endpoint="https://s3.example", prefix="/voice/"), seconds=30 * 86_400)
    url = urlsplit(await files.url("http://server", "file_x.mp3"))
    assert (url.scheme, url.netloc, url.path) == ("https", "s3.example", "/made/voice/file_x.mp3")
    query = parse_qs(url.query)
    assert query["X-Amz-Expires"] == ["604800"]
    assert query["X-Amz-Signature"]
    assert "very-secret" not in url.query
    short = S3Files(bucket(endpoint="https://s3.example"), seconds=60)
    assert "X-Amz-Expires=60" in await short.url("", "file_x.mp3")


async def test_a_storage_that_is_not_there_is_a_503_without_its_words() -> None:
    files = S3Files(bucket(endpoint=NOBODY), seconds=60)
    with pytest.raises(GatewayError) as caught:
        await files.put(b"x", "image/png")
    assert (caught.value.status, caught.value.code) == (503, "storage_unavailable")
    assert "127.0.0.1" not in caught.value.message


async def test_a_recording_that_cannot_be_uploaded_is_not_lost(tmp_path: Path) -> None:
    recording = tmp_path / "sess_1.60.ogg"
    recording.write_bytes(b"OggS")
    files = S3Files(bucket(endpoint=NOBODY), seconds=60)
    with pytest.raises(GatewayError):
        await files.adopt(recording, "audio/ogg", seconds=60)
    assert recording.read_bytes() == b"OggS"
    with pytest.raises(GatewayError):
        await files.delete("file_x.ogg")


async def test_our_own_route_has_none_of_its_files() -> None:
    with pytest.raises(GatewayError) as caught:
        S3Files(bucket(), seconds=60).open("file_AAAAAAAAAAAAAAAAAAAAAA.png", "exp=1&sig=x")
    assert caught.value.code == "bad_signature"


def test_half_a_pair_of_keys_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "realtime.toml"
    path.write_text('[files]\nbucket = "made"\nkey = "env:KEY"\n')
    with pytest.raises(SettingsError, match="give `key` and `secret`, or neither"):
        load(path, {**os.environ, "KEY": "x"})


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "realtime.gateway.s3_files")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SettingsError, match=r"pip install 'infrai-realtime\[s3\]'"):
        open_files(Settings(files=bucket()), MemoryStore())
