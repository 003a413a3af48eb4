"""A greeting in call after call: the voice says it once, and every call hears, records and cuts it as its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from tests.calls.caller import Caller, clip, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import Server
from tests.calls.test_recording import ended, loud, sound
from tests.calls.test_websocket import Socket
from tests.calls.test_websocket import dial as open_socket
from tests.media.webrtc import rms, until

GREETING = "Good morning, you have reached the front desk."
OTHER = "Good evening, this is the office, and nobody is here before nine."
CONFIG = f"""
[agents.greeter]
greeting = "{GREETING}"
chat = "instant"
recording = true

[agents.office]
greeting = "{OTHER}"
chat = "instant"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the embedded voice: unlike a tone, it shows which part is heard."""
    with Server(tmp_path_factory.mktemp("greetings"), config=CONFIG) as running:
        yield running


@asynccontextmanager
async def over_socket(server: Server, agent: str = "greeter") -> AsyncIterator[Socket]:
    async with open_socket(server, key=str((await server.token(agent=agent))["token"])) as socket:
        await socket.until("response.done")
        yield socket


async def spoken(server: Server, session: str) -> int:
    """Characters that a voice was given in this call."""
    record = await ended(server, session)
    return sum(part["characters"] for part in record["cost"]["engines"] if part["kind"] == "tts")


async def greeted(caller: Caller) -> np.ndarray:
    """What was heard until the greeting was over, from where it began to sound."""
    await caller.wait_for("output_audio_buffer.stopped")
    await until(lambda: rms(caller.sound()[-4800:]) < 50, "its end was heard")
    heard = caller.sound().astype(float)
    return heard[int(np.argmax(np.abs(heard) > 500)) :]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The best correlation of two sounds, 1 for the same."""
    one, other = one[:38_400], other[:38_400]
    size = 1 << 17
    spectrum = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    return float(np.fft.irfft(spectrum, size).max() / (np.linalg.norm(one) * np.linalg.norm(other)))


async def test_calls_after_the_first_are_told_the_same_without_a_voice_whatever_they_come_over(server: Server) -> None:
    async with over_socket(server) as first, over_socket(server) as second:
        pass
    # At the same time, the first two may both have asked for it.
    async with over_socket(server) as third:
        assert third.audio() == second.audio() == first.audio()
        assert third.types() == second.types() == first.types()
    assert await spoken(server, first.events[0]["session"]["id"]) == len(GREETING)
    assert await spoken(server, third.events[0]["session"]["id"]) == 0
    heard = []
    for _ in range(2):
        async with dial(server, agent="greeter") as caller:
            heard.append(await greeted(caller))
            session = caller.session_id
            caller.ask("Go on.")
            await caller.wait_for("response.output_audio_transcript.delta")
            before = len(caller.sound())
            await until(lambda start=before: rms(caller.sound()[start:][-4800:]) > 1000, "an answer was heard")
        record: dict[str, Any] = await ended(server, session)
        assert record["transcript"][0]["text"] == GREETING
        assert 0 < await spoken(server, session) != len(GREETING)
        _, recorded = await sound(server, record["recording"])
        recorded = recorded[int(np.argmax(np.abs(recorded) > 0.015)) :]
        assert likeness(heard[-1], recorded) > 0.9, "the recording holds what was heard"
    assert likeness(heard[0], heard[1]) > 0.95
    wave = np.frombuffer(third.audio(), np.int16).astype(float)
    sounding = np.repeat(wave[int(np.argmax(np.abs(wave) > 500)) :], 2)
    assert likeness(heard[1], sounding) > 0.9


async def test_of_a_kept_greeting_as_many_words_were_heard_as_of_one_that_was_made_for_the_call(server: Server) -> None:
    heard, characters = [], []
    for _ in range(2):
        async with over_socket(server, "office") as socket:
            item = socket.events[-1]["response"]["output"][0]["id"]
            texts = []
            for ms in (2000, 1300, 600):
                await socket.send(type="conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=ms)
                await socket.until("conversation.item.truncated")
                await socket.send(type="conversation.item.retrieve", item_id=item)
                texts.append((await socket.until("conversation.item.retrieved"))["item"]["content"][0]["transcript"])
        heard.append(texts)
        characters.append(await spoken(server, socket.events[0]["session"]["id"]))
    assert characters[0] > 0 == characters[1]
    assert heard[0] == heard[1]
    assert len(set(heard[0])) == 3
    assert all(OTHER.startswith(text) for text in heard[0])


@pytest.mark.parametrize("by", ["speech", "request"])
async def test_a_kept_greeting_is_cut_like_any_other_and_keeps_the_words_that_were_heard(
    server: Server, by: str
) -> None:
    async with over_socket(server):
        pass
    async with dial(server, agent="greeter") as caller:
        await caller.wait_for("output_audio_buffer.started")
        await until(lambda: len(caller.sound()) > 48_000 and rms(caller.sound()[-2400:]) > 500, "its words are heard")
        if by == "speech":
            await caller.microphone.say(clip(HOW_ARE_YOU))
        else:
            caller.send({"type": "output_audio_buffer.clear"})
        await caller.wait_for("output_audio_buffer.cleared")
        cut = await caller.wait_for("conversation.item.truncated")
        session = caller.session_id
    assert 300 < cut["audio_end_ms"] < 2500
    record = await ended(server, session)
    text = record["transcript"][0]["text"]
    assert GREETING.startswith(text)
    assert 0 < len(text) < len(GREETING)
    assert record["turns"][0]["heard_ms"] == pytest.approx(cut["audio_end_ms"], abs=1)
    _, recorded = await sound(server, record["recording"])
    begin, end = loud(recorded)[0]
    assert (end - begin) * 1000 <= cut["audio_end_ms"] + 100, "nothing of what was cut"
