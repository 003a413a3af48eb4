"""The system's `flite` and `espeak-ng` commands as synthesisers, run by the voice's worker process.

Text and sound go through a private temporary folder: arguments could be read by every user of the
machine, and flite given a file hangs on a pipe. A command that takes too long is killed.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from media.audio import Pcm
from realtime.adapters.base import EngineError
from realtime.adapters.embedded.espeak import Emit, speed_parameters

_LONGEST_S: Final = 10.0
"""Seconds one piece of a text may take; usual is a tenth."""
_CHUNK_MS: Final = 100
_QUIET: Final = 200
"""Sample value below which a beginning counts as silence: -44 dBFS."""
_LEAD_MS: Final = 10

Command: TypeAlias = Callable[[str, str, str, int, float], list[str]]
"""Text file, WAV file, voice, pitch, speed to arguments."""


class CommandVoice:
    """A synthesiser that runs a command which writes a WAV file."""

    def __init__(self, program: str, version: list[str], command: Command, rate: int) -> None:
        path = shutil.which(program)
        if path is None:
            raise OSError(f"{program} is not installed")
        self.rate = rate
        self._path = path
        self._command = command
        self._version = self._output([path, *version]).decode("utf-8", "replace").strip()[:200]

    def describe(self) -> Mapping[str, Any]:
        found = re.search(r"\d+\.\d+(\.\d+)*", self._version)
        return {"version": found.group() if found else None}

    def speak(self, text: str, voices: list[str], pitch: int, speed: float, emit: Emit) -> None:
        with tempfile.TemporaryDirectory(prefix="voice-") as folder:
            source, target = Path(folder, "text"), Path(folder, "wav")
            source.write_text(text + "\n", encoding="utf-8")
            for voice in voices:
                self._output([self._path, *self._command(str(source), str(target), voice, pitch, speed)])
                if target.exists() and target.stat().st_size:
                    break
            wav = target.read_bytes() if target.exists() else b""
        pcm = without_lead(samples(wav, self.rate), self.rate)
        step = self.rate * _CHUNK_MS // 1000
        for start in range(0, len(pcm), step):
            if not emit(pcm[start : start + step], []):
                return

    def _output(self, arguments: list[str]) -> bytes:
        try:
            done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LONGEST_S)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{self._path} took more than {_LONGEST_S:.0f} s", code="engine_timeout") from error
        return done.stdout


def samples(wav: bytes, rate: int) -> Pcm:
    """The samples of a 16-bit mono WAV file."""
    place = wav.find(b"data", 12)
    if len(wav) < 44 or wav[:4] != b"RIFF" or place < 0:
        raise EngineError("the voice wrote no WAV file", code="engine_error")
    _, channels, hz = struct.unpack_from("<HHI", wav, 20)
    if (channels, hz) != (1, rate):
        raise EngineError(f"the voice wrote {channels} channels at {hz} Hz", code="engine_error")
    length = struct.unpack_from("<I", wav, place + 4)[0]
    body = wav[place + 8 : place + 8 + length]
    return np.frombuffer(body[: len(body) & ~1], np.int16)


def without_lead(pcm: Pcm, rate: int) -> Pcm:
    """Without the silence before the first sound: it would only be heard as slowness."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > _QUIET)
    return pcm[max(0, int(loud[0]) - rate * _LEAD_MS // 1000) :] if len(loud) else pcm


def sounding(pcm: Pcm) -> int:
    """Samples up to the last sound."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > _QUIET)
    return int(loud[-1]) + 1 if len(loud) else 0


def flite() -> CommandVoice:
    def command(source: str, target: str, voice: str, pitch: int, speed: float) -> list[str]:
        stretch = f"duration_stretch={1 / min(max(speed, 0.25), 1.5):.3f}"
        return ["-voice", voice, "--setf", stretch, "-f", source, "-o", target]

    return CommandVoice("flite", ["--version"], command, 16_000)


def espeak_ng() -> CommandVoice:
    def command(source: str, target: str, voice: str, pitch: int, speed: float) -> list[str]:
        words_per_minute, gap = speed_parameters(speed)
        numbers = ["-s", str(words_per_minute), "-g", str(gap), "-p", str(pitch)]
        return ["-v", voice, *numbers, "-b", "1", "-f", source, "-w", target]

    return CommandVoice("espeak-ng", ["--version"], command, 22_050)
