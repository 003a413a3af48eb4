"""Every server event of these runs, and of this package's own tests of calls, against what clients publish."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from tests.interop.conftest import DRIVERS

ROOT = Path(__file__).parents[2]
OWN_TESTS = ("tests/realtime/live", "tests/calls")
OWN_TESTS_S = 1200.0
JUDGE_S = 60.0
PUBLISHED: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
NOT_IN_JAVASCRIPT = {
    "input_audio_buffer.timeout_triggered",
    "input_audio_buffer.dtmf_event_received",
    "conversation.item.input_audio_transcription.segment",
}
"""Events of the API that `@openai/agents-realtime` has no schema for at all."""

DOCUMENTED = (".session.id", ".session.object", ".session.expires_at")
"""In every example of the API's documentation, but not in the types."""


pytestmark = pytest.mark.timeout(OWN_TESTS_S + 60)


@pytest.fixture(scope="module")
def events(records: Path) -> list[str]:
    """One event of each shape, as JSON: there are very many deltas."""
    shapes: dict[str, str] = {}
    for file in sorted(records.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            shapes.setdefault(_shape(json.loads(line)), line)
    assert shapes, "no events were recorded"
    return list(shapes.values())


@pytest.fixture(scope="module", autouse=True)
def own_tests(records: Path) -> None:
    """Our own tests of calls, recorded."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OWN_TESTS]
    environ = {**os.environ, "EVENT_RECORD": str(records / "own.jsonl")}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=OWN_TESTS_S)
    assert done.returncode == 0, done.stdout


def _shape(value: Any) -> str:
    """Types and names, without values, except where a value is a name (`type`, `status`, `role`, `reason`)."""

    def of(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: of(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [of(part) for part in value]
        return value if key in ("type", "status", "role", "reason", "object", "code") else type(value).__name__

    return json.dumps(of(value), sort_keys=True)


def _published(line: str) -> dict[str, Any]:
    """Without the names of ours that a client can only have asked for."""
    event: dict[str, Any] = json.loads(line)
    if event.get("session", {}).get("include"):
        named = [name for name in event["session"]["include"] if not name.startswith("realtime.")]
        event["session"]["include"] = named
    return event


def _ours(event: dict[str, Any]) -> bool:
    """Named `realtime.`: only sent to a client that asks for it by a name of ours."""
    return event["type"].startswith("realtime.")


def _images(event: dict[str, Any]) -> bool:
    return any(part.get("type") == "input_image" for part in event.get("item", {}).get("content", []))


def _unknown(model: Any, path: str) -> Iterator[str]:
    """Fields that the published type does not have."""
    if isinstance(model, BaseModel):
        for name in model.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(model).model_fields:
            yield from _unknown(getattr(model, name), f"{path}.{name}")
    elif isinstance(model, list):
        for part in model:
            yield from _unknown(part, f"{path}[]")


def test_openais_published_types(events: list[str]):
    wrong = Counter[str]()
    for line in events:
        event = _published(line)
        if _ours(event):
            continue
        try:
            found = _unknown(PUBLISHED.validate_python(event), event["type"])
            wrong.update(field for field in found if not field.endswith(DOCUMENTED))
        except ValidationError as error:
            wrong[f"{error.errors(include_url=False)[:2]} {line[:400]}"] += 1
    assert not wrong, "\n".join(wrong)


def test_openai_agents_would_drop_none(events: list[str], environment: Callable[[str], Path]):
    python = environment("openai-agents") / "bin" / "python"
    published = [_published(line) for line in events]
    given = [json.dumps(event) for event in published if not _ours(event)]
    assert _judged([str(python), str(DRIVERS / "check_openai_agents.py")], given) == ""


def test_agents_realtime_would_demote_none(events: list[str], environment: Callable[[str], Path]):
    script = shutil.copy(DRIVERS / "check_agents_realtime.mjs", environment("node"))
    published = [event for event in map(_published, events) if event["type"] not in NOT_IN_JAVASCRIPT]
    given = [json.dumps(event) for event in published if not (_ours(event) or _images(event))]
    assert _judged(["node", str(script)], given) == ""


def _judged(command: list[str], events: list[str]) -> str:
    done = subprocess.run(command, input="\n".join(events), capture_output=True, text=True, timeout=JUDGE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout
