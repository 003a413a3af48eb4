"""The client's own modules: words and turns put together from events, and its use in Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.calls.server import API_KEY, ROOT, Server

STATIC = ROOT / "realtime" / "web" / "static"


@pytest.fixture(scope="module")
def in_browser(instant: Server, browser: Any) -> Iterator[Any]:
    """Feeds events to one of the client's pure classes; what each of them brought about."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(instant.url)

    def feed(module: str, name: str, result: str, events: list[dict[str, object]]) -> list[Any]:
        script = f"""async (events) => {{
            const {{ {name} }} = await import("/client/{module}.js");
            const it = new {name}();
            return events.map((event) => {{ const out = it.take(event); return {result}; }});
        }}"""
        return list(page.evaluate(script, events))

    yield feed
    context.close()


def message(role: str, text: str, status: str = "completed") -> dict[str, object]:
    kind = "output_audio" if role == "assistant" else "input_text"
    part = {"type": kind, "transcript" if role == "assistant" else "text": text}
    return {"id": "item", "type": "message", "role": role, "status": status, "content": [part]}


def delta(text: str) -> dict[str, object]:
    return {"type": "response.output_audio_transcript.delta", "item_id": "item", "delta": text}


def completed(text: str) -> dict[str, object]:
    return {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item",
        "content_index": 0,
        "transcript": text,
    }


PARTIAL = {"type": "realtime.input_transcript.partial", "item_id": "item"}
USER_DELTA = {"type": "conversation.item.input_audio_transcription.delta", "item_id": "item", "content_index": 0}


@pytest.mark.parametrize(
    ("events", "heard", "unheard", "final"),
    [
        pytest.param([delta("One "), delta("two.")], "One two.", "", False, id="an answer grows"),
        pytest.param(
            [
                delta("One two three."),
                {"type": "response.output_item.done", "item": message("assistant", "One two three.")},
            ],
            "One two three.",
            "",
            True,
            id="an answer is whole",
        ),
        pytest.param(
            [
                delta("One two three."),
                {"type": "response.output_item.done", "item": message("assistant", "One", "incomplete")},
            ],
            "One",
            " two three.",
            True,
            id="an answer is cut while it is made",
        ),
        pytest.param(
            [
                delta("One two three."),
                {"type": "response.output_item.done", "item": message("assistant", "One two three.")},
                {"type": "conversation.item.retrieved", "item": message("assistant", "One two", "incomplete")},
            ],
            "One two",
            " three.",
            True,
            id="an answer is cut after it was made",
        ),
        pytest.param(
            [{**PARTIAL, "text": "what"}, {**PARTIAL, "text": "watt is"}],
            "watt is",
            "",
            False,
            id="a guess is replaced",
        ),
        pytest.param(
            [{**PARTIAL, "text": "what is"}, {**USER_DELTA, "delta": "what is"}, completed("what is it")],
            "what is it",
            "",
            True,
            id="guesses and deltas do not add up",
        ),
        pytest.param(
            [{**USER_DELTA, "delta": "what "}, {**USER_DELTA, "delta": "is"}],
            "what is",
            "",
            False,
            id="deltas alone do",
        ),
        pytest.param(
            [{"type": "conversation.item.added", "item": message("user", "typed"), "previous_item_id": None}],
            "typed",
            "",
            True,
            id="typed text is there at once",
        ),
    ],
)
def test_words(in_browser: Any, events: list[dict[str, object]], heard: str, unheard: str, final: bool) -> None:
    (entry,) = in_browser("words", "Words", "out", events)[-1]
    assert (entry["heard"], entry["unheard"], entry["final"]) == (heard, unheard, final)
    assert entry["text"] == heard + unheard


def test_speech_that_was_not_understood_is_marked(in_browser: Any) -> None:
    failed = {"type": "conversation.item.input_audio_transcription.failed", "item_id": "item", "content_index": 0}
    (entry,) = in_browser("words", "Words", "out", [failed])[-1]
    assert entry["failed"]
    assert entry["text"] == ""


def test_whose_turn_it_is(in_browser: Any) -> None:
    events = [
        ("input_audio_buffer.speech_started", "hearing"),
        ("input_audio_buffer.speech_stopped", "thinking"),
        ("conversation.item.input_audio_transcription.completed", "listening"),
        ("response.created", "thinking"),
        ("output_audio_buffer.started", "speaking"),
        ("response.done", "speaking"),
        ("input_audio_buffer.speech_started", "hearing"),
        ("output_audio_buffer.cleared", "hearing"),
        ("input_audio_buffer.speech_stopped", "thinking"),
        ("conversation.item.input_audio_transcription.failed", "listening"),
    ]
    found = in_browser("activity", "Activity", "it.current", [{"type": kind} for kind, _ in events])
    assert found == [expected for _, expected in events]


def test_in_node_it_mints_and_says_what_is_wrong(instant: Server) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = """
        const { InfraiClient, InfraiError } = await import(process.argv[1]);
        const token = await new InfraiClient().ai.liveToken({ ttl_seconds: 60, voice: "verse" });
        const refused = await new InfraiClient({ apiKey: "wrong" }).ai.liveToken().catch((error) => error);
        const lost = await new InfraiClient({ baseUrl: "http://127.0.0.1:1" }).ai.liveToken().catch((error) => error);
        const wrong = await new InfraiClient().ai.liveToken({ ttl_seconds: 1 }).catch((error) => error);
        console.log(JSON.stringify({
            token, codes: [refused, lost, wrong].map((error) => error instanceof InfraiError && error.code),
            status: refused.status, param: wrong.param, request: typeof refused.requestId,
        }));"""
    environ = {**os.environ, "INFRAI_API_KEY": API_KEY, "INFRAI_BASE_URL": instant.url}
    command = [node, "--input-type=module", "-e", script, "--", (STATIC / "client.js").as_uri()]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer["token"]) == {"session_id", "token", "ice_servers", "expires_at", "agent", "model", "voice"}
    assert answer["token"]["voice"] == "verse"
    assert answer["codes"] == ["invalid_api_key", "unreachable", "invalid_value"]
    assert (answer["status"], answer["param"], answer["request"]) == (401, "ttl_seconds", "string")


def test_the_package_for_npm_has_the_client_and_nothing_of_the_page() -> None:
    package = json.loads((STATIC / "package.json").read_text(encoding="utf-8"))
    assert package["files"] == ["client.js", "client.d.ts", "client/"]
    imported = "".join(path.read_text(encoding="utf-8") for path in [STATIC / "client.js", *STATIC.glob("client/*.js")])
    assert "page/" not in imported
