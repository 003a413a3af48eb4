"""The key that `realtime serve` makes when there is none, so that the first call needs no set-up.

It has every scope, is shown once and is kept in the data folder for the Python client and the command
line on the same machine (`realtime.client` reads the same file by name, since it imports nothing of
the server). It is never made when any key exists, in the store or in the environment.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from token_service.api_keys import SCOPES, ApiKeys

FILE = "development_key"
NAME = "development"
"""How the key is listed."""


async def ensure(api_keys: ApiKeys, folder: Path) -> str | None:
    """A new development key, written to `folder`, when the store holds no key at all; else None."""
    if await api_keys.list():
        return None
    plaintext, _ = await api_keys.create(NAME, SCOPES)
    _write(folder / FILE, plaintext)
    return plaintext


def read(folder: Path) -> str | None:
    """The development key kept in `folder`, if one is."""
    try:
        return (folder / FILE).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    # mkstemp makes the file with mode 0600: others never see it, not for a moment.
    descriptor, name = tempfile.mkstemp(prefix=".development-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
