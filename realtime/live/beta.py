"""The beta's names at the edge: clients that never moved to GA keep working.

A rename table and the flat session, both ways; nothing inside knows of it. Source: openai-realtime's
table of aliases (openai-python `types/beta/realtime`). A GA event without a counterpart is left out,
so that a beta client never sees two names for one thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from realtime.live.wire import LONG, Json

_TO_BETA: Mapping[str, str] = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
_LEFT_OUT = frozenset({"conversation.item.done"})
_PARTS_TO_BETA = {"output_audio": "audio", "output_text": "text"}
_FORMATS_TO_BETA = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
_FORMATS_TO_GA = {old: new for new, old in _FORMATS_TO_BETA.items()}
_PARTS_TO_GA = {"audio": "output_audio", "text": "output_text"}


class Beta:
    """One socket's translation. Text that is no JSON object passes as it is, to be refused where all is."""

    def to_ga(self, text: str) -> str:
        if len(text) > LONG:
            return text  # only audio is that long, and it is appended by the same name
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        if not isinstance(event, dict):
            return text
        if event.get("type") == "transcription_session.update":
            event["type"] = "session.update"
        if isinstance(event.get("session"), dict) and event.get("type") == "session.update":
            event["session"] = session_to_ga(event["session"])
        if isinstance(event.get("response"), dict):
            event["response"] = _response_to_ga(event["response"])
        if isinstance(event.get("item"), dict):
            event["item"] = _item(event["item"], _PARTS_TO_GA)
        return orjson.dumps(event).decode()

    def from_ga(self, text: str) -> list[str]:
        event = orjson.loads(text)
        if event["type"] in _LEFT_OUT:
            return []
        event["type"] = _TO_BETA.get(event["type"], event["type"])
        if isinstance(event.get("session"), dict):
            event["session"] = session_to_beta(event["session"])
        if isinstance(event.get("item"), dict):
            event["item"] = _item(event["item"], _PARTS_TO_BETA)
        if isinstance(event.get("response"), dict):
            event["response"] = _response_to_beta(event["response"])
        return [orjson.dumps(event).decode()]


def _item(item: Json, parts: Mapping[str, str]) -> Json:
    content = item.get("content")
    if not isinstance(content, list) or item.get("role") != "assistant":
        return item
    renamed = [
        part | {"type": parts.get(str(part.get("type")), part.get("type"))} if isinstance(part, dict) else part
        for part in content
    ]
    return item | {"content": renamed}


def _response_to_ga(response: Json) -> Json:
    result = dict(response)
    _move(result, "modalities", result, "output_modalities", _modalities_to_ga)
    _move(result, "max_response_output_tokens", result, "max_output_tokens")
    if "voice" in result:
        result["audio"] = {"output": {"voice": result.pop("voice")}}
    for ours_not in ("temperature", "output_audio_format"):
        result.pop(ours_not, None)
    return result


def _response_to_beta(response: Json) -> Json:
    result = dict(response)
    _move(result, "output_modalities", result, "modalities", _modalities_to_beta)
    result.pop("audio", None)
    result["output"] = [_item(item, _PARTS_TO_BETA) for item in result.get("output", [])]
    return result


def session_to_ga(session: Json) -> Json:
    """A beta client's flat session as a GA one."""
    flat = dict(session)
    given: Json = {"type": "realtime"}
    inbound: Json = {}
    outbound: Json = {}
    _move(flat, "modalities", given, "output_modalities", _modalities_to_ga)
    _move(flat, "max_response_output_tokens", given, "max_output_tokens")
    _move(flat, "input_audio_format", inbound, "format", _format_to_ga)
    _move(flat, "input_audio_transcription", inbound, "transcription")
    _move(flat, "input_audio_noise_reduction", inbound, "noise_reduction")
    _move(flat, "turn_detection", inbound, "turn_detection")
    _move(flat, "output_audio_format", outbound, "format", _format_to_ga)
    _move(flat, "voice", outbound, "voice")
    _move(flat, "speed", outbound, "speed")
    flat.pop("temperature", None)
    audio = {name: part for name, part in (("input", inbound), ("output", outbound)) if part}
    return flat | given | ({"audio": audio} if audio else {})


def session_to_beta(session: Json) -> Json:
    """A GA session as the beta's flat one."""
    flat = {name: value for name, value in session.items() if name not in ("audio", "type")}
    inbound, outbound = session.get("audio", {}).get("input", {}), session.get("audio", {}).get("output", {})
    _move(flat, "output_modalities", flat, "modalities", _modalities_to_beta)
    _move(flat, "max_output_tokens", flat, "max_response_output_tokens")
    return flat | {
        "input_audio_format": _format_to_beta(inbound.get("format")),
        "output_audio_format": _format_to_beta(outbound.get("format")),
        "input_audio_transcription": inbound.get("transcription"),
        "turn_detection": inbound.get("turn_detection"),
        "voice": outbound.get("voice"),
        "speed": outbound.get("speed"),
        "temperature": 0.8,
    }


def _move(source: Json, old: str, target: Json, new: str, change: Any = lambda value: value) -> None:
    if old in source:
        target[new] = change(source.pop(old))


def _modalities_to_ga(modalities: Any) -> Any:
    if not isinstance(modalities, list):
        return modalities
    return ["audio"] if "audio" in modalities else modalities


def _modalities_to_beta(modalities: Any) -> Any:
    return ["audio", "text"] if modalities == ["audio"] else modalities


def _format_to_ga(name: Any) -> Any:
    return {"type": _FORMATS_TO_GA[name]} if name in _FORMATS_TO_GA else {"type": name}


def _format_to_beta(form: Any) -> Any:
    return _FORMATS_TO_BETA.get(str(form.get("type"))) if isinstance(form, dict) else None
