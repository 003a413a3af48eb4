"""The command line as its user meets it: exit codes, what is written, what is said."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from realtime.cli import app
from realtime.presets import PRESETS

ROOT = Path(__file__).parent.parent.parent
OURS = re.compile(r"REALTIME_|INFRAI_|OPENAI_|TWILIO_|GROQ_")

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, a data folder of its own, and none of our variables."""
    for name in filter(OURS.match, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("REALTIME_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REALTIME_PORT", "1")  # nobody listens there
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("serve", "init", "doctor", "keys", "token", "talk", "bench"):
        assert command in result.output


def test_help_shows_names_of_settings_in_their_brackets(run: Run) -> None:
    assert "[telephony.NAME]" in run("audiosocket", "--help").output


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys, realtime.cli; print(sorted({'numpy', 'av', 'aiortc', 'fastapi', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- init


@pytest.mark.parametrize("preset", PRESETS)
def test_init_writes_a_file_that_the_server_accepts(
    run: Run, place: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PRESETS[preset].variables:
        monkeypatch.setenv(name, "a-key")
    assert run("init", "--preset", preset).exit_code == 0
    assert run("keys", "list", "--config", place / "realtime.toml").exit_code == 0


def test_init_says_which_variable_is_missing(run: Run) -> None:
    result = run("init", "--preset", "openai")
    assert "Set OPENAI_API_KEY" in result.output
    result = run("keys", "list")
    assert result.exit_code == 1
    assert "realtime.toml:5: vendors.openai.key" in result.output


def test_init_never_replaces_a_file_unasked(run: Run, place: Path) -> None:
    (place / "realtime.toml").write_text("# mine\n")
    result = run("init")
    assert result.exit_code == 1
    assert "--force" in result.output
    assert (place / "realtime.toml").read_text() == "# mine\n"
    assert run("init", "--force").exit_code == 0
    assert "[live]" in (place / "realtime.toml").read_text()


# --- settings that cannot be used


@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["keys", "list"], ["token"], ["talk"]])
def test_every_command_shows_all_mistakes_of_the_settings(run: Run, place: Path, command: list[str]) -> None:
    (place / "realtime.toml").write_text('[server]\nprot = 1\n[live]\nchat = "nobody"\n')
    result = run(*command)
    assert result.exit_code == 1
    assert "realtime.toml:2: server.prot" in result.output
    assert "realtime.toml:4: live.chat" in result.output
    assert "2 mistakes" in result.output


def test_a_config_file_can_be_named(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "realtime.toml").write_text("")
    assert "none.toml" in run("keys", "list", "--config", "none.toml").output
    monkeypatch.setenv("REALTIME_CONFIG", "other.toml")
    assert "other.toml" in run("keys", "list").output


# --- keys


def test_keys_are_made_listed_and_revoked(run: Run, place: Path) -> None:
    made = run("keys", "create", "--name", "page", "--scopes", "mint", "--origin", "https://app.example")
    assert made.exit_code == 0
    plaintext = made.stdout.strip()
    assert plaintext.startswith("ifr_pk_proj_")

    listed = run("keys", "list").stdout
    assert "https://app.example" in listed
    assert plaintext not in listed
    assert plaintext.encode() not in b"".join(
        path.read_bytes() for path in (place / "data").iterdir() if path.is_file()
    )

    id_ = listed.split()[0]
    assert run("keys", "revoke", id_).exit_code == 0
    assert "revoked" in run("keys", "list").stdout
    assert run("keys", "revoke", id_).exit_code == 1


def test_a_key_that_cannot_be_is_refused(run: Run) -> None:
    assert "mnt" in run("keys", "create", "--scopes", "mnt").output
    assert "no agent called" in run("keys", "create", "--agent", "nobody").output
    assert run("keys", "list").stdout == ""


# --- token


def test_a_token_can_be_signed_without_a_server(run: Run, place: Path) -> None:
    from token_service.keys import SigningKeys
    from token_service.tokens import Tokens

    (place / "realtime.toml").write_text('[agents.sales]\n[token]\naudience = "here"\n')
    result = run("token", "--offline", "--agent", "sales", "--ttl", "60")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    claims = Tokens(SigningKeys.load_or_create(place / "data"), "infrai-realtime", "here").verify(answer["token"])
    assert (claims.agent, claims.session_id) == ("sales", answer["session_id"])
    assert claims.expires_at == answer["expires_at"] == claims.issued_at + 60


def test_an_unknown_agent_gets_no_token(run: Run) -> None:
    result = run("token", "--offline", "--agent", "nobody")
    assert result.exit_code == 1
    assert "there are: default" in result.output


@contextmanager
def answering(status: int, body: object) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server with one answer; its address and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append({"path": self.path, "key": self.headers["Authorization"], "body": json.loads(data)})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_token_comes_from_the_running_server(run: Run) -> None:
    with answering(200, {"token": "t"}) as (url, asked):
        result = run("token", "--url", url, "--key", "k", "--model", "fast")
    assert json.loads(result.stdout) == {"token": "t"}
    assert asked == [{"path": "/v1/ai/realtime/token", "key": "Bearer k", "body": {"model": "fast"}}]


def test_a_refusal_of_the_server_is_told(run: Run) -> None:
    with answering(403, {"error": {"message": "This key may not."}}) as (url, _):
        result = run("token", "--url", url, "--key", "k")
    assert result.exit_code == 1
    assert "This key may not." in result.output


def test_without_a_server_the_token_is_signed_here_and_says_so(run: Run) -> None:
    result = run("token", "--key", "k")
    assert result.exit_code == 0
    assert "signing here" in result.stderr
    assert json.loads(result.stdout)["agent"] == "default"
    assert run("token", "--key", "k", "--url", "http://127.0.0.1:1").exit_code == 1


# --- doctor


def test_doctor_finds_nothing_wrong_here(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALTIME_PORT", "0")
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "fail" not in result.output


def test_doctor_fails_with_advice(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALTIME_PORT", "0")
    text = '[vendors.gone]\nbase_url = "http://127.0.0.1:1/v1"\n[network]\ninterfaces = ["nosuch0"]\n'
    (place / "realtime.toml").write_text(text)
    result = run("doctor")
    assert result.exit_code == 1
    assert re.search(r"fail +vendor gone: .*\n +is it running", result.output)
    assert re.search(r"fail +UDP: .*nosuch0.*\n +check interfaces", result.output)


# --- serve


def test_serve_needs_both_halves_of_tls(run: Run, place: Path) -> None:
    (place / "cert.pem").write_text("")
    assert "go together" in run("serve", "--tls-cert", place / "cert.pem").output


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A server in a process of its own, and its start screen once that is whole."""
    command = [sys.executable, "-m", "realtime.cli", "serve", "--port", "0", "--engines", "instant", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        screen: list[str] = []
        assert process.stdout is not None
        try:
            for line in process.stdout:
                screen.append(line.rstrip("\n"))
                if line == "\n" and "Talk to it" in screen:
                    break
            else:
                assert process.stderr is not None
                pytest.fail(f"the server ended: {process.stderr.read()}")
            yield process, screen
        finally:
            process.kill()


def test_serve_listens_when_it_says_so_and_stops_when_told(place: Path) -> None:
    with serving() as (process, screen):
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", "\n".join(screen))
        assert found is not None, screen
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("server") is None
        connection.close()
        assert "\x1b" not in "".join(screen)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_the_first_start_makes_a_key_that_works_and_later_ones_keep_it(place: Path) -> None:
    with serving() as (process, screen):
        assert process.stdout is not None
        heading = process.stdout.readline()
        key = process.stdout.readline().strip()
        assert "Development key" in heading
        url = re.search(r"http://127\.0\.0\.1:\d+", "\n".join(screen))
        assert url is not None
        kept = place / "data" / "development_key"
        assert kept.read_text().strip() == key
        assert kept.stat().st_mode & 0o777 == 0o600
        result = CliRunner().invoke(app, ["token", "--url", url[0]])
        assert json.loads(result.stdout)["token"]
        process.terminate()
        process.wait(timeout=30)
        assert key not in (process.stdout.read() + (process.stderr.read() if process.stderr else ""))
    with serving() as (_, screen):
        assert any("cat" in line and "development_key" in line for line in screen)
    assert kept.read_text().strip() == key
