"""Ten calls over the bad network that calls must sound whole over, with real packets and in real time."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.network import judge, own_call, packets
from benchmarks.recogniser import Recogniser
from tests.media.lossy import BAD, CLEAN

pytest.importorskip("pocketsphinx", reason="words need the extra `local`")

SEEDS = range(10)


@pytest.mark.parametrize(
    ("link", "not_heard", "late", "p95_ms"), [(BAD, 0.065, 0.01, 80), (CLEAN, 0.0, 0.0, 40)], ids=["bad", "clean"]
)
async def test_a_call_sounds_whole(link, not_heard: float, late: float, p95_ms: float):
    payloads, said = packets(copies=False)
    calls = await asyncio.gather(*(own_call(payloads, link, seed) for seed in SEEDS))
    figures = judge(calls, len(payloads), said, Recogniser())
    assert figures["frames_not_heard"] <= not_heard, figures
    assert figures["late"] <= late, figures
    assert figures["delay_ms"]["p95"] <= p95_ms, figures
    assert figures["word_errors"] <= 0.15, figures
