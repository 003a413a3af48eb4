"""The store in one SQLite file, shared by the processes of one machine and kept over a restart.

One connection, driven by one thread of its own, so that neither a slow disk nor another process's lock
ever holds up the event loop. `add` and `increment` are atomic between processes: each is one statement
or one immediate transaction. The file is readable by its user alone. What SQLite raises comes out as
`StoreError` with the file's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from realtime.store.base import StoreError
from realtime.store.checks import check_key, check_limit, check_prefix, check_ttl, check_value, next_count

T = TypeVar("T")

SCHEMA_VERSION = 1
MAX_BYTES = 1 << 30
"""The file's bound; beyond it SQLite says it is full. A year of revoked keys takes some megabytes."""
BUSY_SECONDS = 5.0
"""How long to wait for another process's write, which takes milliseconds."""
DURABLE_TTL_SECONDS = 24 * 3600.0
"""What lives a day or longer (keys, their revocation) is on the disk when the call returns. The rest
survives a crash of the process, and after a power cut the last moments of it may be missing: an fsync
for every short-lived record would cost each call some milliseconds."""
MAX_PENDING = 1000
"""Calls waiting for the thread. At 0.1 ms each that is a tenth of a second; with a disk that hangs, memory is safe."""
_PURGE_EVERY_WRITES = 64
_PURGE_ROWS = 256
"""Expired rows deleted at once; four for every write on average, so they cannot pile up."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at REAL);
CREATE INDEX IF NOT EXISTS entries_expires_at ON entries (expires_at) WHERE expires_at IS NOT NULL;
"""
_GET = "SELECT value FROM entries WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_GET_WITH_EXPIRY = "SELECT value, expires_at FROM entries WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_PUT = """
INSERT INTO entries (key, value, expires_at) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
"""
_ADD = _PUT + " WHERE entries.expires_at <= ?"
_DELETE = "DELETE FROM entries WHERE key = ? RETURNING expires_at IS NULL OR expires_at > ?"
_SCAN = """
SELECT key, value FROM entries
WHERE key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?
"""
_PURGE = "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE expires_at <= ? LIMIT ?)"


class SqliteStore:
    """Opens (makes) the file `path` at once and blocks while it does: construct it at start. Raises `StoreError`.

    `clock`: unix seconds; injectable, since expiry is wall clock.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._writes = 0
        self._closed = False
        self._pending = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            self._connection = self._thread.submit(self._open, max_bytes).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def get(self, key: str) -> bytes | None:
        check_key(key)
        return await self._run(lambda: self._get(key))

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value)
        check_ttl(ttl)
        await self._run(lambda: self._put(key, value, ttl))

    async def add(self, key: str, value: bytes, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(value)
        check_ttl(ttl)
        return await self._run(lambda: self._add(key, value, ttl))

    async def delete(self, key: str) -> bool:
        check_key(key)
        return await self._run(lambda: self._delete(key))

    async def scan(self, prefix: str, *, limit: int = 1000) -> list[tuple[str, bytes]]:
        check_prefix(prefix)
        check_limit(limit)
        return await self._run(lambda: self._scan(prefix, limit))

    async def increment(self, key: str, *, ttl: float) -> int:
        check_key(key)
        check_ttl(ttl)
        return await self._run(lambda: self._increment(key, ttl))

    async def close(self) -> None:
        """Finish what was asked and close the file. Idempotent."""
        if self._closed:
            return
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._closed = True
        self._thread.shutdown(wait=False)
        await closing

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError(f"The store {self._path} is closed.")
        if self._pending >= MAX_PENDING:
            raise StoreError(f"The store {self._path} is too slow: {MAX_PENDING} calls are waiting for it.")
        self._pending += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, work)
            future.add_done_callback(self._done)
            return await future
        except sqlite3.Error as error:
            raise StoreError(f"The store {self._path}: {error}") from error

    def _done(self, _: asyncio.Future[T]) -> None:
        # A caller that is cancelled leaves its work in the queue, but then it will not count any more: the
        # queue drops cancelled work unrun.
        self._pending -= 1

    # --- on the store's own thread ------------------------------------------------------------

    def _open(self, max_bytes: int) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made by us with the right mode before SQLite sees it; its -wal and -shm files take the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            if os.name == "posix":
                self._path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"The store {self._path} cannot be opened: {error.strerror}") from error
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            self._prepare(connection, max_bytes)
        except (sqlite3.Error, StoreError) as error:
            if connection is not None:
                connection.close()
            raise StoreError(f"The store {self._path} cannot be opened: {error}") from error
        return connection

    def _prepare(self, connection: sqlite3.Connection, max_bytes: int) -> None:
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")
        with _transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise StoreError(f"it has version {version}, and this program knows {SCHEMA_VERSION}")
            for statement in _SCHEMA.strip().split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _get(self, key: str) -> bytes | None:
        row = self._connection.execute(_GET, (key, self._clock())).fetchone()
        return None if row is None else bytes(row[0])

    def _put(self, key: str, value: bytes, ttl: float | None) -> None:
        now = self._written()
        with self._durable(ttl):
            self._connection.execute(_PUT, (key, value, None if ttl is None else now + ttl))

    def _add(self, key: str, value: bytes, ttl: float | None) -> bool:
        now = self._written()
        with self._durable(ttl):
            cursor = self._connection.execute(_ADD, (key, value, None if ttl is None else now + ttl, now))
            return cursor.rowcount == 1

    def _delete(self, key: str) -> bool:
        now = self._written()
        row = self._connection.execute(_DELETE, (key, now)).fetchall()
        return bool(row and row[0][0])

    def _scan(self, prefix: str, limit: int) -> list[tuple[str, bytes]]:
        # Keys are ASCII, so DEL bounds them all from above, and a prefix's next sibling is one code point on.
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\x7f"
        rows = self._connection.execute(_SCAN, (prefix, end, self._clock(), limit)).fetchall()
        return [(key, bytes(value)) for key, value in rows]

    def _increment(self, key: str, ttl: float) -> int:
        now = self._written()
        with _transaction(self._connection):
            row = self._connection.execute(_GET_WITH_EXPIRY, (key, now)).fetchone()
            count = next_count(key, bytes(row[0]) if row else None)
            self._connection.execute(_PUT, (key, b"%d" % count, row[1] if row else now + ttl))
        return count

    def _written(self) -> float:
        """The time, for a write; now and then expired rows go first."""
        now = self._clock()
        self._writes += 1
        if self._writes % _PURGE_EVERY_WRITES == 0:
            self._connection.execute(_PURGE, (now, _PURGE_ROWS))
        return now

    @contextlib.contextmanager
    def _durable(self, ttl: float | None) -> Iterator[None]:
        """Have the write on the disk before it counts, when what it writes is to last."""
        if ttl is not None and ttl < DURABLE_TTL_SECONDS:
            yield
            return
        self._connection.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA synchronous = NORMAL")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction from its first statement on: reading first and locking later could lose a race."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for others when it changes the journal's mode, so two starts at once have to try again."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # The primary code is the low byte of the extended one.
            busy = (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
