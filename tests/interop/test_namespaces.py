"""A call between two network namespaces: real packets, IPv6 only, over a bad network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.calls.server import ROOT
from tests.interop.namespaces import ADDRESSES, CALLER, SAID, SERVER, wired
from tests.media.lossy import BAD
from tests.media.webrtc import candidates
from tests.words import word_errors

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK),
    reason="network namespaces and TUN devices need root, on Linux",
)


def test_speech_by_ipv6_over_a_bad_network_is_understood(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="words need the extra `local`")
    with wired(BAD) as wire:
        done = subprocess.run(
            ["ip", "netns", "exec", CALLER, sys.executable, "-m", "tests.interop.namespaces", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        lost, passed = wire.lost, wire.passed
    result = json.loads(done.stdout)
    errors = sum(word_errors(said, heard) for (_, said), heard in zip(SAID, result["heard"], strict=True))
    assert errors / sum(len(said.split()) for _, said in SAID) <= 0.15, result["heard"]
    assert {host for host, _ in candidates(result["answer"])} == {ADDRESSES[SERVER]}
    assert 0 < lost < passed
    assert result["stats"]["packets_lost"] > 0
