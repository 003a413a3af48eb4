"""Client messages become events; long ones are taken apart without parsing their sound."""

from __future__ import annotations

import json

import pytest

from realtime.live import wire

SOUND = "A" * (wire.LONG + 4)


def message(**event: object) -> str:
    return json.dumps(event)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_long_append_keeps_its_sound_and_its_id(indent):
    event = {"event_id": "ev_1", "type": "input_audio_buffer.append", "audio": SOUND}
    parsed = wire.parse(json.dumps(event, indent=indent))
    assert isinstance(parsed, wire.InputAudioBufferAppend)
    assert (parsed.audio, parsed.event_id) == (SOUND, "ev_1")


def test_sound_within_an_item_or_with_escapes_is_parsed_as_ever():
    content = [{"type": "input_audio", "audio": SOUND}]
    item = {"type": "message", "role": "user", "content": content}
    parsed = wire.parse(message(type="conversation.item.create", item=item))
    assert isinstance(parsed, wire.ItemCreate)
    assert parsed.item.content[0].audio == SOUND
    escaped = message(type="input_audio_buffer.append", audio=SOUND + "/").replace("/", "\\/")
    parsed = wire.parse(escaped)
    assert isinstance(parsed, wire.InputAudioBufferAppend)
    assert parsed.audio == SOUND + "/"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"type":"input_audio_buffer.append","audio":"' + SOUND, "invalid_json"),
        ('{"audio":"' + SOUND + '"}', "unknown_event"),
        ('["audio":"' + SOUND + '"]', "invalid_json"),
        (message(type="session.update", session={"x": "y" * wire.MAX_EVENT}), "event_too_large"),
    ],
)
def test_long_nonsense_is_refused(text, code):
    with pytest.raises(wire.WireError) as error:
        wire.parse(text)
    assert error.value.code == code
