"""espeak-ng through ctypes, in its worker process only: the library is GPL-3.0-or-later and has one
global state, so it must never be loaded into the server.

What `speak` is given may be hostile: markup and phoneme brackets are read as text, control characters
(espeak's embedded commands) never reach it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from media.audio import Pcm

Events: TypeAlias = list[tuple[int, float]]
"""Character position in the text, and milliseconds from the start of its audio."""
Emit: TypeAlias = Callable[[Pcm, Events], bool]
"""Takes the next audio and the words in it; False: stop."""

_SYNCHRONOUS: Final = 2
_CHUNK_MS: Final = 60
_DONT_EXIT: Final = 0x8000
_POSITION_CHARACTER: Final = 1
_UTF8: Final = 1
_LIST_TERMINATED: Final = 0
_EVENT_WORD: Final = 1
_RATE, _VOLUME, _PITCH, _WORD_GAP = 1, 2, 3, 7

WORDS_PER_MINUTE: Final = 175.0
_SLOWEST: Final = 80.0
"""Words a minute; espeak goes no slower, so that pauses between words make up for the rest."""
_PAUSE_UNIT_MS: Final = 30.0
"""Milliseconds that one unit of the pause between words lasts at the slowest speech, as measured."""
_LOUDNESS: Final = 85
"""Percent: at 100 some variants clip."""


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def speed_parameters(speed: float) -> tuple[int, int]:
    """Words a minute, and the extra pause after each word in espeak's units, for a speed of 0.25 to 1.5."""
    wanted = WORDS_PER_MINUTE * min(max(speed, 0.25), 1.5)
    pause_ms = max(0.0, 60_000 / wanted - 60_000 / _SLOWEST)
    return round(max(wanted, _SLOWEST)), round(pause_ms / _PAUSE_UNIT_MS)


class Espeak:
    """A synthesiser: `rate` in Hz, `speak` calls `emit` every 60 ms of audio."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Info.restype = ctypes.c_char_p
        # espeak cuts a data path at 160 characters; a relative one is always short enough.
        os.chdir(os.path.dirname(espeakng_loader.get_data_path()))
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, _CHUNK_MS, b".", _DONT_EXIT)
        if self.rate <= 0:
            raise OSError("espeak-ng could not read its data")
        self._callback = _CALLBACK(self._on_audio)
        self._library.espeak_SetSynthCallback(self._callback)
        self._emit: Emit | None = None
        self._voice = ""

    def describe(self) -> Mapping[str, Any]:
        return {"version": (self._library.espeak_Info(None) or b"").decode("ascii", "replace")}

    def speak(self, text: str, voices: list[str], pitch: int, speed: float, emit: Emit) -> None:
        """`text` without control characters; `voices`: names to try in order."""
        self._choose(voices)
        words_per_minute, gap = speed_parameters(speed)
        for parameter, value in ((_RATE, words_per_minute), (_WORD_GAP, gap), (_PITCH, pitch), (_VOLUME, _LOUDNESS)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode("utf-8")
        self._emit = emit
        try:
            self._library.espeak_Synth(
                data, ctypes.c_size_t(len(data) + 1), 0, _POSITION_CHARACTER, 0, _UTF8, None, None
            )
        finally:
            self._emit = None

    def _choose(self, voices: list[str]) -> None:
        for voice in voices:
            if voice == self._voice or self._library.espeak_SetVoiceByName(voice.encode("ascii")) == 0:
                self._voice = voice
                return

    def _on_audio(self, samples: Any, count: int, events: Any) -> int:
        """Called by espeak within `speak`. 1 stops it."""
        words: Events = []
        index = 0
        while events[index].type != _LIST_TERMINATED:
            if events[index].type == _EVENT_WORD:
                words.append((events[index].text_position - 1, float(events[index].audio_position)))
            index += 1
        if not samples or self._emit is None:
            return 0
        pcm = np.ctypeslib.as_array(samples, (count,)).copy() if count else np.zeros(0, np.int16)
        return 0 if self._emit(pcm, words) else 1
