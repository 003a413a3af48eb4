"""What the endpoints make and callers fetch later: files under signed URLs that expire.

`LocalFiles` keeps them in one folder of the data folder, `s3_files.S3Files` in a bucket; each under 128
random bits and a name that says its type. A URL carries its expiry and an HMAC over both, so it can be
handed on and nothing else can be fetched with it; the key lies in the store. Files older than their
longest URL are swept away, and no more are taken than the folder may hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from realtime.gateway.errors import GatewayError
from realtime.gateway.openapi import problems
from realtime.store.base import Store

PATH = "/v1/ai/files"
SWEEP_S = 300.0
SECRET_KEY = "files:secret"

EXTENSIONS = {
    "audio/mpeg": "mp3", "audio/wav": "wav", "audio/ogg": "ogg", "audio/pcm": "pcm",
    "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif",
}  # fmt: skip
TYPES = {extension: mime for mime, extension in EXTENSIONS.items()}
_ID = re.compile(r"file_[A-Za-z0-9_-]{22}\.([a-z0-9]{2,4})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """`path`: a file of this machine."""

    path: Path
    mime: str


class Files(Protocol):
    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def put(self, data: bytes, mime: str) -> str:
        """Keeps `data`; its id. Raises 503 when there is no room."""

    async def adopt(self, path: Path, mime: str, *, seconds: float) -> str:
        """Takes over a file of this machine and keeps it for so long; its id. Raises 503 when there is no room."""

    async def delete(self, id_: str) -> None:
        """Idempotent."""

    async def url(self, base: str, id_: str, *, seconds: float | None = None) -> str:
        """Where it can be fetched until it expires, after `file_seconds` by default."""

    def open(self, id_: str, query: str) -> Found:
        """Raises 403 for a URL that was not signed here, 410 for one that has expired, 404."""


class LocalFiles:
    """`clock`: unix seconds."""

    def __init__(
        self, folder: Path, store: Store, *, seconds: int, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._store = store
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._secret = b""
        self._bytes = 0
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._store.add(SECRET_KEY, secrets.token_bytes(32))
        self._secret = await self._store.get(SECRET_KEY) or b""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bytes = await asyncio.to_thread(self._sweep)
        self._sweeper = asyncio.create_task(self._sweep_now_and_then())

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])

    async def put(self, data: bytes, mime: str) -> str:
        self._make_room(len(data))
        id_ = _new_id(mime)
        await asyncio.to_thread(_write, self._folder / id_, data)
        return id_

    def _make_room(self, size: int) -> None:
        if self._bytes + size > self._max_bytes:
            raise GatewayError(503, "storage_full", "There is no room for further files.", retry_after=SWEEP_S)
        self._bytes += size

    async def adopt(self, path: Path, mime: str, *, seconds: float) -> str:
        self._make_room(await asyncio.to_thread(os.path.getsize, path))
        id_ = _new_id(mime)
        # The sweep goes by a file's time: one that is kept for longer, or shorter, comes from the future or the past.
        at = self._clock() + seconds - self._seconds
        await asyncio.to_thread(_move, path, self._folder / id_, at)
        return id_

    async def delete(self, id_: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            size = await asyncio.to_thread(os.path.getsize, self._folder / id_)
            await asyncio.to_thread(os.unlink, self._folder / id_)
            self._bytes -= size

    async def url(self, base: str, id_: str, *, seconds: float | None = None) -> str:
        expires = int(self._clock() + (self._seconds if seconds is None else seconds))
        return f"{base}{PATH}/{id_}?exp={expires}&sig={self._signature(id_, expires)}"

    def open(self, id_: str, query: str) -> Found:
        match = _ID.fullmatch(id_)
        signed = re.fullmatch(r"exp=([0-9]{1,12})&sig=([A-Za-z0-9_-]{1,64})", query)
        if match is None or match[1] not in TYPES or signed is None:
            raise GatewayError(403, "bad_signature", "This URL was not made here.")
        expires = int(signed[1])
        if not hmac.compare_digest(self._signature(id_, expires), signed[2]):
            raise GatewayError(403, "bad_signature", "This URL was not made here.")
        if expires <= self._clock():
            raise GatewayError(410, "expired", "This URL has expired.")
        path = self._folder / id_
        if not path.is_file():
            raise GatewayError(404, "not_found", "There is no such file any more.")
        return Found(path, TYPES[match[1]])

    def _signature(self, id_: str, expires: int) -> str:
        return hmac.new(self._secret, f"{id_}\n{expires}".encode(), hashlib.sha256).hexdigest()[:40]

    async def _sweep_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                self._bytes = await asyncio.to_thread(self._sweep)
            except OSError as error:
                logger.warning("old files are not swept: %s", error)

    def _sweep(self) -> int:
        """Removes what has expired; the bytes that are left."""
        total = 0
        oldest = self._clock() - self._seconds
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_mtime < oldest:
                        os.unlink(entry.path)
                    else:
                        total += status.st_size
        return total


def _new_id(mime: str) -> str:
    return f"file_{secrets.token_urlsafe(16)}.{EXTENSIONS[mime]}"


def _write(path: Path, data: bytes) -> None:
    # Under another name until it is whole: a URL is given out only afterwards, but a sweep may look.
    partial = path.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(partial, path)


def _move(path: Path, to: Path, at: float) -> None:
    os.utime(path, (at, at))
    os.replace(path, to)


def file_routes(files: Files) -> APIRouter:
    router = APIRouter(tags=["ai"])

    async def get_file(id: str, request: Request) -> Response:
        found = files.open(id, request.url.query)
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": f'inline; filename="{id}"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, max-age=3600",
            "Access-Control-Allow-Origin": "*",
        }
        return FileResponse(found.path, media_type=found.mime, headers=headers)

    router.add_api_route(
        PATH + "/{id}",
        get_file,
        methods=["GET"],
        operation_id="get_file",
        summary="Fetch a made file by its signed URL",
        description="Needs no key: the URL itself is signed and expires. Ranges are served.",
        response_class=Response,
        responses={
            200: {"description": "The file.", "content": {"application/octet-stream": {}}},
            206: {"description": "A part of the file.", "content": {"application/octet-stream": {}}},
            403: {**problems(403)[403], "description": "The URL was not made here."},
            404: {**problems(404)[404], "description": "The file is no longer there."},
            410: {**problems(404)[404], "description": "The URL has expired."},
            416: {"description": "The range lies outside of the file."},
        },
    )
    router.add_api_route(PATH + "/{id}", get_file, methods=["HEAD"], include_in_schema=False)
    return router
