"""The start screen: where the server listens, what to run next, which engines answer and how good they are.

Everything it says is handed to it. On a terminal it is coloured, anywhere else it is the same text plain.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from realtime.adapters.base import EngineInfo

_KINDS = {"stt": "hears", "chat": "answers", "tts": "speaks", "vad": "notices speech"}
DEFAULT_URL = "http://127.0.0.1:8080"
"""Where the clients look when they are told nothing."""


@dataclass(frozen=True, slots=True)
class Facts:
    """`url`: reachable from this machine. `command`: how `realtime` is called here. `made_key`: a development
    key made at this start. `key`: how a shell line gets at a key, or None when only its owner knows it."""

    version: str
    url: str
    public_url: str | None
    config: Path | None
    data: Path
    engines: Sequence[EngineInfo]
    command: str
    question: str
    made_key: str | None
    key: str | None
    notices: Sequence[str]
    link: str | None = None
    bot: str | None = None
    """The developer's own agents, and where they come from."""


Section = tuple[str, list[str]]


def sections(facts: Facts) -> list[Section]:
    """The screen as headings and lines."""
    where = facts.url if facts.public_url is None else f"{facts.url}, from outside {facts.public_url}"
    result: list[Section] = [
        (
            f"infrai-realtime {facts.version} listens on {where}",
            [
                f"settings  {facts.config or 'none: embedded engines (`realtime init` writes a file)'}",
                f"data      {facts.data}",
                *([f"agents    {facts.bot}"] if facts.bot else []),
                f"API       {facts.url}/docs",
            ],
        ),
        ("Engines", [line for info in facts.engines for line in _engine(info)] or ["none"]),
        ("Talk to it", _next_steps(facts)),
    ]
    if facts.made_key is not None:
        result.append(
            (
                "Development key, shown this once",
                [
                    facts.made_key,
                    "It has every scope. The command line and the Python client here find it by themselves.",
                ],
            )
        )
    if facts.notices:
        result.append(("Noticed", [line for notice in facts.notices for line in notice.splitlines()]))
    return result


def show(facts: Facts, console: Console) -> None:
    """Print the screen. Lines are never wrapped, so that commands can be copied."""
    with console.capture() as captured:
        console.print()
        for heading, lines in sections(facts):
            console.print(Text(heading, style="bold"), soft_wrap=True)
            for line in lines:
                console.print(Text(f"  {line}", style="yellow" if heading == "Noticed" else ""), soft_wrap=True)
            console.print()
    try:
        console.file.write(captured.get())
        console.file.flush()
    except BrokenPipeError:
        # Whoever read it has gone (`| head`), which is no reason to end the server. What is still buffered
        # goes nowhere, or it would be an error again when the process ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, console.file.fileno())
        os.close(nowhere)


def _engine(info: EngineInfo) -> list[str]:
    name = info.model if info.vendor == info.model else f"{info.vendor}/{info.model}"
    detail = ", ".join(part for part in (info.version, info.licence) if part)
    lines = [f"{_KINDS[info.kind]:<15} {name}{f' ({detail})' if detail else ''}"]
    if info.quality:
        lines.append(f"{'':<15} {info.quality}")
    return lines


def _page(facts: Facts) -> list[str]:
    if facts.link is None:
        return [f"In the browser: {facts.url}/"]
    again = f"`{facts.command} link` prints another"
    return [f"In the browser, with a link that works once, within 15 minutes ({again}):", f"  {facts.link}"]


def _next_steps(facts: Facts) -> list[str]:
    place = "" if facts.url == DEFAULT_URL else f" --url {facts.url}"
    key = facts.key or "YOUR_KEY"
    steps = [
        *_page(facts),
        f"{facts.command} talk --wav {facts.question} --out answer.wav{place}",
        f'curl -s {facts.url}/v1/ai/realtime/token -H "Authorization: Bearer {key}" '
        "-H 'Content-Type: application/json' -d '{}'",
    ]
    if facts.key is None:
        steps.append(f"A key is needed: `{facts.command} keys create`, or the one you have in INFRAI_API_KEY.")
    return steps
