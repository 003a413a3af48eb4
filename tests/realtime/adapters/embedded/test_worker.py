import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from realtime.adapters.base import EngineError
from realtime.adapters.embedded.worker import Worker, WorkerLimits, WorkerState, WorkerStream

ENGINE = "tests.realtime.adapters.embedded.worker_engine:load"
DEADLINE_S = 20.0


@asynccontextmanager
async def running(options: dict[str, Any] | None = None, **limits: Any) -> AsyncIterator[Worker]:
    worker = Worker(ENGINE, options, limits=WorkerLimits(**limits))
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield worker
    finally:
        await worker.close()


async def rest(stream: WorkerStream) -> list[Any]:
    frames = []
    while (frame := await stream.receive()) is not None:
        frames.append(frame.body or frame.head.get("n"))
    return frames


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def until(condition: Any) -> None:
    for _ in range(int(DEADLINE_S / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("it did not come to pass")


async def test_streams_share_one_process_and_do_not_mix() -> None:
    async with running() as worker:
        await worker.start()
        first, second = await worker.open(), await worker.open()
        for number in range(50):
            assert first.send(b"a%d" % number)
            assert second.send(b"b%d" % number)
        first.finish()
        second.finish()
        assert await rest(second) == [b"b%d" % number for number in range(50)]
        assert await rest(first) == [b"a%d" % number for number in range(50)]
        assert not first.send(b"late")


async def test_it_says_what_it_loaded_and_knows_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with running() as worker:
        await worker.start()
        await worker.start()
        assert worker.described["version"] == "7"
        assert "PATH" in worker.described["environment"]
        assert "OPENAI_API_KEY" not in worker.described["environment"]


async def test_what_is_not_read_is_not_made() -> None:
    async with running(window=8) as worker:
        slow = await worker.open({"do": "count", "n": 500})
        quick = await worker.open({"do": "count", "n": 500})
        assert await rest(quick) == list(range(500)), "a stream that is not read holds up no other"
        assert len(slow._items) <= 8
        assert await rest(slow) == list(range(500))


async def test_leaving_a_stream_stops_its_work(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with running(window=8) as worker:
        stream = await worker.open({"do": "count", "n": 10**9})
        assert (await stream.receive()) is not None
        stream.close()
        stream.close()
        assert await stream.receive() is None
        await until(lambda: "closed after" in caplog.text)
        assert await rest(await worker.open({"do": "count", "n": 3})) == [0, 1, 2]


async def test_data_that_the_worker_does_not_take_is_bounded() -> None:
    async with running(unread_bytes=1000) as worker:
        stream = await worker.open()
        assert stream.send(b"x" * 900)
        assert not stream.send(b"x" * 200)
        stream.finish()
        assert await rest(stream) == [b"x" * 900]
        assert not stream.send(b"x")


async def test_what_all_streams_have_waiting_is_bounded_too_and_given_back() -> None:
    async with running(unread_bytes=1000, all_unread_bytes=1500) as worker:
        one, two = await worker.open(), await worker.open()
        assert one.send(b"x" * 900)
        assert not two.send(b"x" * 900)
        one.close()
        assert two.send(b"x" * 900)
        two.finish()
        assert await rest(two) == [b"x" * 900]
        assert worker._unread == 0


async def test_a_full_worker_takes_no_more_streams() -> None:
    async with running(streams=2) as worker:
        held = [await worker.open(), await worker.open()]
        with pytest.raises(EngineError) as refused:
            await worker.open()
        assert refused.value.code == "engine_busy"
        held[0].close()
        (await worker.open()).close()


@pytest.mark.parametrize(("do", "code"), [("refuse", "unknown_voice"), ("raise", "engine_error")])
async def test_an_error_ends_its_stream_alone(do: str, code: str) -> None:
    async with running() as worker:
        good, bad = await worker.open(), await worker.open({"do": do})
        with pytest.raises(EngineError) as failed:
            await bad.receive()
        assert failed.value.code == code
        good.send(b"still here")
        good.finish()
        assert await rest(good) == [b"still here"]


async def test_a_killed_worker_fails_its_streams_and_the_next_stream_works() -> None:
    async with running() as worker:
        streams = [await worker.open(), await worker.open()]
        waiting = [asyncio.create_task(stream.receive()) for stream in streams]
        await asyncio.sleep(0)
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, EngineError)
            assert outcome.code == "worker_died"
        assert not streams[0].send(b"into nothing")
        assert await rest(await worker.open({"do": "count", "n": 2})) == [0, 1]
        assert worker.pid not in (None, pid)
        assert not alive(pid)


async def test_a_worker_that_keeps_dying_is_restarted_ever_later() -> None:
    async with running(backoff_seconds=0.05, backoff_max_seconds=0.2) as worker:
        for _ in range(3):
            with pytest.raises(EngineError) as died:
                await rest(await worker.open({"do": "die"}))
            assert died.value.code == "worker_died"
        await until(lambda: worker.state is WorkerState.WAITING)
        assert await rest(await worker.open({"do": "count", "n": 1})) == [0]


async def test_a_worker_that_dies_while_it_loads_is_started_again(tmp_path: Path) -> None:
    async with running({"fail_once": str(tmp_path / "tried")}) as worker:
        with pytest.raises(EngineError) as failed:
            await worker.start()
        assert failed.value.code == "worker_failed"
        await worker.start()
        assert worker.pid is not None


async def test_a_process_that_cannot_even_be_spoken_to_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn, attempts = asyncio.create_subprocess_exec, 0

    async def gone_at_once(*command: str, **options: Any) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            # What uvloop says of a pipe whose other end has gone already.
            raise RuntimeError("unable to perform operation; the handler is closed")
        return await spawn(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", gone_at_once)
    async with running(backoff_seconds=0.01) as worker:
        with pytest.raises(EngineError) as failure:
            await worker.start()
        assert failure.value.code == "worker_failed"
        await worker.start()
        assert worker.state is WorkerState.READY


async def test_an_engine_that_cannot_be_loaded_says_why() -> None:
    async with running({"fail": "no such library"}) as worker:
        with pytest.raises(EngineError, match="no such library"):
            await worker.start()
        with pytest.raises(EngineError, match="no such library"):
            await worker.open()


async def test_a_worker_that_hangs_is_replaced() -> None:
    async with running(stall_seconds=0.3) as worker:
        with pytest.raises(EngineError) as died:
            await (await worker.open({"do": "hang"})).receive()
        assert died.value.code == "worker_died"
        assert await rest(await worker.open({"do": "count", "n": 1})) == [0]


async def test_its_output_reaches_the_log_and_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with running() as worker:
        assert await rest(await worker.open({"do": "print"})) == []
        await until(lambda: "dropped" in caplog.text)
        assert "a library that prints to stdout" in caplog.text, "beside the frames, not between them"
        assert len(caplog.records) < 80
        assert max(len(record.getMessage()) for record in caplog.records) < 500


async def test_closing_ends_the_process_and_every_stream() -> None:
    async with running() as worker:
        stream = await worker.open({"do": "hang"})
        pid = worker.pid
        assert pid is not None
        await worker.close()
        await worker.close()
        assert not alive(pid)
        assert worker.pid is None
        with pytest.raises(EngineError) as closed:
            await stream.receive()
        assert closed.value.code == "worker_closed"
        with pytest.raises(EngineError):
            await worker.open()


async def test_a_worker_that_ignores_being_asked_is_killed() -> None:
    async with running() as worker:
        await worker.start()
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        await worker.close()
        assert time.monotonic() - began < 4
        assert not alive(pid)


async def test_interrupts_are_not_for_the_worker() -> None:
    async with running() as worker:
        await worker.start()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
        assert await rest(await worker.open({"do": "count", "n": 1})) == [0]


SERVER = f"""
import asyncio
from realtime.adapters.embedded.worker import Worker
async def main():
    worker = Worker("{ENGINE}")
    await (await worker.open({{"do": "count", "n": 3}})).receive()
    print(worker.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_no_worker_outlives_a_server_that_was_killed() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdout=subprocess.PIPE, env=environment)
    assert server.stdout is not None
    pid = int(await asyncio.wait_for(server.stdout.readline(), DEADLINE_S))
    assert alive(pid)
    server.kill()
    await server.wait()
    await until(lambda: not alive(pid))
