"""Serves the files of `static/` as they stand, with the headers that keep the page to itself.

Everything is read once, at start: no request ever names a path in the file system. Browsers keep what they
have and ask whether it is still the newest (ETag), so a new version of the server shows at the next reload.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The page runs its own scripts and talks to its own server; text that it shows can never become markup."""

_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FOR_EVERY_PAGE = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
"""The client may be imported by any page; what it may do there is decided by the key that page has."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "application/typescript; charset=utf-8",
}
"""What is served; files of another kind (for npm) are not."""
_ETAG = re.compile(r'"[^"]*"|\*')


@dataclass(frozen=True, slots=True)
class File:
    """One file as it goes out. `path`: below the server's root, `/` for the page itself."""

    path: str
    body: bytes
    media_type: str
    etag: str
    policy: str = CONTENT_SECURITY_POLICY

    @property
    def headers(self) -> dict[str, str]:
        headers = {**_HEADERS, "Content-Security-Policy": self.policy, "ETag": self.etag}
        if self.path.startswith("/client"):
            headers |= _FOR_EVERY_PAGE
        if self.path == "/client.js":
            headers["X-TypeScript-Types"] = "./client.d.ts"
        return headers


def load() -> list[File]:
    """Every file that is served."""
    return _load(resources.files("realtime.web") / "static", "/")


def _load(folder: Traversable, path: str) -> list[File]:
    found: list[File] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        suffix = entry.name[entry.name.rfind(".") :]
        if entry.is_dir():
            found += _load(entry, f"{path}{entry.name}/")
        elif suffix in _TYPES:
            name = "" if entry.name == "index.html" else entry.name
            found.append(file_of(f"{path}{name}", entry.read_bytes(), suffix))
    return found


def file_of(path: str, body: bytes, suffix: str, policy: str = CONTENT_SECURITY_POLICY) -> File:
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:15]).decode()
    return File(path, body, _TYPES[suffix], f'"{digest}"', policy)


def file_routes() -> APIRouter:
    """One route a file."""
    router = APIRouter(include_in_schema=False)
    for file in load():
        router.add_api_route(file.path, Endpoint(file), methods=["GET", "HEAD"])
    return router


class Endpoint:
    """Answers with one file."""

    def __init__(self, file: File) -> None:
        self._file = file

    async def __call__(self, request: Request) -> Response:
        file = self._file
        known = _ETAG.findall(request.headers.get("if-none-match", "")[:1024])
        if file.etag in known or "*" in known:
            return Response(status_code=304, headers=file.headers)
        return Response(file.body, headers=file.headers, media_type=file.media_type)
