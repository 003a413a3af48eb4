"""The echo guard in hundreds of rooms drawn at random, where tests/media/test_echo.py has chosen ones.

Run by `make soak`; with `-s` it prints the figures that docs/browser.md gives.
"""

from __future__ import annotations

import numpy as np
import pytest

from media.vad import Vad
from tests.media import test_echo as one_room
from tests.media.test_echo import BOT_DBFS, at_level, bot, clip, echo, listen, loudspeaker, microphone, mixed, room

VOICES = (*one_room.HUMAN, one_room.ORATOR, one_room.WEATHER, one_room.HOW_ARE_YOU)
ROOMS = 240
TALKERS = 60

pytestmark = pytest.mark.timeout(600)
vad = one_room.vad


def coming_back(rng: np.random.Generator, voice: str) -> np.ndarray:
    """What a microphone hears of the loudspeaker: -30 to -20 dB, 100 to 300 ms late, with or without direct sound."""
    response = room(rng, decay_ms=rng.uniform(3, 60), direct=bool(rng.integers(2)))
    return echo(loudspeaker(voice), rng.uniform(-30, -20), rng.uniform(100, 300), response)


def test_the_bots_voice_never_interrupts(vad: Vad) -> None:
    interrupted = []
    for seed in range(ROOMS):
        rng = np.random.default_rng(seed)
        voice = VOICES[seed % len(VOICES)]
        heard = microphone(coming_back(rng, voice), rng, hiss_dbfs=rng.uniform(-80, -55))
        shake = rng.uniform(0, 0.015, len(heard))
        if one_room.starts(listen(vad, heard, bot(voice), shake=shake)):
            interrupted.append(seed)
    assert interrupted == []


@pytest.mark.parametrize(("db", "median", "tenth"), [(0, 20, 60), (-5, 20, 80), (-10, 40, 150)])
def test_a_talker_over_it_still_does(vad: Vad, db: int, median: float, tenth: float) -> None:
    """`db`: to the bot. Milliseconds later than without any echo, of half and of nine in ten talkers."""
    later = []
    for seed in range(TALKERS):
        rng = np.random.default_rng(1000 + seed)
        talker, voice = VOICES[seed % len(VOICES)], VOICES[(seed + 1 + seed // len(VOICES) % 5) % len(VOICES)]
        at_s = rng.uniform(0.3, 3.0)
        speech = at_level(clip(talker)[: 3 * 16_000], BOT_DBFS + db)
        alone = one_room.starts(listen(vad, microphone(mixed(np.zeros(0), speech, at_s), rng)))
        heard = microphone(mixed(coming_back(rng, voice), speech, at_s), rng)
        over = one_room.starts(listen(vad, heard, bot(voice)))
        assert over, f"never noticed: seed {seed}"
        later.append(over[0] - alone[0])
    print(
        f"{db} dB: median {np.median(later):.0f}, nine in ten {np.percentile(later, 90):.0f}, all {max(later):.0f} ms"
    )
    assert np.median(later) <= median
    assert np.percentile(later, 90) <= tenth
