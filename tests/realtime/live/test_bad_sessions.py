"""Every field of `session.update`, with a wrong type and out of its range, is refused by its name."""

from __future__ import annotations

import copy
import json
import types
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from realtime.live.config import SessionFields
from tests.realtime.live.simulation import Simulation

OBJECT = {"a": "b"}
LONG = "x" * 200_000
VAD = "audio.input.turn_detection"

BAD: dict[str, list[Any]] = {
    "type": [5, "translation"],
    "model": [5, LONG],
    "instructions": [5, OBJECT, LONG],
    "output_modalities": ["audio", [], ["audio", "text"], ["video"], [5]],
    "audio": [5, "loud"],
    "audio.input": [5],
    "audio.input.format": [5, "pcm16"],
    "audio.input.format.type": [5, "audio/mp3"],
    "audio.input.format.rate": ["fast", 16000],
    "audio.input.transcription": [5, "whisper"],
    "audio.input.transcription.model": [5, LONG],
    "audio.input.transcription.language": [5, LONG],
    "audio.input.transcription.prompt": [5, LONG],
    "audio.input.transcription.languages": ["en", [5], ["en"] * 100],
    "audio.input.transcription.keywords": ["table", [5], ["x"] * 2000],
    "audio.input.transcription.delay": [5, "long"],
    "audio.input.noise_reduction": [5, "near_field"],
    "audio.input.noise_reduction.type": [5, "outer_space"],
    "audio.input.noise_reduction.strength": ["much", -1, 2],
    VAD: [5, "server_vad"],
    f"{VAD}.type": [5, "telepathy"],
    f"{VAD}.threshold": ["high", -0.1, 1.1],
    f"{VAD}.prefix_padding_ms": ["much", -1, 100_000],
    f"{VAD}.silence_duration_ms": ["much", 0, 100_000],
    f"{VAD}.idle_timeout_ms": ["long", 1, 100_000],
    f"{VAD}.eagerness": [5, "very"],
    f"{VAD}.create_response": ["perhaps", OBJECT],
    f"{VAD}.interrupt_response": ["perhaps", OBJECT],
    "audio.output": [5],
    "audio.output.format": [5],
    "audio.output.format.type": [5, "audio/mp3"],
    "audio.output.format.rate": ["fast", 44100],
    "audio.output.voice": [5, LONG],
    "audio.output.voice.id": [5, LONG],
    "audio.output.speed": ["fast", 0.1, 2],
    "tools": [OBJECT, [5], [{"type": "function", "name": "f"}] * 200],
    "tools.type": [5, "mcp"],
    "tools.name": [5, "a b", ""],
    "tools.description": [5, LONG],
    "tools.parameters": [5, "{}"],
    "tool_choice": [5, "f", "mcp"],
    "tool_choice.type": [5, "mcp"],
    "tool_choice.name": [5, "a b"],
    "parallel_tool_calls": ["perhaps", OBJECT],
    "reasoning": [5],
    "reasoning.effort": [5, LONG],
    "max_output_tokens": ["many", 0, 5000],
    "truncation": [5, "none"],
    "truncation.type": [5, "summary"],
    "truncation.retention_ratio": ["half", 0, 2],
    "truncation.token_limits": [5],
    "truncation.token_limits.post_instructions": ["many", -1],
    "tracing": [5, "manual"],
    "prompt": [5, {"id": "pmpt_1"}],
    "include": ["logprobs", [5]],
}

# What stands around a field so that it is the only one which is wrong.
AROUND: dict[str, dict[str, Any]] = {
    f"{VAD}.eagerness": {"type": "semantic_vad"},
    "audio.input.format.rate": {"type": "audio/pcm"},
    "audio.output.format.rate": {"type": "audio/pcm"},
    "audio.input.noise_reduction.strength": {"type": "near_field"},
    "tools.type": {"name": "f"},
    "tools.name": {"type": "function"},
    "tools.description": {"type": "function", "name": "f"},
    "tools.parameters": {"type": "function", "name": "f"},
    "tool_choice.type": {"name": "f"},
    "tool_choice.name": {"type": "function"},
    "truncation.type": {"retention_ratio": 0.5},
    "truncation.retention_ratio": {"type": "retention_ratio"},
    "truncation.token_limits": {"type": "retention_ratio", "retention_ratio": 0.5},
    "truncation.token_limits.post_instructions": {},
}
OUTER: dict[str, dict[str, Any]] = {"truncation": {"type": "retention_ratio", "retention_ratio": 0.5}}


def fields(model: type[BaseModel], path: str = "") -> set[str]:
    found: set[str] = set()
    for name, info in model.model_fields.items():
        found.add(path + name)
        for inner in models(info.annotation):
            found |= fields(inner, f"{path}{name}.")
    return found


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Literal, dict):
        return []
    if get_origin(annotation) in (Union, types.UnionType, list) or hasattr(annotation, "__metadata__"):
        return [model for part in get_args(annotation) for model in models(part)]
    return []


def nested(path: str, value: Any) -> dict[str, Any]:
    *outer, name = path.split(".")
    inner: Any = AROUND.get(path, {}) | {name: value}
    for depth in range(len(outer), 0, -1):
        around = OUTER.get(".".join(outer[:depth]), {}) if depth < len(outer) else {}
        inner = around | inner
        inner = {outer[depth - 1]: [inner] if outer[depth - 1] == "tools" else inner}
    return dict(inner)


def test_no_field_is_left_out():
    assert fields(SessionFields) == set(BAD)


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in BAD.items() for value in values])
def test_a_bad_value_is_an_error_with_its_field_and_the_call_goes_on(path, value):
    call = Simulation()
    before = copy.deepcopy(call.conversation.config.to_wire())
    change = nested(path, value)
    answer = call.client(type="session.update", event_id="mine", session={"instructions": "New."} | change)
    assert [event["type"] for event in answer] == ["error"], json.dumps(change)[:200]
    error = answer[0]["error"]
    assert error["event_id"] == "mine"
    assert error["message"]
    named = error["param"].replace("[0]", "")
    expected = f"session.{path}"
    assert named == expected
    assert call.conversation.config.to_wire() == before
    [updated] = call.client(type="session.update", session={"instructions": "New."})
    assert updated["session"]["instructions"] == "New."
