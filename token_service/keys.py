"""The Ed25519 keys that sign tokens, kept in one file that only the server's user can read.

`SigningKeys.load_or_create(folder)` is safe when several processes start at once: a lock file makes
one of them create the key and the rest read it. The newest key signs, older ones still verify, so a
rotation ends no session. A key id is the key's RFC 7638 thumbprint. A file that cannot be understood
is a `KeyFileError` that names it: it is never replaced, since that would void every token in use.
Private keys never leave this module except as objects that sign.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

logger = logging.getLogger(__name__)

KEY_FOLDER = "keys"
KEY_FILE = "signing.json"
LOCK_FILE = "signing.lock"
MAX_KEYS = 8
"""Keys kept. Tokens live an hour at most, so a key older than seven rotations verifies nothing."""
MAX_FILE_BYTES = 64 * 1024
"""Eight keys take under 3 kB; anything much larger is not our file."""


class KeyFileError(Exception):
    """The key file cannot be used; `path` is the file."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"The signing key file {path} {problem}")
        self.path = path


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair. `created_at`: unix seconds."""

    kid: str
    created_at: int
    private: Ed25519PrivateKey

    @classmethod
    def generate(cls, created_at: int) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        return cls(thumbprint(private.public_key()), created_at, private)

    def public_jwk(self) -> dict[str, str]:
        """As in a JWK set (RFC 8037)."""
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": "EdDSA",
            "kid": self.kid,
            "x": _b64(self.private.public_key().public_bytes_raw()),
        }

    def serialize(self) -> dict[str, Any]:
        secret = _b64(self.private.private_bytes_raw())
        return {**self.public_jwk(), "d": secret, "created_at": self.created_at}

    @classmethod
    def parse(cls, entry: Any) -> SigningKey:
        """One entry of the file; raises ValueError saying what is wrong, without quoting it."""
        if not isinstance(entry, dict):
            raise ValueError("a key is not an object")
        secret, created_at = entry.get("d"), entry.get("created_at")
        if entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519" or not isinstance(secret, str):
            raise ValueError("a key is not an Ed25519 private key")
        if not isinstance(created_at, int) or isinstance(created_at, bool):
            raise ValueError("a key has no created_at")
        try:
            private = Ed25519PrivateKey.from_private_bytes(_unb64(secret))
        except (ValueError, binascii.Error):
            raise ValueError("a private key is not 32 bytes of base64url") from None
        key = cls(thumbprint(private.public_key()), created_at, private)
        if entry.get("kid") != key.kid or entry.get("x") != key.public_jwk()["x"]:
            raise ValueError("the public and the private part of a key do not belong together")
        return key


class SigningKeys:
    """The keys of one data folder. Not for use from several threads."""

    def __init__(self, path: Path, keys: list[SigningKey], *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._keys: list[SigningKey] = []
        self._verifying: dict[str, Ed25519PublicKey] = {}
        self._signature: tuple[int, ...] | None = None
        self._use(keys)

    @classmethod
    def load_or_create(cls, folder: Path, *, clock: Callable[[], float] = time.time) -> SigningKeys:
        """Keys of the data folder `folder` (made when missing). Blocks; call it at start. Raises `KeyFileError`."""
        path = folder / KEY_FOLDER / KEY_FILE
        with _locked(path):
            if not path.exists():
                _write(path, [SigningKey.generate(int(clock()))])
            _tighten(path)
            keys = cls(path, _read(path), clock=clock)
            keys._signature = _file_signature(path)
        return keys

    @property
    def path(self) -> Path:
        return self._path

    @property
    def signing(self) -> SigningKey:
        """The newest key."""
        return self._keys[-1]

    def verifying(self, kid: str) -> Ed25519PublicKey | None:
        """The public key of `kid`. An unknown one is looked up in the file, should another process have rotated."""
        if kid not in self._verifying:
            self._reload_if_changed()
        return self._verifying.get(kid)

    def rotate(self) -> SigningKey:
        """Make a new key that signs from now on; the others still verify. Blocks. Raises `KeyFileError`."""
        with _locked(self._path):
            keys = _read(self._path) if self._path.exists() else list(self._keys)
            keys = [*keys, SigningKey.generate(int(self._clock()))][-MAX_KEYS:]
            _write(self._path, keys)
            self._signature = _file_signature(self._path)
        self._use(keys)
        return self.signing

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public halves, for others who want to verify our tokens."""
        return {"keys": [key.public_jwk() for key in self._keys]}

    def _use(self, keys: list[SigningKey]) -> None:
        self._keys = keys
        self._verifying = {key.kid: key.private.public_key() for key in keys}

    def _reload_if_changed(self) -> None:
        # One stat for a hostile key id; the few kilobytes are read only when the file is another one.
        signature = _file_signature(self._path)
        if signature is None or signature == self._signature:
            return
        self._signature = signature
        try:
            self._use(_read(self._path))
        except KeyFileError as error:
            logger.warning("%s; the keys already loaded stay in use", error)


def thumbprint(public: Ed25519PublicKey) -> str:
    """RFC 7638 thumbprint of an Ed25519 key (members as RFC 8037 says)."""
    canonical = json.dumps(
        {"crv": "Ed25519", "kty": "OKP", "x": _b64(public.public_bytes_raw())}, separators=(",", ":"), sort_keys=True
    )
    return _b64(hashlib.sha256(canonical.encode()).digest())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _read(path: Path) -> list[SigningKey]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {error.strerror}") from error
    hint = "restore it from a backup, or delete it to make a new key (tokens in use then end)"
    if len(data) > MAX_FILE_BYTES:
        raise KeyFileError(path, f"is too large to be a key file; {hint}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise KeyFileError(path, f"is damaged (not JSON); {hint}") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise KeyFileError(path, f"is damaged (no keys in it); {hint}")
    try:
        return [SigningKey.parse(entry) for entry in entries]
    except ValueError as error:
        raise KeyFileError(path, f"is damaged ({error}); {hint}") from None


def _write(path: Path, keys: list[SigningKey]) -> None:
    """Replace the file at once: a reader sees the old one or the new one, a crash leaves either."""
    text = json.dumps({"keys": [key.serialize() for key in keys]}, indent=1)
    try:
        # mkstemp makes the file with mode 0600, so the secret is never readable by others for a moment.
        descriptor, name = tempfile.mkstemp(prefix=".signing-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise KeyFileError(path, f"cannot be written: {error.strerror}") from error


def _tighten(path: Path) -> None:
    if os.name != "posix":
        return
    if path.stat().st_mode & 0o077:
        logger.warning("the signing key file %s could be read by other users; now it cannot", path)
        path.chmod(0o600)


def _file_signature(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock file; the system lets go of it when a process dies."""
    folder = path.parent
    try:
        # The data folder may be one the user made and shares on purpose: only our own folder in it is closed.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.name == "posix" and folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        raise KeyFileError(path, f"cannot be made: {error.strerror}") from error
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise KeyFileError(path, f"cannot be locked: {error.strerror}") from error
        yield
    finally:
        # Closing the file lets the lock go, on every system.
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
