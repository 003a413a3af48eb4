"""What an agent does on the telephone: keys of the caller's and its own, passing the call on, hanging up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamdouble.scenario import Dtmf, WaitFor

from media.audio import Pcm
from tests.calls import phone
from tests.calls.bot import Bot, spoken
from tests.calls.caller import dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import free_port

BOT = Path(__file__).parent / "bots" / "telephone.py"
PORT = free_port()


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    folder = tmp_path_factory.mktemp("telephone")
    config = phone.CONFIG + f'api_url = "http://127.0.0.1:{PORT}"\n'
    environ = {**phone.ENVIRON, "BOT_NOTES": str(folder / "notes")}
    with Bot(folder, str(BOT), config=config, environ=environ) as running:
        yield running


@asynccontextmanager
async def carrier(*statuses: str) -> AsyncIterator[list[bytes]]:
    """The carrier's own interface: the requests that came. `statuses`: one for each."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        requests.append(head + await reader.readexactly(length))
        writer.write(
            f"HTTP/1.1 {statuses[len(requests) - 1]}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
        )
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", PORT):
        yield requests


def key_in(pcm: Pcm, low: int, high: int) -> bool:
    """Whether some 50 ms of it are little else than the two tones of a key."""
    pieces = pcm[: len(pcm) // 400 * 400].reshape(-1, 400).astype(float) * np.hanning(400)
    power = np.abs(np.fft.rfft(pieces)) ** 2
    bands = [power[:, round(hz / 20) - 3 : round(hz / 20) + 4].sum(axis=1) for hz in (low, high)]
    return bool(((bands[0] + bands[1] > 0.9 * power.sum(axis=1)) & (np.minimum(*bands) > 1e8)).any())


async def test_keys_are_turns_and_input_and_can_be_pressed(bot: Bot) -> None:
    said, pressed = WaitFor("audio"), WaitFor("quiet")
    before = len(bot.all_notes())
    report = await phone.ring(bot, Dtmf("1#"), said, Dtmf("42"), pressed, Dtmf("2#"), said, pressed)
    assert report.result.violations == []
    notes = bot.all_notes()[before:]
    assert [note["what"] for note in notes] == ["turn", "code", "turn", "keys were sent"]
    assert notes[0]["text"] == "[The caller pressed on the telephone: 1]"
    assert notes[1]["keys"] == "42"
    assert all("42" not in note.get("text", "") for note in notes)
    heard = phone.pcm_of(report)
    assert [key_in(heard, *key) for key in ((697, 1209), (697, 1336), (941, 1477))] == [True] * 3, "1, 2 and #"
    assert not key_in(heard, 770, 1209), "4 was not pressed"


async def test_a_call_is_passed_on_when_the_answer_was_heard_and_a_refusal_is_apologised_for(bot: Bot) -> None:
    async with carrier("200 OK", "404 Not Found") as requests:
        calls = (phone.ring(bot, phone.saying(HOW_ARE_YOU), WaitFor("audio"), WaitFor("quiet")) for _ in range(2))
        reports = await asyncio.gather(*calls)
    assert [report.result.violations for report in reports] == [[], []]
    assert len(requests) == 2
    for request in requests:
        assert b"/Calls/CA" in request.split(b"\r\n")[0]
        form = parse_qs(request.partition(b"\r\n\r\n")[2].decode())
        assert form["Twiml"] == ["<Response><Dial>+15550009999</Dial></Response>"]
    heard = sorted(len(phone.pcm_of(report)) for report in reports)
    assert heard[1] > heard[0] + 8000, "the refused caller hears an apology, too"
    assert "transfer failed: twilio did not transfer the call: HTTP 404" in bot.log()


async def test_where_there_is_no_telephone_the_model_is_told_so(bot: Bot) -> None:
    async with dial(bot, agent="model") as caller:
        caller.ask("Please transfer me to sales")
        assert "not held by a carrier" in await spoken(caller)


async def test_the_model_hangs_up_when_its_goodbye_was_heard(bot: Bot) -> None:
    async with dial(bot, agent="model") as caller:
        caller.ask("Hang up now")
        assert "goodbye" in await spoken(caller)
        await caller.wait_for("output_audio_buffer.stopped")
        await bot.until_calls(0)
    assert await bot.ended("agent_hangup") == 1
