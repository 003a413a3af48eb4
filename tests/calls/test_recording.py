"""Recordings of real calls: over WebRTC, the WebSocket and the telephone, with cuts, pauses and crashes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import websockets
from streamdouble.scenario import Wait, WaitFor

from realtime.client import connect
from realtime.client.talk import read_audio
from tests.calls import phone
from tests.calls.caller import RATE, clip, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import API_KEY, Server
from tests.media.webrtc import loudest_hz

CONFIG = (
    phone.CONFIG
    + """
[agents.default]
recording = true

[agents.shop]
greeting = "Welcome."
recording = { announcement = "This call is recorded.", retain_seconds = 600, by_caller = true }

[agents.private]
"""
)
QUIET = 0.01
"""Of full scale."""
SESSIONS = "/v1/ai/realtime/sessions"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("recording")
    bot = str(Path(__file__).parent / "bots" / "hushed.py")
    with Server(folder, bot, "--engines", "instant", config=CONFIG, environ=phone.ENVIRON) as running:
        yield running


@pytest.fixture(scope="module")
def records(server: Server) -> dict[str, Json]:
    """Calls of every kind, all at once."""

    async def record_of(call: Awaitable[str]) -> Json:
        return await ended(server, await call)

    async def all_at_once() -> dict[str, Json]:
        calls = {
            "webrtc": a_cut_call(server),
            "websocket": a_call_that_plays_a_second(server),
            "phone": a_cut_phone_call(server),
            "paused": a_paused_call(server),
            "shop": a_short_call(server, "shop"),
            "private": a_short_call(server, "private"),
            "hushed": a_hushed_call(server),
        }
        found = await asyncio.gather(*(record_of(call) for call in calls.values()))
        return dict(zip(calls, found, strict=True))

    return asyncio.run(all_at_once())


async def a_cut_call(server: Server) -> str:
    async with dial(server) as caller:
        await caller.microphone.say(clip(HOW_ARE_YOU))
        await caller.wait_for("output_audio_buffer.started")
        await asyncio.sleep(1.0)
        await caller.microphone.say(clip(HOW_ARE_YOU))
        await caller.wait_for("output_audio_buffer.cleared")
        await caller.wait_for("output_audio_buffer.started")
        await asyncio.sleep(0.5)
        return caller.session_id


async def a_paused_call(server: Server) -> str:
    async with dial(server) as caller:
        path = f"{SESSIONS}/{caller.session_id}/recording"
        caller.ask("Go on.")
        await caller.wait_for("output_audio_buffer.started")
        await asyncio.sleep(1.0)
        status, _, body = await server.request("POST", f"{path}/pause")
        assert (status, b'"paused"' in body) == (200, True)
        await asyncio.sleep(1.0)
        caller.send({"type": "realtime.recording.resume"})
        assert (await caller.wait_for("error"))["error"]["code"] == "not_allowed"
        assert (await server.get(path))["status"] == "paused"
        async with websockets.connect(
            f"{server.url.replace('http', 'ws')}/v1/realtime?call_id={caller.session_id.replace('sess', 'rtc')}",
            additional_headers={"Authorization": f"Bearer {API_KEY}"},
        ) as sideband:
            await sideband.send('{"type": "realtime.recording.resume"}')
            async with asyncio.timeout(10):
                while (await server.get(path))["status"] == "paused":  # noqa: ASYNC110 - nothing is told of it
                    await asyncio.sleep(0.02)
        await asyncio.sleep(0.8)
        assert (await server.get(path))["status"] == "recording"
        assert (await server.request("POST", f"{path}/pause", credential=None))[0] == 401
        return caller.session_id


async def a_short_call(server: Server, agent: str) -> str:
    async with connect(server.url, api_key=API_KEY, agent=agent, transport="websocket") as call:
        session = str((await call.wait_for("session.created"))["session"]["id"])
        if agent == "shop":
            said = await call.wait_for("response.output_audio_transcript.done")
            assert said["transcript"] == "This call is recorded. Welcome."
            await call.send({"type": "realtime.recording.pause"})
            async with asyncio.timeout(10):
                while (await server.get(f"{SESSIONS}/{session}/recording"))["status"] != "paused":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
    return session


async def a_hushed_call(server: Server) -> str:
    async with dial(server, agent="hushed") as caller:
        caller.ask("Go on.")
        await caller.wait_for("output_audio_buffer.started")
        await asyncio.sleep(0.5)
        assert (await server.get(f"{SESSIONS}/{caller.session_id}/recording"))["status"] == "paused"
        return caller.session_id


async def a_call_that_plays_a_second(server: Server) -> str:
    async with connect(server.url, api_key=API_KEY, transport="websocket") as call:
        session = str((await call.wait_for("session.created"))["session"]["id"])
        speech = np.concatenate((read_audio(HOW_ARE_YOU), np.zeros(24_000, np.int16)))
        for start in range(0, len(speech), 2400):
            call.send_audio(speech[start : start + 2400])
            await asyncio.sleep(0.1)
        done = await call.wait_for("response.done")
        item = done["response"]["output"][0]["id"]
        await asyncio.sleep(1.0)  # five seconds were sent at once; the client plays one of them
        heard = {"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": 1000}
        await call.send(heard)
        await call.wait_for("conversation.item.truncated")
        await asyncio.sleep(0.5)
    return session


async def a_cut_phone_call(server: Server) -> str:
    question = phone.saying(HOW_ARE_YOU)
    steps = (question, WaitFor("audio"), Wait(1.0), question, WaitFor("clear"))
    report = await phone.ring(server, *steps, max_drain_s=0.2)
    assert report.result.violations == []
    [session] = re.findall(r"call started \S+ session=(\S+) \S+ \S+ \S+ subject=\S*twilio", server.log())
    return str(session)


async def ended(server: Server, session: str) -> Json:
    """The record of the call, once it is written."""
    path = f"{SESSIONS}/{session}/transcript"
    async with asyncio.timeout(30):
        while "ended_at" not in await server.get(path):  # noqa: ASYNC110 - the API has no event for it; webhooks have
            await asyncio.sleep(0.05)
    return await server.get(path)


async def sound(server: Server, recording: Json) -> tuple[np.ndarray, np.ndarray]:
    """Caller and bot at 48 kHz, fetched by the link alone."""
    assert recording["url"].startswith(server.url)
    status, headers, body = await server.request("GET", recording["url"].removeprefix(server.url), credential=None)
    assert (status, headers["content-type"]) == (200, "audio/ogg")
    assert len(body) == recording["bytes"]
    file = server.folder / "fetched.ogg"
    file.write_bytes(body)
    with av.open(str(file)) as container:
        stereo = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert stereo.shape[1] / 48_000 == pytest.approx(recording["seconds"], abs=0.2)
    return stereo[0], stereo[1]


def loud(track: np.ndarray) -> list[tuple[float, float]]:
    """From and until when there is sound, in seconds; pauses of less than 0.4 s belong to it."""
    frames = track[: len(track) // 480 * 480].reshape(-1, 480)
    sounding = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > QUIET)
    if not len(sounding):
        return []
    parts = np.split(sounding, np.flatnonzero(np.diff(sounding) > 40) + 1)
    return [(part[0] / 100, (part[-1] + 1) / 100) for part in parts]


def the_cut(record: Json) -> Json:
    return next(turn for turn in record["turns"] if turn["barge_in_ms"] is not None)


async def test_a_call_that_is_cut_sounds_as_it_was_heard(server: Server, records: dict[str, Json]) -> None:
    record = records["webrtc"]
    assert record["recording"]["status"] == "complete"
    left, right = await sound(server, record["recording"])
    first, second = loud(left)[:2]
    answer, again = loud(right)[:2]
    assert loudest_hz(right[int(answer[0] * 48_000) + 4800 :][:24_000], 48_000) == pytest.approx(440, abs=5)
    # The bot's track follows what was heard: from the packet that left first to the one that left last.
    assert answer[0] - first[1] == pytest.approx(record["turns"][0]["voice_to_voice_ms"] / 1000, abs=0.2)
    assert answer[1] - answer[0] == pytest.approx(the_cut(record)["heard_ms"] / 1000, abs=0.2)
    assert answer[1] - second[0] == pytest.approx(the_cut(record)["barge_in_ms"] / 1000, abs=0.2)
    assert again[0] > second[1]
    [said] = loud(np.repeat(clip(HOW_ARE_YOU) / 32768, 48_000 // RATE))
    assert first[1] - first[0] == pytest.approx(said[1] - said[0], abs=0.2)


async def test_over_a_websocket_what_the_client_did_not_play_is_not_recorded(
    server: Server, records: dict[str, Json]
) -> None:
    left, right = await sound(server, records["websocket"]["recording"])
    [said] = loud(left)
    [answer] = loud(right)
    assert answer[0] > said[1]
    assert 0.7 < answer[1] - answer[0] < 2.5


async def test_a_telephone_call_that_is_cut_has_only_what_was_played(server: Server, records: dict[str, Json]) -> None:
    record = records["phone"]
    assert record["recording"]["status"] == "complete"
    left, right = await sound(server, record["recording"])
    answer = loud(right)[0]
    assert answer[1] - answer[0] == pytest.approx(the_cut(record)["heard_ms"] / 1000, abs=0.3)
    first, second = loud(left)[:2]
    assert answer[0] > first[1]
    assert second[0] - 0.4 < answer[1] < second[1]  # before it by what the carrier holds back


async def test_a_pause_is_silent_on_both_sides_and_a_deleted_recording_is_gone(
    server: Server, records: dict[str, Json]
) -> None:
    record = records["paused"]
    path = f"{SESSIONS}/{record['session_id']}/recording"
    recording = record["recording"]
    assert recording["paused_seconds"] == pytest.approx(1.0, abs=0.5)
    _, right = await sound(server, recording)
    before, after = loud(right)[:2]
    assert after[0] - before[1] == pytest.approx(recording["paused_seconds"], abs=0.1)
    found = await server.get(path)
    assert found["url"].partition("?")[0] == recording["url"].partition("?")[0]
    assert (await server.request("DELETE", path))[0] == 204
    assert (await server.request("GET", path))[0] == 404
    assert (await server.request("GET", found["url"].removeprefix(server.url), credential=None))[0] == 404
    assert (await server.request("DELETE", path))[0] == 204
    assert (await server.request("POST", f"{path}/pause"))[0] == 404


async def test_the_agents_settings_say_who_is_recorded_and_for_how_long(
    server: Server, records: dict[str, Json]
) -> None:
    shop, private = records["shop"], records["private"]
    assert shop["recording"]["keep_until"] == pytest.approx(shop["ended_at"] + 600, abs=60)
    assert private["recording"] is None
    assert (await server.request("GET", f"{SESSIONS}/{private['session_id']}/recording"))[0] == 404


async def test_an_agent_may_keep_a_call_out_of_its_recording(server: Server, records: dict[str, Json]) -> None:
    recording = records["hushed"]["recording"]
    assert recording["paused_seconds"] == recording["seconds"] > 0.5
    left, right = await sound(server, recording)
    assert loud(left) == loud(right) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="worker processes are found in /proc")
async def test_a_writer_that_is_killed_costs_a_second_of_the_recording_and_nothing_of_the_call(
    server: Server, records: dict[str, Json]
) -> None:
    async with dial(server) as caller:
        session = caller.session_id
        caller.ask("Go on.")
        await caller.wait_for("output_audio_buffer.started")
        await asyncio.sleep(2.5)
        [pid] = server.workers("recording.writer")
        os.kill(pid, signal.SIGKILL)
        await caller.wait_for("output_audio_buffer.stopped")
    recording = (await ended(server, session))["recording"]
    assert (recording["status"], recording["failure"]) == ("incomplete", None)
    assert 0 < recording["lost_seconds"] < 3
    _, right = await sound(server, recording)
    assert sum(end - begin for begin, end in loud(right)) > 4.5 - recording["lost_seconds"]
    _, _, metrics = await server.request("GET", "/metrics")
    assert b'realtime_recording_troubles_total{reason="writer_died"} 1.0' in metrics
    assert os.listdir(server.folder / "data" / "recordings") == []
