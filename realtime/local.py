"""What the commands share about this machine: the store in the data folder, the key at hand, the address.

Used by `realtime serve`, `keys`, `token`, `talk` and `doctor`; it never starts anything.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from realtime import development_key
from realtime.settings import Settings
from realtime.store.sqlite import SqliteStore

STORE_FILE = "store.sqlite3"


def open_store(folder: Path) -> SqliteStore:
    """The store that the server of this data folder uses; several processes may have it open. Raises `StoreError`."""
    return SqliteStore(folder / STORE_FILE)


def find_key(settings: Settings, folder: Path, environ: Mapping[str, str]) -> str | None:
    """The API key to use from here: the environment's, else the settings', else the development key."""
    if environ.get("INFRAI_API_KEY"):
        return environ["INFRAI_API_KEY"]
    if settings.server.api_key is not None:
        return settings.server.api_key.get_secret_value()
    return development_key.read(folder)


def local_url(host: str, port: int, *, tls: bool = False) -> str:
    """Where a program on this machine reaches a server that listens on `host`."""
    if host in ("", "0.0.0.0", "localhost"):
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    bracketed = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{bracketed}:{port}"


def command_name() -> str:
    """How `realtime` is called from here: by name when that is this installation, else by its path."""
    called = Path(sys.argv[0])
    found = shutil.which("realtime")
    if not called.name.startswith("realtime") or (found is not None and Path(found).resolve() == called.resolve()):
        return "realtime"
    absolute = called.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
