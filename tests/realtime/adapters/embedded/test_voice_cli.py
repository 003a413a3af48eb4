import io
import wave

import numpy as np
import pytest

from realtime.adapters.base import EngineError
from realtime.adapters.embedded.voice_cli import CommandVoice, samples, sounding, without_lead


def wav(pcm: np.ndarray, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(pcm.tobytes())
    return file.getvalue()


def test_samples_of_a_wav_file_and_of_one_whose_sizes_are_wrong() -> None:
    pcm = np.arange(100, dtype=np.int16)
    data = wav(pcm)
    assert np.array_equal(samples(data, 16_000), pcm)
    endless = data[:40] + b"\xff\xff\xff\x7f" + data[44:] + b"\0"
    assert np.array_equal(samples(endless, 16_000), pcm)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no audio " * 10, wav(np.zeros(9, np.int16), 8000)])
def test_what_is_no_such_file_is_an_error(data: bytes) -> None:
    with pytest.raises(EngineError):
        samples(data, 16_000)


def test_silence_before_the_first_sound_is_cut() -> None:
    pcm = np.concatenate([np.zeros(1600, np.int16), np.full(100, 5000, np.int16), np.zeros(300, np.int16)])
    assert len(without_lead(pcm, 16_000)) == 160 + 100 + 300
    assert sounding(pcm) == 1700
    assert len(without_lead(pcm[:1600], 16_000)) == 1600
    assert sounding(pcm[:1600]) == 0


def test_a_command_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="no-such-voice"):
        CommandVoice("no-such-voice", [], lambda *arguments: [], 16_000)
