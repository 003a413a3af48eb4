"""`realtime bench`: what is tried, what is told, and that its callers are real ones. No figure is judged here."""

from __future__ import annotations

import random
import time

import pytest
from typer.testing import CliRunner

from media.audio import FRAME_S
from media.endpoint import EndpointSettings, SpeechStarted, SpeechStopped
from media.network import Network
from media.opus import SILENCE_PACKET, OpusDecoder
from media.rtp import RtpPacket
from media.vad import Vad
from realtime import bench
from realtime.bench import BUSY, LATE_MS, Measured, Verdict, next_try, summary
from realtime.cli import app
from realtime.load import SPOKEN_S, Load, LoadCall


def tried(calls: int, ms: float = 5.0, *, late_ms: float = 1.0, own_late_ms: float = 1.0, lost: int = 0) -> Measured:
    return Measured(calls, calls * ms / 1000, late_ms, own_late_ms, lost)


@pytest.mark.parametrize(
    ("before", "following"),
    [
        ([tried(10)], int(BUSY * 200)),
        ([tried(10, 20)], int(BUSY * 50)),
        ([tried(10, 100)], 8),
        ([tried(10, late_ms=LATE_MS + 1)], 8),
        ([tried(10), tried(150)], None),
        ([tried(10), tried(100, 4)], int(BUSY * 250)),
        ([tried(10), tried(150, late_ms=9)], 120),
        ([tried(10), tried(150, lost=3)], 120),
        ([tried(10), tried(150, late_ms=9), tried(120)], None),
        ([tried(10), tried(12, late_ms=9)], None),
        ([tried(10), tried(150, late_ms=9), tried(120, late_ms=9), tried(96, late_ms=9)], None),
    ],
)
def test_more_calls_are_tried_until_it_is_too_many_then_fewer(before: list[Measured], following: int | None) -> None:
    assert next_try(before, 1000) == following


def test_no_more_calls_are_tried_than_allowed() -> None:
    assert next_try([tried(10)], 20) == 20
    assert next_try([tried(20)], 20) is None


def test_the_summary_tells_the_most_that_were_carried() -> None:
    told = summary(Verdict([tried(10), tried(150, late_ms=9), tried(120, late_ms=4.2)]))
    assert "carries 120 calls: 0.60 of a core, packets 4.2 ms late" in told
    assert "late themselves" not in told
    assert "does not carry 8 calls" in summary(Verdict([tried(10, lost=1), tried(8, lost=1)]))
    assert "late themselves" in summary(Verdict([tried(10, own_late_ms=30)]))


def test_the_command_exits_with_1_when_nothing_was_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = [Verdict([tried(10), tried(100)]), Verdict([tried(1, lost=1)])]

    async def measure(**options: object) -> Verdict:
        return verdicts.pop(0)

    monkeypatch.setattr(bench, "measure", measure)
    for code, said in ((0, "carries 100 calls"), (1, "does not carry 1 calls")):
        result = CliRunner().invoke(app, ["bench", "--calls", "100"])
        assert result.exit_code == code
        assert said in result.output


def test_its_voice_is_one_utterance_to_the_detector() -> None:
    events: list[object] = []
    vad, decoder = Vad(schedule=lambda delay_s, turn: None), OpusDecoder()
    detector = vad.detector(EndpointSettings(), events.append)
    packets = [SILENCE_PACKET] * 25 + bench.packets(bench.murmur(SPOKEN_S)) + [SILENCE_PACKET] * 50
    for number, packet in enumerate(packets):
        detector.push(decoder.decode(packet), number * FRAME_S)
        vad.flush()
    assert [type(event) for event in events] == [SpeechStarted, SpeechStopped]


@pytest.mark.parametrize("first", [0, (1 << 32) - 2 * 960, (1 << 31) - 960])
async def test_a_timestamp_that_wraps_is_not_late(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    call = LoadCall(Network(), random.Random(1), duplex=True)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    call.measure()
    for number, late in enumerate([0.0, 0.001, 0.0, 0.007, 0.0]):
        clock[0] = 100.0 + number * FRAME_S + late
        timestamp = first + number * 960 & 0xFFFFFFFF
        assert call.on_datagram(RtpPacket(111, number, timestamp, 7, b"", marker=number == 0).serialize())
    call.close_spurt()
    monkeypatch.undo()
    await call.close()
    assert call.lateness_s == pytest.approx([0.0, 0.001, 0.0, 0.007, 0.0])


async def test_its_callers_hold_real_calls_and_hang_up() -> None:
    with bench.server() as (url, key, _):
        load = Load(url, key, [bench.packets(bench.murmur(1.0))], SILENCE_PACKET, duplex=True)
        await load.open(3)
        await load.run(0.5)
        load.measure()
        await load.run(1.0)
        await load.hang_up(1)
        assert len(load.calls) == 2
        for call in load.calls:
            assert call.sent >= 45
            assert call.received >= 25
        assert load.lateness_s
        await load.close()
        assert load.calls == []
