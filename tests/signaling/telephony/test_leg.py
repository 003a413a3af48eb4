"""A call over a carrier's socket under a virtual clock: heard, spoken, cut, keys, silence, the end, and hostility."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.audio import Pcm
from media.g711 import ulaw_decode, ulaw_encode
from media.leg import SendsKeys, Transfers
from media.pacer import Pacer
from media.playout import PlayoutEventKind
from signaling.telephony.carrier import CarrierError, Message, Started
from signaling.telephony.leg import MAX_UNSENT_BYTES, CarrierLeg, Patience
from tests.signaling.telephony.test_carriers import MESSAGES, STARTS, frame

SPEECH = (8000 * np.sin(np.arange(24_000) / 10)).astype(np.int16)
SPEECH_MULAW = ulaw_encode((8000 * np.sin(np.arange(160) / 3)).astype(np.int16))
QUIET_MULAW = b"\xff" * 160


class Clock:
    """The clock, and the pacer of one leg."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ticked = self.polled = self.watched = False

    def __call__(self) -> float:
        return self.now

    def add(self, leg: object, now: float) -> None:
        self.ticked = True

    def remove(self, leg: object) -> None:
        self.ticked = False

    def poll(self, leg: object, now: float | None = None) -> None:
        self.polled = True

    def unpoll(self, leg: object) -> None:
        self.polled = False

    def watch(self, leg: object) -> None:
        self.watched = True

    def unwatch(self, leg: object) -> None:
        self.watched = False


class Timers:
    """An event loop's, for a real pacer; each fires up to `late_s` late."""

    clock: Clock

    def __init__(self) -> None:
        self._due: list[list[Any]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        entry = [self.clock.now + delay, callback]
        self._due.append(entry)
        return SimpleNamespace(cancel=lambda: self._due.remove(entry) if entry in self._due else None)

    def run(self, seconds: float, late_s: float) -> None:
        self.clock.now += seconds
        for entry in [entry for entry in self._due if entry[0] + late_s <= self.clock.now]:
            if entry in self._due:
                self._due.remove(entry)
                entry[1]()


class Heard:
    """What the leg tells."""

    def __init__(self) -> None:
        self.pcm: list[Pcm] = []
        self.keys: list[str] = []
        self.playout: list[PlayoutEventKind] = []
        self.closed: list[str] = []

    def on_open(self) -> None: ...

    def on_audio(self, pcm: Pcm, arrived_at: float) -> None:
        assert self.closed == [], "nothing comes after the end"
        assert 1 <= len(pcm) <= 1920
        assert pcm.dtype == np.int16
        self.pcm.append(pcm)

    def on_key(self, key: str) -> None:
        self.keys.append(key)

    def on_playout(self, event: Any) -> None:
        assert self.closed == []
        self.playout.append(event.kind)

    def on_closed(self, reason: str) -> None:
        self.closed.append(reason)

    @property
    def ms(self) -> float:
        return sum(len(pcm) for pcm in self.pcm) / 16


class Line:
    """A leg that is open, and the far end of its socket."""

    def __init__(self, name: str = "twilio", *, patience: Patience | None = None, **options: Any) -> None:
        carrier, first = STARTS[name]
        stream = carrier.stream(None, {})
        [started] = stream.decode(first)
        assert isinstance(started, Started)
        self.clock, self.heard = Clock(), Heard()
        self.leg = CarrierLeg(
            stream,
            started,
            self.clock,  # type: ignore[arg-type]
            patience=patience or Patience(inactivity_s=15.0, silence_s=None),
            clock=self.clock,
            **options,
        )
        self.leg.attach(self.heard)  # type: ignore[arg-type]
        self.leg.open()

    def run(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        for step in range(round(seconds / 0.02)):
            self.clock.now += 0.02
            each()
            if self.clock.ticked:
                self.leg.on_tick(self.clock.now)
            if self.clock.polled and step % 2 == 0:
                self.leg.on_poll(self.clock.now)
            if self.clock.watched and step % 12 == 0:
                self.leg.on_watch(self.clock.now)

    def sent(self) -> list[Message]:
        """What waits to be written."""

        async def take() -> list[Message]:
            messages = []
            while self.leg._unsent:
                message = await self.leg.unsent()
                assert message is not None
                messages.append(message)
            return messages

        return asyncio.run(take()) if self.leg._unsent else []

    def events(self) -> list[tuple[str, Any]]:
        """Twilio's messages: kinds, and samples or names."""
        found: list[tuple[str, Any]] = []
        for message in self.sent():
            data = json.loads(message)
            body: Any = data.get("mark", {}).get("name")
            if data["event"] == "media":
                body = ulaw_decode(base64.b64decode(data["media"]["payload"]))
            found.append((data["event"], body))
        return found


def media(payload: bytes = SPEECH_MULAW, at_ms: int | None = None) -> str:
    body = {"payload": base64.b64encode(payload).decode(), **({} if at_ms is None else {"timestamp": str(at_ms)})}
    return json.dumps({"event": "media", "media": body})


# --- hearing ------------------------------------------------------------------------------------------


def test_audio_of_any_length_is_heard() -> None:
    for size in (0, 1, 3, 160, 161, 8000):
        line = Line()
        line.leg.take(media(b"\x10" * size))
        assert line.heard.ms == pytest.approx(size / 8, abs=1.0)
        assert line.heard.closed == []


@pytest.mark.parametrize("cut", [1, 7, 319, 320, 321, 640])
def test_samples_that_are_cut_in_two_are_put_together(cut: int) -> None:
    """Binary L16 in pieces of odd lengths is the same as in one."""
    pcm = (8000 * np.sin(np.arange(3200) / 7)).astype("<i2").tobytes()
    whole, pieces = Line("vonage"), Line("vonage")
    whole.leg.take(pcm)
    for at in range(0, len(pcm), cut):
        pieces.leg.take(pcm[at : at + cut])
    assert np.array_equal(np.concatenate(whole.heard.pcm), np.concatenate(pieces.heard.pcm))


def test_audio_that_was_lost_is_made_up_for_with_silence_up_to_a_second() -> None:
    line = Line()
    for at in (0, 20, 100):
        line.leg.take(media(at_ms=at))
    assert line.heard.ms == pytest.approx(120, abs=2)
    assert line.leg.stats()["lost_ms"] == 60
    line.leg.take(media(at_ms=100_000))
    assert line.heard.ms == pytest.approx(1140, abs=2)


def test_time_that_goes_back_is_not_believed() -> None:
    line = Line()
    for at in (1000, 0, 20):
        line.leg.take(media(at_ms=at))
    assert line.heard.ms == pytest.approx(60, abs=2)


def test_who_sends_faster_than_time_passes_is_hung_up_on() -> None:
    line = Line()
    for _ in range(11):
        line.leg.take(media(b"\xff" * 8000))
    assert line.heard.closed == ["too_fast"]


# --- speaking -----------------------------------------------------------------------------------------


def test_no_more_than_a_second_is_sent_ahead() -> None:
    line = Line()
    for _ in range(5):
        line.leg.playout.push(1, SPEECH.copy())
    line.leg.playout.finish(1)
    line.leg.wake()
    first = sum(len(body) for kind, body in line.events() if kind == "media")
    assert 600 <= first / 8 <= 1000
    line.run(2.0)
    more = sum(len(body) for kind, body in line.events() if kind == "media")
    assert (first + more) / 8 <= 2000 + 1000


def test_a_cut_takes_back_what_was_not_written_then_flushes_and_nothing_old_follows() -> None:
    line = Line()
    for _ in range(3):
        line.leg.playout.push(1, SPEECH.copy())
    line.leg.wake()
    line.leg.playout.cut(1)
    assert line.events() == [("clear", None)], "audio and marks that were still here are gone"
    assert line.leg.playout.push(1, SPEECH.copy()) is False
    line.run(1.0)
    assert line.events() == []
    line.leg.playout.push(2, SPEECH.copy())
    line.leg.wake()
    assert line.events()[0][0] == "media"


def test_an_utterance_is_done_when_its_mark_comes_back() -> None:
    line = Line()
    line.leg.playout.push(1, SPEECH.copy())
    line.leg.playout.finish(1)
    line.leg.wake()
    line.run(1.5)
    names = [name for kind, name in line.events() if kind == "mark"]
    assert PlayoutEventKind.DONE not in line.heard.playout
    for name in ("unknown", *names):
        line.leg.take(json.dumps({"event": "mark", "mark": {"name": name}}))
    assert line.heard.playout[-1] is PlayoutEventKind.DONE
    line.run(0.1)
    assert not line.clock.polled, "nobody asks for time any more"


def test_a_carrier_whose_queue_is_full_is_sent_nothing_until_it_has_room() -> None:
    line = Line("asterisk")
    line.leg.take("MEDIA_XOFF")
    line.leg.playout.push(1, SPEECH.copy())
    line.leg.wake()
    line.run(0.2)
    assert line.sent() == []
    line.leg.take("MEDIA_XON")
    line.run(0.1)
    assert line.sent() != []


def test_who_does_not_read_is_hung_up_on() -> None:
    line = Line(patience=Patience(inactivity_s=1000.0))
    line.leg.playout.push(1, SPEECH.copy())
    for generation in range(2, 100):
        line.leg.playout.finish(generation - 1)
        line.leg.playout.push(generation, SPEECH.copy())
        line.leg.wake()
        line.run(1.0)
        if line.heard.closed:
            break
    assert line.heard.closed == ["slow_reader"]
    assert line.leg._unsent_bytes <= MAX_UNSENT_BYTES + 10_000


def test_where_we_are_the_clock_a_frame_goes_out_every_20_ms() -> None:
    line = Line("audiosocket")
    line.leg.playout.push(1, SPEECH.copy())
    line.leg.wake()
    counts = []
    line.run(0.5, lambda: counts.append(len(line.sent())))
    assert line.clock.ticked
    assert max(counts) <= 2
    assert sum(counts) == pytest.approx(25, abs=2)


# --- keys -----------------------------------------------------------------------------------------------


def test_pressed_keys_are_tones_at_once_and_no_more_ahead_than_speech() -> None:
    line = Line()
    assert isinstance(line.leg, SendsKeys)
    line.leg.send_keys("15,#")
    pieces = [body for kind, body in line.events() if kind == "media"]
    assert sum(len(piece) for piece in pieces) / 8 <= 1000
    line.run(2.0)
    pcm = np.concatenate([*pieces, *(body for kind, body in line.events() if kind == "media")])
    assert len(pcm) / 8 == pytest.approx(3 * 200 + 500, abs=20)
    assert tones(pcm[80:800]) == (697, 1209)
    assert tones(pcm[1680:2400]) == (770, 1336)
    assert tones(pcm[7280:8000]) == (941, 1477)


def tones(pcm: Pcm) -> tuple[int, int]:
    """The row and the column, by their strength."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)), 8000))
    return tuple(max(group, key=lambda hz: spectrum[hz]) for group in (ROWS, COLUMNS))  # type: ignore[return-value]


ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)


def test_keys_do_not_count_as_heard_speech() -> None:
    line = Line("audiosocket")
    line.leg.playout.push(1, SPEECH.copy())
    line.leg.wake()
    line.run(0.2)
    line.leg.send_keys("1")
    line.run(0.3)
    assert line.leg.playout.cut(1)[0].heard_ms == pytest.approx(300, abs=50)


@pytest.mark.parametrize("keys", ["", "x", "1 2", "１", "1" * 65])
def test_what_is_no_key_is_an_error(keys: str) -> None:
    line = Line()
    with pytest.raises(ValueError, match="keys"):
        line.leg.send_keys(keys)
    assert line.sent() == []


def test_keys_that_wait_are_bounded() -> None:
    line = Line()
    for _ in range(2):
        line.leg.send_keys("1" * 64)
    with pytest.raises(ValueError, match="waiting"):
        line.leg.send_keys("1")


# --- transfer -------------------------------------------------------------------------------------------


async def test_a_transfer_is_the_carriers() -> None:
    targets: list[str] = []

    async def transfer(target: str) -> None:
        targets.append(target)

    line = Line(transfer=transfer)
    assert isinstance(line.leg, Transfers)
    assert line.leg.abilities.transfer
    await line.leg.transfer("+15550002222")
    assert targets == ["+15550002222"]
    assert line.heard.closed == [], "the carrier ends the stream"
    none = Line()
    assert not none.leg.abilities.transfer
    with pytest.raises(CarrierError):
        await none.leg.transfer("+15550002222")


# --- silence and the end ----------------------------------------------------------------------------------


def test_a_carrier_that_says_nothing_is_gone() -> None:
    line = Line(patience=Patience(inactivity_s=5.0))
    line.run(4.5)
    assert line.heard.closed == []
    line.run(1.0)
    assert line.heard.closed == ["inactivity"]
    assert not line.clock.watched


def test_when_nobody_speaks_the_call_ends() -> None:
    line = Line(patience=Patience(silence_s=5.0))
    line.run(3.0, lambda: line.leg.take(media(SPEECH_MULAW)))
    line.run(4.5, lambda: line.leg.take(media(QUIET_MULAW)))
    assert line.heard.closed == []
    line.run(1.0, lambda: line.leg.take(media(QUIET_MULAW)))
    assert line.heard.closed == ["silence"]


def test_while_the_bot_speaks_there_is_no_silence() -> None:
    line = Line(patience=Patience(silence_s=5.0))
    for _ in range(8):
        line.leg.playout.push(1, SPEECH.copy())
    line.leg.wake()
    line.run(7.0, lambda: line.leg.take(media(QUIET_MULAW)))
    assert line.heard.closed == []


async def test_the_end_is_told_once_and_said_to_the_carrier() -> None:
    line = Line("asterisk")
    line.leg.playout.push(1, SPEECH.copy())
    line.leg.wake()
    await line.leg.close("hangup")
    await line.leg.close("again")
    line.leg.take("DTMF_END digit:5")
    line.leg.wake()
    assert line.heard.closed == ["hangup"]
    assert line.heard.keys == []
    assert [await line.leg.unsent() for _ in range(2)] == ["HANGUP", None]
    assert not line.clock.polled


async def test_nothing_is_said_to_a_carrier_that_has_gone() -> None:
    line = Line("audiosocket")
    line.leg.take(frame(0x00, b""))
    assert line.heard.closed == ["remote_closed"]
    assert await line.leg.unsent() is None


# --- what is hostile --------------------------------------------------------------------------------------


def test_a_message_that_nobody_would_send_ends_the_call_and_no_more() -> None:
    line = Line()
    line.leg.take("not json")
    line.leg.take(media())
    assert line.heard.closed == ["protocol_error"]
    assert line.heard.pcm == []


@pytest.mark.parametrize("name", STARTS)
@given(st.lists(st.tuples(MESSAGES, st.integers(0, 400), st.booleans()), max_size=12))
@settings(max_examples=30, deadline=None)
def test_whatever_comes_the_leg_raises_nothing(name: str, messages: list[tuple[Message, int, bool]]) -> None:
    """Any messages in any order, cut short, while the bot speaks and is cut."""
    line = Line(name)
    line.leg.playout.push(1, SPEECH.copy())
    line.leg.wake()
    generation = 1
    for message, cut, interrupts in messages:
        line.leg.take(message[: len(message) - cut] if cut < len(message) else message)
        line.run(0.06)
        if interrupts:
            line.leg.playout.cut(generation)
            generation += 1
            line.leg.playout.push(generation, SPEECH.copy()[:9600])
            line.leg.wake()
    line.run(0.2)
    assert len(line.heard.closed) <= 1


@pytest.mark.parametrize("offset_ms", range(0, 40, 3))
def test_the_rest_of_an_answer_leaves_at_a_steady_pace_whenever_it_began(offset_ms: int) -> None:
    line, timers = Line(), Timers()
    pacer = Pacer(clock=line.clock, call_later=timers.call_later)
    timers.clock = line.clock
    line.leg._pacer = pacer
    line.clock.now += offset_ms / 1000
    answer = np.concatenate([SPEECH] * 4)
    chunk = 24 * (150 + 5 * offset_ms)
    for start in range(0, len(answer), chunk):  # an engine gives it in pieces
        line.leg.playout.push(1, answer[start : start + chunk])
        line.leg.wake()
    line.sent()
    sent_at: list[float] = []
    chance = random.Random(offset_ms)
    for _ in range(3000):
        timers.run(0.001, late_s=chance.uniform(0, 0.004))
        sent_at += [line.clock.now for kind, _ in line.events() if kind == "media"]
    assert len(sent_at) > 10
    assert all(after - before == pytest.approx(0.2, abs=0.006) for before, after in pairwise(sent_at))
