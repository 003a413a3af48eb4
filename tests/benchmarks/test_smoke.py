"""The benchmark runs against a real server and says what it promises to say. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SUMMARY = {"n", "min", "p50", "p95", "max"}


@pytest.mark.timeout(60)
def test_one_turn_and_one_set_up_give_the_whole_report(tmp_path):
    """JSON with every figure, the conditions and the machine; a page; nothing failed, nothing lost."""
    page = tmp_path / "performance.md"
    command = [sys.executable, "-m", "benchmarks.latency", "--turns", "1", "--barge-ins", "0", "--set-ups", "1"]
    run = subprocess.run(
        [*command, "--quiet", "--write", str(page)], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert run.returncode == 0, run.stderr
    whole = json.loads(run.stdout)
    assert {"date", "cpu", "cores", "system", "python"} <= set(whole["machine"])
    latency = whole["latency"]
    assert latency["checks"]["failures"] == []
    assert latency["checks"]["packets_lost"] == 0
    assert latency["conditions"] | {"engines": "instant", "silence_ms": 200} == latency["conditions"]
    voice, over = latency["voice_to_voice_ms"], latency["voice_to_voice_over_silence_ms"]
    assert set(voice) == set(over) == SUMMARY
    assert voice["n"] == 1
    assert voice["p50"] - over["p50"] == pytest.approx(200)
    assert set(latency["barge_in_ms"]) == {"first_second", "middle", "last_300_ms", "all"}
    assert all(set(figures) == SUMMARY for figures in latency["set_up_ms"].values())
    judged = {target["name"] for target in whole["targets"]}
    assert "voice to voice over the configured silence, median" in judged
    assert whole["machine"]["cpu"] in page.read_text()


@pytest.mark.timeout(60)
def test_a_few_telephone_calls_give_the_telephone_figures(tmp_path):
    """Signed, opened and spoken on as a carrier does; nothing failed."""
    page = tmp_path / "performance.md"
    command = [sys.executable, "-m", "benchmarks.telephony", "--calls", "4", "--seconds", "3", "--warm-up", "0.5"]
    run = subprocess.run(
        [*command, "--quiet", "--write", str(page)], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert run.returncode == 0, run.stderr
    calls = json.loads(run.stdout)["telephony"]
    assert calls["calls"] == 4
    assert calls["failures"] == []
    assert calls["callers_speak"] > 0
    assert {"lateness_ms", "flush_ms", "answer_ms", "generator_late_ms"} <= set(calls)
    assert "Telephone calls over a carrier's socket" in page.read_text()
