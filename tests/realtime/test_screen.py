"""The start screen says what is needed to go on, and nothing that is not so."""

from __future__ import annotations

import io
import os
import shlex
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from realtime.adapters.base import EngineInfo
from realtime.screen import Facts, show

FACTS = Facts(
    version="1.2.3",
    url="http://127.0.0.1:8080",
    public_url=None,
    config=None,
    data=Path("/data"),
    engines=[
        EngineInfo("embedded", "stt", "embedded", "pocketsphinx", "5.1.1", "BSD-2-Clause", "one word in three wrong"),
        EngineInfo("fast", "chat", "local", "org/name"),
    ],
    command=".venv/bin/realtime",
    question="question.wav",
    made_key=None,
    key="$(cat /data/development_key)",
    notices=[],
)


def shown(facts: Facts, *, terminal: bool = False, width: int = 60) -> str:
    file = io.StringIO()
    show(facts, Console(file=file, force_terminal=terminal, width=width))
    return file.getvalue()


def test_names_the_engines_and_how_good_they_are() -> None:
    text = shown(FACTS)
    assert "embedded/pocketsphinx (5.1.1, BSD-2-Clause)" in text
    assert "one word in three wrong" in text
    assert "local/org/name" in text


def test_commands_are_whole_lines_however_narrow_the_terminal() -> None:
    for terminal in (False, True):
        lines = shown(FACTS, terminal=terminal, width=30).splitlines()
        talk = next(line for line in lines if " talk " in line)
        assert shlex.split(talk) == [".venv/bin/realtime", "talk", "--wav", "question.wav", "--out", "answer.wav"]
        curl = next(line for line in lines if "curl" in line)
        assert "http://127.0.0.1:8080/v1/ai/realtime/token" in curl
        assert "Authorization: Bearer $(cat /data/development_key)" in shlex.split(curl)


def test_another_address_stands_in_the_talk_line() -> None:
    assert "--url http://127.0.0.1:9000" in shown(replace(FACTS, url="http://127.0.0.1:9000"))


def test_a_key_is_shown_only_when_it_was_just_made() -> None:
    assert "Development key" not in shown(FACTS)
    assert "ifr_pk_proj_x" in shown(replace(FACTS, made_key="ifr_pk_proj_x"))


def test_a_key_only_its_owner_knows_is_asked_for() -> None:
    text = shown(replace(FACTS, key=None))
    assert "YOUR_KEY" in text
    assert ".venv/bin/realtime keys create" in text


def test_square_brackets_and_colour_stay_what_they_are() -> None:
    text = shown(replace(FACTS, notices=["add this:\n  [vendors.openai]"]))
    assert "[vendors.openai]" in text
    assert "\x1b" not in text
    assert "\x1b" in shown(FACTS, terminal=True)


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        show(FACTS, Console(file=file))


def test_says_where_the_page_is() -> None:
    assert "In the browser: http://127.0.0.1:8080/" in shown(FACTS)


def test_a_link_that_opens_the_page_stands_alone_on_its_line() -> None:
    text = shown(replace(FACTS, link="https://192.168.1.5:8080/#link=abc"))
    assert "https://192.168.1.5:8080/#link=abc" in [line.strip() for line in text.splitlines()]
    assert ".venv/bin/realtime link" in text
    assert "In the browser: http" not in text
