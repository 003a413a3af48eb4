"""What the endpoints make, in an S3-compatible bucket: AWS, MinIO, R2, Garage, Ceph.

Callers get URLs that the bucket's own server answers, signed for `file_seconds`, ranges included; this
server never carries the bytes again. What is old is removed by a lifecycle rule of the bucket, so that several
servers may share one; only a recording that somebody deletes is deleted from here. Import this module only when
`[files]` is set: it needs the extra `s3`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from realtime.gateway.errors import GatewayError
from realtime.gateway.files import EXTENSIONS, Found
from realtime.settings import FilesSettings

if TYPE_CHECKING:
    from obstore.store import S3Config

LONGEST_S = 7 * 86_400
"""What a signature of S3 can last at most."""

TIMEOUT = timedelta(seconds=20)


class S3Files:
    """`Files` in a bucket."""

    def __init__(self, settings: FilesSettings, *, seconds: int) -> None:
        self._seconds = timedelta(seconds=min(seconds, LONGEST_S))
        prefix = settings.prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        config: S3Config = {"bucket": settings.bucket, "region": settings.region}
        if settings.endpoint is not None:
            config |= {"endpoint": settings.endpoint, "virtual_hosted_style_request": False}
        if settings.key is not None and settings.secret is not None:
            config["access_key_id"] = settings.key.get_secret_value()
            config["secret_access_key"] = settings.secret.get_secret_value()
        allow_http = (settings.endpoint or "").startswith("http://")
        self._store = S3Store(
            config=config,
            client_options={"timeout": TIMEOUT, "allow_http": allow_http},
            retry_config={"max_retries": 2, "retry_timeout": TIMEOUT},
        )

    async def start(self) -> None:
        """Ready as it is."""

    async def close(self) -> None:
        """Nothing is held."""

    async def put(self, data: bytes, mime: str) -> str:
        return await self._put(data, mime, whole=True)

    async def adopt(self, path: Path, mime: str, *, seconds: float) -> str:
        """In parts, so that it is never in memory. How long it stays is the bucket's rule."""
        id_ = await self._put(path, mime, whole=False)
        await asyncio.to_thread(os.unlink, path)
        return id_

    async def delete(self, id_: str) -> None:
        try:
            await obstore.delete_async(self._store, self._prefix + id_)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise GatewayError(503, "storage_unavailable", "The storage for files does not answer.") from error

    async def _put(self, data: bytes | Path, mime: str, *, whole: bool) -> str:
        id_ = f"file_{secrets.token_urlsafe(16)}.{EXTENSIONS[mime]}"
        attributes = {
            "Content-Type": mime,
            "Content-Disposition": f'inline; filename="{id_}"',
            "Cache-Control": "private, max-age=3600",
        }
        try:
            await obstore.put_async(
                self._store, self._prefix + id_, data, attributes=attributes, use_multipart=not whole
            )
        except BaseError as error:
            # Its words hold addresses and more, which are for the log.
            raise GatewayError(
                503, "storage_unavailable", "The storage for files does not answer.", retry_after=5.0
            ) from error
        return id_

    async def url(self, base: str, id_: str, *, seconds: float | None = None) -> str:
        lasts = self._seconds if seconds is None else timedelta(seconds=min(seconds, LONGEST_S))
        try:
            return await obstore.sign_async(self._store, "GET", self._prefix + id_, lasts)
        except BaseError as error:
            raise GatewayError(503, "storage_unavailable", "The storage for files does not sign.") from error

    def open(self, id_: str, query: str) -> Found:
        raise GatewayError(403, "bad_signature", "This URL was not made here.")
