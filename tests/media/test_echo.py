"""The bot's own voice coming back is no caller; a caller over it is one, almost as soon as without it."""

import wave
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from media.audio import FRAME_IN, FRAME_OUT, FRAME_S
from media.echo import SPAN, EchoGuard, guarded
from media.endpoint import EndpointSettings, SpeechStarted
from media.opus import OpusDecoder, OpusEncoder
from media.outbound import Outbound
from media.playout import Playout
from media.resample import Resampler
from media.vad import Vad
from media.voice_model import SileroModel
from tests.media.webrtc import tone

OWN = Path(__file__).parents[1] / "audio"
SHARED = Path(__file__).parents[2].parent / "shared" / "audio"
WEATHER = "synth_flite_rms_weather_london"
HOW_ARE_YOU = "synth_flite_slt_how_are_you"
HUMAN = ["human_librivox_ill_disposed", "human_go_forward_ten_meters", "human_cards_eight_of_spades"]
ORATOR = "human_inaugural_1961_ask_not"
BOT_DBFS = -20.0


@cache
def clip(name):
    path = next((folder / f"{name}.wav" for folder in (OWN, SHARED) if (folder / f"{name}.wav").exists()), None)
    if path is None:
        pytest.skip(f"the shared speech fixture {name}.wav is not beside this checkout")
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def as_pcm(samples):
    return np.clip(np.round(samples), -32768, 32767).astype(np.int16)


def at_level(samples, dbfs):
    """Scaled so that its active parts have this level."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320).astype(float)
    power = (frames**2).mean(axis=1)
    active = power[power > power.max() / 1000].mean()
    return samples * (32768 * 10 ** (dbfs / 20) / np.sqrt(active))


def converted(samples, source_hz, target_hz):
    resampler = Resampler(source_hz, target_hz)
    return np.concatenate([resampler.push(as_pcm(samples)), resampler.flush()])


@cache
def bot(name, seconds=6.0):
    """What the bot says, 24 kHz, in whole frames."""
    said = converted(at_level(clip(name), BOT_DBFS), 16_000, 24_000)
    return np.resize(said, round(seconds / FRAME_S) * FRAME_OUT)


def over_opus(said):
    """24 kHz through the encoder and out of the decoder, at 16 kHz."""
    encoder, decoder = OpusEncoder(), OpusDecoder()
    frames = said[: len(said) // FRAME_OUT * FRAME_OUT].reshape(-1, FRAME_OUT)
    return np.concatenate([decoder.decode(encoder.encode(np.ascontiguousarray(frame))) for frame in frames])


@cache
def loudspeaker(name, seconds=6.0):
    return over_opus(bot(name, seconds))


def room(rng, decay_ms=20.0, direct=True):
    """A decaying response of energy 1, half of it in the direct sound if there is any."""
    size = round(decay_ms * 5 * 16)
    response = rng.standard_normal(size) * np.exp(-np.arange(size) / (decay_ms * 16))
    response /= np.sqrt((response**2).sum())
    if direct:
        response[0] += 1.0
    return response / np.sqrt((response**2).sum())


def echo(sound, db, delay_ms, response):
    """What the microphone hears of the loudspeaker."""
    heard = np.convolve(sound, response)[: len(sound)] * 10 ** (db / 20)
    return np.concatenate([np.zeros(round(delay_ms * 16)), heard])


def microphone(sound, rng, hiss_dbfs=-70.0):
    """With the hiss of a room, through the caller's encoder."""
    hiss = rng.standard_normal(len(sound)) * 32768 * 10 ** (hiss_dbfs / 20)
    return over_opus(converted(sound + hiss, 16_000, 24_000))


def mixed(echoes, talker, at_s):
    start = round(at_s * 16_000)
    out = np.zeros(max(len(echoes), start + len(talker)))
    out[: len(echoes)] = echoes
    out[start : start + len(talker)] += talker
    return out


@pytest.fixture(scope="module")
def vad():
    return Vad(model=SileroModel(), schedule=lambda delay_s, callback: None)


def listen(vad, heard, said=None, *, shake=None):
    """(event, media ms at which it was told) for a call that hears `heard` while the bot says `said`."""
    events = []
    guard = EchoGuard() if said is not None else None
    detector = vad.detector(EndpointSettings(), lambda event: events.append((event, detector.position_ms)), guard=guard)
    start = 1000.0
    frames = [] if said is None else said[: len(said) // FRAME_OUT * FRAME_OUT].reshape(-1, FRAME_OUT)
    for n in range(len(heard) // FRAME_IN):
        if guard is not None and n < len(frames) and frames[n].any():
            guard.played(frames[n], start + n * FRAME_S)
        late = 0.0 if shake is None else shake[n]
        detector.push(heard[n * FRAME_IN : (n + 1) * FRAME_IN], start + (n + 1) * FRAME_S + late)
        vad.flush()
    detector.close()
    return events


def starts(events):
    return [at_ms for event, at_ms in events if isinstance(event, SpeechStarted)]


# -- echo alone


@pytest.mark.parametrize("delay_ms", [100, 150, 200, 300])
@pytest.mark.parametrize("db", [-20, -25, -30])
@pytest.mark.parametrize("voice", [WEATHER, HUMAN[0]])
def test_the_bots_voice_coming_back_is_never_speech(vad, voice, db, delay_ms):
    """From the first second on: the guard knows nothing of the room when the bot begins."""
    rng = np.random.default_rng(delay_ms - db)
    sound = loudspeaker(voice)
    heard = microphone(echo(sound, db, delay_ms, room(rng)), rng)
    if db == -20:
        assert starts(listen(vad, heard)), "without a guard it is"
    assert starts(listen(vad, heard, bot(voice))) == []


@pytest.mark.parametrize("seed", range(8))
def test_nor_in_any_room(vad, seed):
    rng = np.random.default_rng(seed)
    voice = [WEATHER, HOW_ARE_YOU][seed % 2]
    response = room(rng, decay_ms=rng.uniform(3, 40), direct=bool(rng.integers(2)))
    back = echo(loudspeaker(voice), rng.uniform(-30, -20), rng.uniform(60, 400), response)
    heard = microphone(back, rng, hiss_dbfs=rng.uniform(-80, -60))
    shake = rng.uniform(0, 0.015, len(heard))
    assert starts(listen(vad, heard, bot(voice), shake=shake)) == []


def test_nor_over_a_delay_that_drifts(vad):
    """A loudspeaker's clock 200 ppm slow, over half a minute."""
    rng = np.random.default_rng(1)
    sound = loudspeaker(HOW_ARE_YOU, 30.0)
    late = np.interp(np.arange(len(sound)) / 1.0002, np.arange(len(sound)), sound)
    heard = microphone(echo(late, -20, 150, room(rng)), rng)
    assert starts(listen(vad, heard, bot(HOW_ARE_YOU, 30.0))) == []


@pytest.mark.parametrize("voice", [WEATHER, HOW_ARE_YOU])
def test_nor_when_it_begins_in_the_middle_of_a_call(vad, voice):
    """Behind a canceller that worked for 8 s the guard counts soft sounds too; then the canceller loses the path."""
    rng = np.random.default_rng(2)
    back = echo(loudspeaker(voice, 16.0), -20, 180, room(rng))
    back[: 8 * 16_000] *= 10**-2
    heard = microphone(back, rng)
    assert starts(listen(vad, heard, bot(voice, 16.0))) == []


def test_nor_is_a_tone(vad):
    rng = np.random.default_rng(3)
    said = tone(5.0, 24_000)
    heard = microphone(echo(over_opus(said), -20, 150, room(rng)), rng)
    assert starts(listen(vad, heard, said)) == []


# -- a talker


TALKERS = [*HUMAN, ORATOR, HOW_ARE_YOU]


def delay_of_notice(vad, talker, db, at_s):
    """Milliseconds by which the talker over echo is noticed later than alone."""
    rng = np.random.default_rng(4)
    speech = at_level(clip(talker)[: 3 * 16_000], BOT_DBFS + db)
    back = echo(loudspeaker(WEATHER), -20, 200, room(rng))
    alone = starts(listen(vad, microphone(mixed(np.zeros(0), speech, at_s), rng)))
    over = starts(listen(vad, microphone(mixed(back, speech, at_s), rng), bot(WEATHER)))
    assert over, "the talker was never noticed"
    return over[0] - alone[0]


@pytest.mark.parametrize("talker", TALKERS)
def test_a_talker_as_loud_as_the_bot_is_noticed_as_soon_as_ever(vad, talker):
    assert -100 <= delay_of_notice(vad, talker, 0, 2.5) <= 60


@pytest.mark.parametrize("talker", TALKERS)
@pytest.mark.parametrize("at_s", [0.4, 2.5])
def test_a_softer_talker_is_noticed_too(vad, talker, at_s):
    assert -100 <= delay_of_notice(vad, talker, -10, at_s) <= 400


def test_most_talkers_are_noticed_without_delay(vad):
    for db, most in ((0, 20), (-5, 40)):
        delays = [delay_of_notice(vad, talker, db, 2.5) for talker in TALKERS]
        assert np.median(delays) <= most, f"{db} dB: {delays}"


@pytest.mark.parametrize("talker", TALKERS)
def test_where_nothing_is_played_the_guard_changes_nothing(vad, talker):
    rng = np.random.default_rng(5)
    heard = microphone(mixed(np.zeros(32_000), at_level(clip(talker), -26), 0.5), rng)
    assert listen(vad, heard, np.zeros(0, np.int16)) == listen(vad, heard)


def test_a_talker_after_the_bot_fell_silent_is_heard_as_ever(vad):
    rng = np.random.default_rng(6)
    back = echo(loudspeaker(WEATHER, 2.0), -20, 150, room(rng))
    heard = microphone(mixed(back, at_level(clip(HOW_ARE_YOU), -40), 3.2), rng, hiss_dbfs=-75)
    guarded_starts = starts(listen(vad, heard, bot(WEATHER, 2.0)))
    assert guarded_starts == [at_ms for at_ms in starts(listen(vad, heard)) if at_ms > 3200]


def test_behind_a_working_canceller_a_soft_voice_interrupts(vad):
    """38 dB under the bot: too soft to tell from echo in its first seconds, not when nothing ever comes back."""
    rng = np.random.default_rng(7)
    speech = at_level(clip(HOW_ARE_YOU), BOT_DBFS - 38)
    bots = bot(HUMAN[0], 9.0)
    for at_s, is_noticed in ((0.4, False), (6.0, True)):
        heard = microphone(mixed(np.zeros(0), speech, at_s), rng, hiss_dbfs=-85)
        assert starts(listen(vad, heard))
        assert bool(starts(listen(vad, heard, bots))) is is_noticed


# -- the guard by itself


def test_it_is_not_awake_before_anything_is_played_nor_long_after():
    guard = EchoGuard()
    loud = as_pcm(np.random.default_rng(8).standard_normal(SPAN) * 3000)
    quiet = np.zeros(SPAN, np.int16)
    assert not guard.explains(loud, 5.0)
    assert not guard.explains(quiet, 5.0)
    for n in range(50):
        guard.played(tone(FRAME_S, 24_000), 10 + n * FRAME_S)
    assert guard.explains(quiet, 11.0)
    assert not guard.explains(loud, 11.0), "noise is not like a tone"
    assert not guard.explains(quiet, 11.7)


def test_an_hour_of_playout_and_clocks_that_jump_leave_its_memory_as_it_was():
    guard = EchoGuard()
    frame = tone(FRAME_S, 24_000)
    held = np.zeros(SPAN, np.int16)
    at = 100.0
    rng = np.random.default_rng(9)
    for _ in range(2000):
        at += rng.choice([FRAME_S, 0.0, -0.5, 0.05, 3.0, 4000.0], p=[0.9, 0.02, 0.02, 0.02, 0.02, 0.02])
        guard.played(frame, at)
        guard.explains(held, at + rng.uniform(-2, 2))
        guard.quiet(0.0, at + rng.uniform(-2, 2))
    assert sum(each.nbytes for each in vars(guard).values() if isinstance(each, np.ndarray)) < 120_000


def test_what_leaves_on_the_wire_reaches_the_guard():
    playout, told = Playout(), []
    guard = guarded(playout)
    assert playout.tap == guard.played
    playout.tap = lambda frame, at: told.append((frame.copy(), at))
    outbound = Outbound(
        playout=playout, payload_type=111, ssrc=1, cname="c", send=lambda packet: True, on_event=lambda event: None
    )
    said = bot(WEATHER)[: 5 * FRAME_OUT]
    playout.push(1, said.copy())
    playout.finish(1)
    for n in range(10):
        outbound.run(50 + n * FRAME_S)
    assert np.array_equal(np.concatenate([frame for frame, _ in told]), said)
    assert [at for _, at in told] == pytest.approx([50 + n * FRAME_S for n in range(5)])
