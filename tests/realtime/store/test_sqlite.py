"""What a file and several processes add: mode, reopening, atomicity between processes, damage, a free loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from realtime.store.base import StoreError
from realtime.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[3]


async def test_everything_survives_a_reopen(tmp_path, clock):
    path = tmp_path / "new" / "folder" / "store.db"
    store = SqliteStore(path, clock=clock)
    await store.put("a", b"1")
    await store.put("b", b"2", ttl=10)
    await store.increment("n", ttl=10)
    await store.close()
    clock.now += 5
    store = SqliteStore(path, clock=clock)
    assert await store.scan("") == [("a", b"1"), ("b", b"2"), ("n", b"1")]
    assert await store.increment("n", ttl=10) == 2
    clock.now += 5
    assert await store.scan("") == [("a", b"1")]
    await store.close()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
async def test_only_its_user_can_read_it(tmp_path):
    path = tmp_path / "store.db"
    path.touch(mode=0o644)
    path.chmod(0o644)
    store = SqliteStore(path)
    await store.put("a", b"1")
    assert {file.name for file in tmp_path.iterdir()} >= {"store.db", "store.db-wal"}
    assert [oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == ["0o600"] * len(
        list(tmp_path.iterdir())
    )
    await store.close()


async def test_two_stores_on_one_file_see_each_other(tmp_path, clock):
    one, two = SqliteStore(tmp_path / "s.db", clock=clock), SqliteStore(tmp_path / "s.db", clock=clock)
    await one.put("a", b"1", ttl=60)
    assert await two.get("a") == b"1"
    assert await two.add("a", b"2") is False
    await two.delete("a")
    assert await one.get("a") is None
    await one.close()
    await two.close()


_WORKER = """
import asyncio, sys
from pathlib import Path
from realtime.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    sys.stdin.readline()
    won = 0
    for n in range(50):
        won += await store.add(f"token:{n}", b"1", ttl=60)
        await store.increment("n", ttl=60)
    await store.close()
    print(won)

asyncio.run(main())
"""


def run_workers(path: Path, count: int) -> list[int]:
    """How many of the fifty tokens each process won; they open the store and start together."""
    command = [sys.executable, "-c", _WORKER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    workers = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [int(worker.communicate(timeout=30)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


async def test_of_several_processes_one_wins_and_no_increment_is_lost(tmp_path):
    path = tmp_path / "store.db"
    won = await asyncio.to_thread(run_workers, path, 3)
    store = SqliteStore(path)
    assert sum(won) == 50
    assert len(await store.scan("token:")) == 50
    assert await store.get("n") == b"150"
    await store.close()


async def test_another_process_with_the_lock_delays_a_write_and_never_the_loop(tmp_path):
    store = SqliteStore(tmp_path / "store.db")
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(store.put("a", b"1"))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not writing.done()
    other.execute("COMMIT")
    await asyncio.wait_for(writing, 10)
    other.close()
    assert await store.get("a") == b"1"
    await store.close()


async def test_all_work_is_done_on_one_thread_that_ends_with_the_store(tmp_path):
    before = set(threading.enumerate())
    store = SqliteStore(tmp_path / "store.db")
    await asyncio.gather(*(store.put(f"k{n}", b"1") for n in range(20)))
    (thread,) = set(threading.enumerate()) - before
    await store.close()
    thread.join(5)
    assert not thread.is_alive()


async def test_a_file_that_is_no_store_is_named_and_left_alone(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"this is not a database, and longer than its header would be" * 20)
    content = path.read_bytes()
    with pytest.raises(StoreError, match=r"store\.db"):
        SqliteStore(path)
    assert path.read_bytes() == content
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path)


async def test_a_store_of_a_newer_program_is_refused(tmp_path):
    path = tmp_path / "store.db"
    await SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        SqliteStore(path)


async def test_a_full_file_is_an_error_and_the_rest_stays_readable(tmp_path):
    store = SqliteStore(tmp_path / "store.db", max_bytes=256 * 1024)
    await store.put("a", b"1")
    with pytest.raises(StoreError, match="full"):
        await store.put("b", b"x" * 512 * 1024)
    assert await store.get("a") == b"1"
    assert await store.increment("n", ttl=60) == 1
    await store.close()


async def test_more_callers_than_a_stuck_disk_can_serve_are_refused(tmp_path):
    store = SqliteStore(tmp_path / "store.db")
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = [asyncio.ensure_future(store.put("a", b"1", ttl=60)) for _ in range(1100)]
    done, pending = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 100
    assert all(isinstance(task.exception(), StoreError) for task in done)
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(asyncio.gather(*pending), 30)
    await store.close()
