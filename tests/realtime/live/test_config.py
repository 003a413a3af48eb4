"""The session's configuration: merged as given, reported as it is, refused with the field's name."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.live.config import ResponseConfig, SessionConfig
from realtime.live.wire import WireError
from realtime.settings import AgentSettings


def make(**agent) -> SessionConfig:
    return SessionConfig.of_agent("sess_1", "default", AgentSettings(**agent), model="demo", voice="alloy")


def test_the_effective_session_is_complete_and_holds_the_defaults():
    wire = make(instructions="Be brief.").to_wire()
    assert wire["object"] == "realtime.session"
    assert wire["type"] == "realtime"
    assert wire["instructions"] == "Be brief."
    assert wire["output_modalities"] == ["audio"]
    assert wire["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
    assert wire["audio"]["output"]["voice"] == "alloy"


def test_only_what_is_given_changes():
    config = make(instructions="Old.")
    config.update({"type": "realtime", "audio": {"input": {"turn_detection": {"silence_duration_ms": 200}}}})
    assert config.instructions == "Old."
    assert config.turn_detection is not None
    assert config.turn_detection.silence_duration_ms == 200
    assert config.turn_detection.threshold == 0.5


def test_null_turns_detection_off_and_giving_it_again_starts_from_the_defaults():
    config = make()
    config.update({"audio": {"input": {"turn_detection": {"silence_duration_ms": 900}}}})
    config.update({"audio": {"input": {"turn_detection": None}}})
    assert config.turn_detection is None
    assert config.endpoint is None
    config.update({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    assert config.turn_detection is not None
    assert config.turn_detection.silence_duration_ms == 500


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"audio": {"input": {"turn_detection": {"type": "telepathy"}}}}, "session.audio.input.turn_detection.type"),
        ({"audio": {"input": {"turn_detection": {"threshold": 2}}}}, "session.audio.input.turn_detection.threshold"),
        ({"audio": {"output": {"speed": 3}}}, "session.audio.output.speed"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}}, "session.audio.input.format.rate"),
        ({"audio": 7}, "session.audio"),
        ({"instructions": 5}, "session.instructions"),
        ({"tools": [{"type": "function"}]}, "session.tools[0].name"),
        ({"tool_choice": "x"}, "session.tool_choice"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"output_modalities": ["audio", "text"]}, "session.output_modalities"),
        ({"truncation": 7}, "session.truncation"),
        ({"type": "other"}, "session.type"),
        ({"parallel_tool_calls": "perhaps"}, "session.parallel_tool_calls"),
        ({"reasoning": {"effort": 5}}, "session.reasoning.effort"),
        ({"audio": {"input": {"transcription": {"delay": "long"}}}}, "session.audio.input.transcription.delay"),
        ({"audio": {"input": {"transcription": {"keywords": "x"}}}}, "session.audio.input.transcription.keywords"),
    ],
)
def test_a_wrong_value_is_named_and_changes_nothing(change, param):
    config = make()
    before = copy.deepcopy(config.to_wire())
    with pytest.raises(WireError) as error:
        config.update({"instructions": "New."} | change, "ev_1")
    assert (error.value.param, error.value.code, error.value.event_id) == (param, "invalid_value", "ev_1")
    assert config.to_wire() == before


def test_locked_fields_keep_their_values():
    config = make(instructions="Mine.", locked=["instructions", "tools"])
    config.update({"instructions": "Yours.", "tools": [{"type": "function", "name": "x"}], "max_output_tokens": 5})
    assert config.instructions == "Mine."
    assert config.to_wire()["tools"] == []
    assert config.to_wire()["max_output_tokens"] == 5


def test_the_model_a_client_names_is_not_an_error_and_not_taken():
    config = make()
    config.update({"model": "gpt-realtime-2.1"})
    assert config.to_wire()["model"] == "demo"


def test_the_voice_is_fixed_by_the_first_audio():
    config = make()
    config.update({"audio": {"output": {"voice": {"id": "echo"}}}})
    assert config.voice == "echo"
    config.voice_fixed = True
    config.update({"audio": {"output": {"voice": "echo"}}})
    with pytest.raises(WireError) as error:
        config.update({"audio": {"output": {"voice": "ash"}}})
    assert error.value.code == "cannot_update_voice"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10_000) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.dictionaries(
    st.sampled_from(
        ["type", "model", "instructions", "audio", "tools", "tool_choice", "include", "tracing", "prompt", "x"]
    )
    | st.sampled_from(["output_modalities", "max_output_tokens", "truncation"]),
    json_values
    | st.fixed_dictionaries({}, optional={"input": json_values, "output": json_values})
    | st.fixed_dictionaries(
        {"input": st.fixed_dictionaries({}, optional={"turn_detection": json_values, "transcription": json_values})}
    ),
    max_size=5,
)


@given(fields)
def test_any_update_is_taken_or_refused_and_the_session_stays_whole(change):
    config = make()
    refused = None
    try:
        config.update(change)
    except WireError as error:
        refused = error
    assert refused is None or (refused.param or "").startswith("session")
    assert set(config.to_wire()) >= set(make().to_wire())
    assert config.voice
    assert config.speed
    config.turn_detection, config.language, config.transcription_prompt  # noqa: B018
    ResponseConfig.of(config, None, None)


def test_a_response_overrides_the_session_for_itself_only():
    config = make(instructions="Session.")
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    choice = {"type": "function", "name": "f"}
    response = ResponseConfig.of(
        config, {"instructions": "Once.", "output_modalities": ["text"], "tools": tools, "tool_choice": choice}, None
    )
    assert (response.instructions, response.modality, response.tool_choice) == ("Once.", "text", "tool:f")
    assert [tool.name for tool in response.tools] == ["f"]
    assert config.instructions == "Session."


def test_a_voice_that_nobody_has_is_refused_by_name():
    config = make()
    config.voices = frozenset({"alloy", "ash"})
    config.update({"audio": {"output": {"voice": {"id": "ash"}}}})
    assert config.voice == "ash"
    for change in ({"audio": {"output": {"voice": "nobody"}}}, {"audio": {"output": {"voice": {"id": "nobody"}}}}):
        with pytest.raises(WireError) as refusal:
            config.update(change, "ev_1")
        assert (refusal.value.param, refusal.value.event_id) == ("session.audio.output.voice", "ev_1")
        assert "alloy, ash" in refusal.value.message
    with pytest.raises(WireError) as refusal:
        ResponseConfig.of(config, {"audio": {"output": {"voice": "nobody"}}}, None)
    assert refusal.value.param == "response.audio.output.voice"
    assert config.voice == "ash"


def test_a_format_is_replaced_as_a_whole():
    config = make()
    config.update({"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    assert config.to_wire()["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    config.update({"audio": {"input": {"format": None}, "output": {"format": {"type": "audio/pcm"}}}})
    assert config.to_wire()["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert config.to_wire()["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
    config.update({"audio": {"input": {"format": {"type": "audio/pcm"}}}})
    assert config.to_wire()["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_a_response_has_the_format_of_the_session_and_no_other():
    config = make()
    pcmu = {"type": "audio/pcmu"}
    config.update({"audio": {"output": {"format": pcmu}}})
    response = ResponseConfig.of(config, {"audio": {"output": {"format": pcmu}}}, None)
    assert response.output_format["type"] == "audio/pcmu"
    with pytest.raises(WireError) as refusal:
        ResponseConfig.of(config, {"audio": {"output": {"format": {"type": "audio/pcm"}}}}, "ev_1")
    assert (refusal.value.param, refusal.value.event_id) == ("response.audio.output.format", "ev_1")


def test_a_response_may_stand_outside_the_conversation_with_its_own_context():
    response = ResponseConfig.of(make(), {"conversation": "none", "input": [], "metadata": {"topic": "x"}}, None)
    assert (response.in_conversation, response.input, response.metadata) == (False, (), {"topic": "x"})


def test_semantic_vad_is_filled_with_its_defaults_and_waits_by_the_words():
    config = make()
    config.update({"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}})
    assert config.to_wire()["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }
    config.update({"audio": {"input": {"turn_detection": {"eagerness": "low"}}}})
    assert config.to_wire()["audio"]["input"]["turn_detection"]["eagerness"] == "low"
    assert config.endpoint.silence_duration_ms == 300


def test_a_transcription_session_reports_its_own_shape_and_answers_nothing():
    config = make()
    config.data["type"] = "transcription"
    wire = config.to_wire()
    assert (wire["type"], wire["object"]) == ("transcription", "realtime.transcription_session")
    assert set(wire["audio"]) == {"input"}
    assert not config.creates_responses
    with pytest.raises(WireError) as error:
        config.update({"type": "realtime"})
    assert error.value.param == "session.type"
