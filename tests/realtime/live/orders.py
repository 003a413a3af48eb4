"""The order of server events as a state machine: what a strict client relies on, checked event by event.

Feed every serialised server event of a call to `OrderChecker.see`; `finish` says whether everything
that began has ended. It knows nothing of how the server works. With EVENT_RECORD in the environment,
what was seen is appended to that file, for other judges.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import orjson
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

PUBLISHED: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
RECORD = os.environ.get("EVENT_RECORD")


def _without_our_own(event: dict[str, Any]) -> dict[str, Any]:
    """The published types know nothing of what a client can only have asked of this server."""
    session = event.get("session")
    if session and session.get("include"):
        include = [name for name in session["include"] if not name.startswith("realtime.")]
        return event | {"session": session | {"include": include}}
    return event


@dataclass
class _Response:
    beside: bool = False
    """Outside the conversation."""
    open_items: dict[str, str] = field(default_factory=dict)
    open_parts: set[str] = field(default_factory=set)
    done: bool = False


class OrderChecker:
    def __init__(self) -> None:
        self.responses: dict[str, _Response] = {}
        self.history: list[str] = []
        self.event_ids: set[str] = set()
        self.speaking: str | None = None
        self.stopped: set[str] = set()
        self.committed: set[str] = set()
        self.transcribed: set[str] = set()
        self.buffers: dict[str, str] = {}
        self.count = 0
        self.errors: list[dict[str, Any]] = []

    def see(self, event: dict[str, Any]) -> None:
        self.count += 1
        if RECORD:
            with open(RECORD, "ab") as file:
                file.write(orjson.dumps(event) + b"\n")
        if not event["type"].startswith("realtime."):
            PUBLISHED.validate_python(_without_our_own(event))
        kind = event["type"]
        if kind != "input_audio_buffer.dtmf_event_received":
            assert event["event_id"] not in self.event_ids, "event ids are unique"
            self.event_ids.add(event["event_id"])
        if self.count == 1:
            assert kind == "session.created"
        handler = getattr(self, "_" + kind.replace(".", "_"), None)
        if handler is not None:
            handler(event)

    def finish(self) -> None:
        unfinished = [key for key, response in self.responses.items() if not response.done]
        assert not unfinished, f"no response.done for {unfinished}"
        assert self.speaking is None
        assert all(state != "started" for state in self.buffers.values()), "a started buffer never stopped"

    # --- input --------------------------------------------------------------------------------

    def _input_audio_buffer_speech_started(self, event: dict[str, Any]) -> None:
        assert self.speaking is None
        self.speaking = event["item_id"]

    def _input_audio_buffer_speech_stopped(self, event: dict[str, Any]) -> None:
        assert self.speaking == event["item_id"]
        self.speaking = None
        self.stopped.add(event["item_id"])

    def _input_audio_buffer_committed(self, event: dict[str, Any]) -> None:
        assert self.speaking != event["item_id"], "what the detector hears is committed when it has stopped"
        assert event["previous_item_id"] == (self.history[-1] if self.history else None)
        self.committed.add(event["item_id"])

    def _conversation_item_added(self, event: dict[str, Any]) -> None:
        item, previous = event["item"]["id"], event["previous_item_id"]
        assert item not in self.history
        if previous is None:
            self.history.insert(0, item)
        else:
            self.history.insert(self.history.index(previous) + 1, item)

    def _conversation_item_done(self, event: dict[str, Any]) -> None:
        assert event["item"]["id"] in self.history
        assert event["item"]["status"] in ("completed", "incomplete")

    def _conversation_item_deleted(self, event: dict[str, Any]) -> None:
        self.history.remove(event["item_id"])

    def _conversation_item_input_audio_transcription_delta(self, event: dict[str, Any]) -> None:
        assert event["item_id"] in self.committed - self.transcribed

    def _conversation_item_input_audio_transcription_completed(self, event: dict[str, Any]) -> None:
        assert event["item_id"] in self.history
        assert event["item_id"] not in self.transcribed
        assert event["usage"]["type"] == "duration"
        self.transcribed.add(event["item_id"])

    # --- responses ----------------------------------------------------------------------------

    def _open(self, event: dict[str, Any]) -> _Response:
        response = self.responses[event["response_id"]]
        assert not response.done, f"{event['type']} after response.done"
        return response

    def _response_created(self, event: dict[str, Any]) -> None:
        beside = event["response"]["conversation_id"] is None
        if not beside:
            others = [response for response in self.responses.values() if not response.beside]
            assert all(response.done for response in others), "one response at a time"
        assert event["response"]["status"] == "in_progress"
        self.responses[event["response"]["id"]] = _Response(beside)

    def _response_output_item_added(self, event: dict[str, Any]) -> None:
        assert event["item"]["status"] == "in_progress"
        response = self._open(event)
        assert event["output_index"] == len(response.open_items)
        response.open_items[event["item"]["id"]] = "open"

    def _response_content_part_added(self, event: dict[str, Any]) -> None:
        assert self._open(event).open_items[event["item_id"]] == "open"
        assert event["part"]["type"] in ("audio", "text")
        assert None not in event["part"].values()
        self._open(event).open_parts.add(event["item_id"])

    def _delta(self, event: dict[str, Any]) -> None:
        assert event["item_id"] in self._open(event).open_parts
        assert event["delta"]
        assert event["content_index"] == 0

    _response_output_text_delta = _delta
    _response_output_audio_transcript_delta = _delta

    def _response_content_part_done(self, event: dict[str, Any]) -> None:
        self._open(event).open_parts.remove(event["item_id"])

    def _response_output_item_done(self, event: dict[str, Any]) -> None:
        response = self._open(event)
        assert response.open_items[event["item"]["id"]] == "open"
        assert event["item"]["id"] not in response.open_parts
        response.open_items[event["item"]["id"]] = "done"

    def _response_done(self, event: dict[str, Any]) -> None:
        response = self.responses[event["response"]["id"]]
        assert not response.done
        assert set(response.open_items.values()) <= {"done"}
        assert event["response"]["status"] in ("completed", "cancelled", "failed", "incomplete")
        response.done = True

    # --- playout ------------------------------------------------------------------------------

    def _output_audio_buffer_started(self, event: dict[str, Any]) -> None:
        assert event["response_id"] not in self.buffers
        self.buffers[event["response_id"]] = "started"

    def _output_audio_buffer_stopped(self, event: dict[str, Any]) -> None:
        assert self.buffers[event["response_id"]] == "started"
        assert self.responses[event["response_id"]].done, "stopped comes after response.done"
        self.buffers[event["response_id"]] = "stopped"

    def _output_audio_buffer_cleared(self, event: dict[str, Any]) -> None:
        assert self.buffers[event["response_id"]] == "started"
        self.buffers[event["response_id"]] = "cleared"

    def _error(self, event: dict[str, Any]) -> None:
        assert event["error"]["type"] in ("invalid_request_error", "server_error")
        assert event["error"]["message"]
        self.errors.append(event["error"])
