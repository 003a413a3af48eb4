"""Calls over a network that loses, delays, reorders: speech is understood, nothing is stuck, keys are told."""

from __future__ import annotations

import re
import struct

import pytest

from tests.calls.caller import RATE, clip, dial
from tests.calls.conftest import HOW_ARE_YOU, WEATHER
from tests.calls.server import Server
from tests.media.lossy import BAD, CLEAN, Link
from tests.words import word_errors

HEARD = "conversation.item.input_audio_transcription.completed"
EVENTS = 110
"""Payload type of pressed keys."""
NOTHING = Link(outages=((0, 1_000_000),))
NO_ANSWER = {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}
SAID = (
    (HOW_ARE_YOU, "hello how are you today"),
    (WEATHER, "what is the weather like in london tomorrow"),
)


async def test_speech_over_a_bad_network_is_understood(server: Server):
    pytest.importorskip("pocketsphinx", reason="words need the extra `local`")
    async with dial(server, cable=True, session={"type": "realtime", "audio": NO_ANSWER}) as caller:
        caller.cable.worsen(BAD, seed=1)
        errors = 0
        for path, words in SAID:
            await caller.microphone.say(clip(path))
            errors += word_errors(words, (await caller.wait_for(HEARD))["transcript"])
        stats = await caller.stats()
    assert errors / sum(len(words.split()) for _, words in SAID) <= 0.15
    assert stats["packets_lost"] > 0
    assert stats["packets_late"] / stats["packets_received"] <= 0.01


async def test_an_utterance_is_over_when_nothing_more_comes(instant: Server):
    """Its sound stops in the middle of a word, and no silence is sent: the end is noticed all the same."""
    async with dial(instant, cable=True, session={"type": "realtime", "audio": NO_ANSWER}) as caller:
        speech = clip(HOW_ARE_YOU)[: RATE * 3 // 2]
        caller.microphone.start(speech)
        began = await caller.wait_for("input_audio_buffer.speech_started")
        await caller.microphone.say(speech[:0])
        caller.cable.worsen(NOTHING, seed=0, down=CLEAN)
        over = await caller.wait_for("input_audio_buffer.speech_stopped", seconds=5)
    assert over["audio_end_ms"] - began["audio_start_ms"] > 1000


async def test_keys_pressed_in_a_call_are_told(instant: Server):
    def with_keys(offer: str) -> str:
        return re.sub(r"(m=audio .*)\r\n", rf"\1 {EVENTS}\r\na=rtpmap:{EVENTS} telephone-event/48000\r\n", offer)

    async with dial(instant, speaks=False, edit_offer=with_keys) as caller:
        transport = caller.connection.getTransceivers()[0].sender.transport
        for press, code in enumerate([11, 4]):
            for again, end in enumerate([0, 0, 0x80, 0x80, 0x80]):
                header = struct.pack("!BBHII", 0x80, EVENTS, press * 5 + again, press * 9600, 1)
                await transport._send_rtp(header + struct.pack("!BBH", code, end | 10, (again + 1) * 960))
        keys = [await caller.wait_for("input_audio_buffer.dtmf_event_received") for _ in range(2)]
        assert f"a=rtpmap:{EVENTS} telephone-event/48000" in caller.answered.decode()
    assert [key["event"] for key in keys] == ["#", "4"]
    assert len(caller.of("input_audio_buffer.dtmf_event_received")) == 2
