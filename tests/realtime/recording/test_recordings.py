"""The service around recordings: disks that are full, files that are refused, processes that ended too early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from media.playout import Playout
from realtime.adapters.embedded.worker import WorkerLimits
from realtime.gateway.files import LocalFiles
from realtime.observe.metrics import Metrics
from realtime.recording import recordings
from realtime.recording.recordings import Recordings, State, Wish
from realtime.recording.tracks import Block
from realtime.recording.writer import OggOpus, duration_ms, pack
from realtime.store.memory import MemoryStore

WISH = Wish(seconds=3600)
FULL = Path("/dev/full")
SLOW = "tests.realtime.recording.slow_disk:load"


class Service(Recordings):
    def __init__(self, folder: Path, **limits: Any) -> None:
        self.metrics = Metrics()
        self.store = MemoryStore()
        self.files = LocalFiles(
            folder / "files", self.store, seconds=60, max_bytes=limits.get("max_bytes", 1 << 30), clock=time.time
        )
        super().__init__(folder / "recordings", self.files, self.store, self.metrics, self._base_url)

    async def _base_url(self) -> str:
        return "https://voice.example"

    def troubles(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("realtime_recording_troubles_total", {"reason": reason})


@asynccontextmanager
async def running(folder: Path, **limits: Any) -> AsyncIterator[Service]:
    service = Service(folder, **limits)
    await service.files.start()
    await service.start(wanted=True)
    try:
        yield service
    finally:
        await service.close()
        await service.files.close()


def call(service: Service, seconds: float = 2.0) -> Any:
    """A call of which this much was heard."""
    recording = service.begin("sess_1", WISH, Playout())
    recording.opened()
    hear(recording, seconds)
    return recording


def hear(recording: Any, seconds: float) -> None:
    recording._tracks._zero -= seconds  # as if it had begun so much earlier
    for ms in range(0, int(seconds * 1000), 20):
        recording.caller(np.full(320, 5000, np.int16), recording._tracks._zero + (ms + 20) / 1000)


async def test_a_recording_is_kept_as_long_as_it_is_to_be(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        recording = call(service)
        assert service.under_way("sess_1") is recording
        shown = await service.finish(recording)
        assert shown is not None
        assert (shown["status"], recording.state) == ("complete", State.KEPT)
        assert shown["url"].startswith("https://voice.example/v1/ai/files/file_")
        assert shown["url_expires_at"] <= shown["keep_until"] + 1
        assert service.under_way("sess_1") is None
        service.files._sweep()  # other files live for a minute
        [file] = (tmp_path / "files").iterdir()
        assert abs(duration_ms(str(file)) - 2000) < 100
        service.files._clock = lambda: time.time() + 3700
        service.files._sweep()
        assert not list((tmp_path / "files").iterdir())


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
async def test_a_full_disk_ends_the_recording_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path) as service:
        recording = call(service)
        recording.path = FULL
        hear(recording, 5.0)
        shown = await service.finish(recording)
    assert shown is not None
    assert (shown["status"], shown["failure"], recording.state) == ("failed", "disk_full", State.FAILED)
    assert service.troubles("disk_full") == 1
    assert "session=sess_1 is not recorded any further: " in caplog.text


async def test_a_store_without_room_costs_the_recording_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, max_bytes=1000) as service:
        shown = await service.finish(call(service, 5.0))
        assert shown is not None
        assert shown["status"] == "failed"
        assert service.troubles("not_kept") == 1
        assert "is not kept" in caplog.text
        assert list((tmp_path / "recordings").iterdir()) == []


async def test_what_a_killed_server_left_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    ogg = OggOpus(str(tmp_path / "recordings" / "sess_2.3600.ogg"))
    for _ in range(150):
        ogg.write(np.full(480, 5000, np.int16), np.zeros(480, np.int16))
    (tmp_path / "recordings" / "sess_3.3600.ogg").write_bytes(b"")
    async with running(tmp_path) as service:
        found = await service.find("sess_2")
        assert found is not None
        assert (found["status"], found["failure"]) == ("incomplete", "interrupted")
        assert found["keep_until"] == pytest.approx(time.time() + 3600, abs=60)
        assert await service.find("sess_3") is None
        assert list((tmp_path / "recordings").iterdir()) == []
    ogg.close()


async def test_a_deleted_recording_is_written_no_further(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        recording = call(service)
        await asyncio.wait_for(service.delete("sess_1"), 10)
        assert await service.finish(recording) is None
        assert await service.find("sess_1") is None
        assert [*(tmp_path / "files").iterdir(), *(tmp_path / "recordings").iterdir()] == []


async def test_a_call_that_never_opened_has_no_recording(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        assert await service.finish(service.begin("sess_1", WISH, Playout())) is None
        assert list((tmp_path / "recordings").iterdir()) == []


def test_a_file_taken_up_again_is_one_recording(tmp_path: Path) -> None:
    path = str(tmp_path / "a.ogg")
    for hertz in (300, 700):
        ogg = OggOpus(path)
        tone = (8000 * np.sin(2 * np.pi * hertz * np.arange(24_000) / 24_000)).astype(np.int16)
        for _ in range(2):
            ogg.write(tone, np.zeros(24_000, np.int16))
        ogg.close()
    with av.open(path) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert sound.shape[1] == pytest.approx(4 * 48_000, abs=4000)
    assert float(np.abs(sound[1]).max()) < 0.001
    assert pack(Block(1, np.zeros(16, np.int16), np.zeros(24, np.int16)), 7)[:8] == b"\x07\0\0\0\x01\0\0\0"


async def test_a_disk_that_takes_a_second_for_each_costs_sound_and_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recordings, "_WRITER", SLOW)
    monkeypatch.setattr(recordings, "_LIMITS", WorkerLimits(unread_bytes=1 << 20, stall_seconds=10.0))
    monkeypatch.setattr(recordings, "FINISH_S", 2.5)
    async with running(tmp_path) as service:
        recording = call(service, 60.0)
        async with asyncio.timeout(20):
            shown = await service.finish(recording)
        held = service._worker._unread
    assert held == 0, "nothing of the call is left in memory"
    assert shown is not None
    assert (shown["status"], shown["failure"]) == ("incomplete", "behind")
    assert shown["lost_seconds"] > 30, "of a minute a megabyte waited, which is 13 s"
    assert service.troubles("behind") == 2
    assert "the writer of recordings is behind: sound is lost" in caplog.text
    assert "its end is not written after 2 s" in caplog.text


async def test_a_file_store_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def never(*_: Any, **__: Any) -> str:
        await asyncio.Event().wait()
        return ""

    async with running(tmp_path) as service:
        monkeypatch.setattr(recordings, "FINISH_S", 1.0)
        monkeypatch.setattr(service.files, "adopt", never)
        async with asyncio.timeout(20):
            shown = await service.finish(call(service))
        assert shown is not None
        assert shown["status"] == "failed"
        assert service.troubles("not_kept") == 1
        assert len(list((tmp_path / "recordings").iterdir())) == 1, "it waits for the next start"
