"""A server that runs a developer's agents, which write down what they do in the file that BOT_NOTES names."""

from __future__ import annotations

import json
from typing import Any

from tests.calls.caller import Caller
from tests.calls.server import Server

SPOKEN = "response.output_audio_transcript.done"


class Bot(Server):
    def all_notes(self) -> list[dict[str, Any]]:
        file = self.folder / "notes"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def notes(self, session: str) -> list[dict[str, Any]]:
        """What the agents wrote down for a call."""
        return [line for line in self.all_notes() if line["session"] == session]

    def done(self, session: str) -> list[str]:
        return [str(line["what"]) for line in self.notes(session)]


async def spoken(caller: Caller) -> str:
    """The next thing that the bot says, whole."""
    return str((await caller.wait_for(SPOKEN))["transcript"])
