"""embed, image, vision, tts and asr: every field of the published tables, sent and returned."""

from __future__ import annotations

import base64
import io
import struct
import time
import wave
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from realtime.adapters.embedded.drawing import png
from realtime.gateway.errors import GatewayError
from tests.realtime.gateway.conftest import Vendors
from tests.realtime.gateway.server import CHAT, Running, problem
from tests.vendors.openai_stub import CHAT as VENDOR_CHAT
from tests.vendors.openai_stub import EMBEDDINGS, IMAGES, SPEECH, TRANSCRIPTIONS, Plan

EMBED, IMAGE, VISION, TTS, ASR = (f"/v1/ai/{name}" for name in ("embed", "image", "vision", "tts", "asr"))
AUDIO = Path(__file__).parents[2] / "audio"
WEATHER = (AUDIO / "synth_flite_rms_weather_london.wav").read_bytes()
RED = png(np.full((20, 30, 3), (210, 30, 40), np.uint8))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def path_of(url: str, server: Running) -> str:
    assert url.startswith(server.url + "/v1/ai/files/")
    return url.removeprefix(server.url)


# --- embed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "count"), [("one text", 1), (["a", "bbb", "cc"], 3)])
def test_embeddings_are_always_a_list_of_vectors_in_order(vendors: Vendors, given: Any, count: int) -> None:
    answer = vendors.server.ok(EMBED, input=given)
    texts = [given] if isinstance(given, str) else given
    assert [vector[0] for vector in answer["embeddings"]] == [float(len(text)) for text in texts]
    assert len(answer["embeddings"]) == count
    assert answer["model"] == "embed-one"
    assert answer["usage"]["input_tokens"] == 7
    assert answer["metadata"]["cost_usd"] == pytest.approx(7e-6)


def test_dimensions_reach_the_vendor_and_one_that_has_none_refuses(vendors: Vendors) -> None:
    assert len(vendors.server.ok(EMBED, input="x", dimensions=4)["embeddings"][0]) == 4
    assert vendors.first.requests(EMBEDDINGS)[0].body["dimensions"] == 4
    error = vendors.server.error(422, EMBED, input="x", dimensions=4, model="embed-two")
    assert (error["code"], error["param"]) == ("unsupported", "dimensions")


def test_dimensions_that_the_vendor_ignores_are_an_error_and_never_silence(vendors: Vendors) -> None:
    body = b'{"data": [{"index": 0, "embedding": [1.0, 2.0]}]}'
    vendors.first.plan(EMBEDDINGS, Plan(body=body, content_type="application/json"))
    vendors.server.error(422, EMBED, input="x", dimensions=4, vendor="first")


@pytest.mark.parametrize(
    "body",
    [b'{"data": []}', b'{"data": [{"embedding": []}]}', b'{"data": [{"embedding": ["x"]}]}', b"{}", b"no",
     b'{"data": [{"index": 5, "embedding": [1.0]}]}'],
)  # fmt: skip
def test_vectors_that_are_none_are_a_vendor_error(vendors: Vendors, body: bytes) -> None:
    vendors.first.plan(EMBEDDINGS, Plan(body=body, content_type="application/json"), times=2)
    assert vendors.server.error(502, EMBED, input="x", vendor="first")["code"] == "vendor_error"


def test_the_demo_embedder_puts_similar_texts_near_each_other(embedded: Running) -> None:
    texts = ["A raccoon has clever paws", "Clever raccoons use their paws", "Quarterly tax statements"]
    answer = embedded.ok(EMBED, input=texts, dimensions=512)
    one, near, far = (np.array(vector) for vector in answer["embeddings"])
    assert one @ near > one @ far + 0.1
    assert np.linalg.norm(one) == pytest.approx(1.0)
    assert answer == embedded.ok(EMBED, input=texts, dimensions=512) | {
        "metadata": answer["metadata"],
        "_metadata": answer["_metadata"],
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": ["a", ""]}, "input.1"),
     ({"input": "x", "dimensions": 0}, "dimensions"), ({"input": "x", "dims": 3}, "dims"),
     ({"input": ["x"] * 2049}, "input")],
)  # fmt: skip
def test_wrong_embed_fields_are_named(embedded: Running, body: dict[str, Any], param: str) -> None:
    assert embedded.error(422, EMBED, **body)["param"] == param


# --- image ----------------------------------------------------------------------------------------


def test_an_image_is_a_signed_url_and_base64_when_asked_for(vendors: Vendors) -> None:
    answer = vendors.server.ok(IMAGE, prompt="A raccoon", size="1024x1024", n=2, include=["b64"])
    sent = vendors.first.requests(IMAGES)[0].body
    assert (sent["prompt"], sent["size"], sent["n"]) == ("A raccoon", "1024x1024", 2)
    assert len(answer["images"]) == 2
    for one in answer["images"]:
        response = vendors.server.client.get(path_of(one["url"], vendors.server), headers={"Authorization": ""})
        assert response.content == vendors.first.picture == base64.b64decode(one["b64"])
        assert response.headers["content-type"] == "image/png"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert answer["metadata"]["cost_usd"] == pytest.approx(0.08)
    assert "b64" not in vendors.server.ok(IMAGE, prompt="A raccoon")["images"][0]


def test_a_model_that_knows_no_response_format_is_asked_without(vendors: Vendors) -> None:
    vendors.first.refuses = ("response_format",)
    vendors.server.ok(IMAGE, prompt="A raccoon")


def test_the_demo_draws_the_size_that_was_asked_for(embedded: Running) -> None:
    answer = embedded.ok(IMAGE, prompt="A raccoon", size="320x200", n=1, prefer="cheapest")
    data = embedded.client.get(path_of(answer["images"][0]["url"], embedded)).content
    with av.open(io.BytesIO(data), format="png_pipe") as picture:
        frame = next(picture.decode(video=0))
    assert (frame.width, frame.height) == (320, 200)


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "prompt"), ({"prompt": "x", "size": "big"}, "size"), ({"prompt": "x", "size": "9000x1"}, "size"),
     ({"prompt": "x", "n": 0}, "n"), ({"prompt": "x", "n": 11}, "n"), ({"prompt": "x", "quality": "hd"}, "quality")],
)  # fmt: skip
def test_wrong_image_fields_are_named(embedded: Running, body: dict[str, Any], param: str) -> None:
    assert embedded.error(422, IMAGE, **body)["param"] == param


# --- vision ---------------------------------------------------------------------------------------


def test_vision_sends_question_and_pictures_to_a_model_that_sees(vendors: Vendors) -> None:
    answer = vendors.server.ok(VISION, prompt="What?", images=[{"base64": b64(RED), "mime": "image/jpeg"}])
    assert answer["content"] == "Hello there, friend."
    assert {"finish_reason", "usage", "metadata"} <= answer.keys()
    text, picture = vendors.first.requests(VENDOR_CHAT)[0].body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    assert picture["image_url"]["url"] == f"data:image/png;base64,{b64(RED)}"  # by its bytes, not by what it is called


def test_the_demo_says_that_it_cannot_see_and_what_it_knows(embedded: Running) -> None:
    answer = embedded.ok(VISION, prompt="What?", images=[{"base64": b64(RED)}])
    assert "cannot see" in answer["content"]
    assert "30 by 20" in answer["content"]
    assert "red" in answer["content"]


@pytest.mark.parametrize(
    ("images", "code"),
    [([], "invalid_value"), ([{}], "invalid_value"), ([{"url": "http://x/", "base64": "eA=="}], "invalid_value"),
     ([{"base64": "%%%"}], "invalid_value"), ([{"base64": b64(b"no picture")}], "unknown_format"),
     ([{"url": "http://127.0.0.1/x.png"}], "forbidden_url"), ([{"url": "file:///etc/passwd"}], "forbidden_url"),
     ([{"url": "data:text/plain,x"}], "invalid_value"), ([{"base64": "eA=="}] * 17, "invalid_value")],
)  # fmt: skip
def test_wrong_pictures_are_refused(embedded: Running, images: list[Any], code: str) -> None:
    assert embedded.error(422, VISION, prompt="What?", images=images)["code"] == code


# --- tts ------------------------------------------------------------------------------------------


def seconds_of(data: bytes, form: str) -> float:
    if form == "pcm":
        return len(data) / 2 / 24_000
    with av.open(io.BytesIO(data)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.mark.parametrize(
    ("form", "mime"),
    [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("ogg", "audio/ogg"), ("pcm", "audio/pcm"), (None, "audio/mpeg")],
)
def test_speech_in_every_format_lasts_as_long_as_it_was_spoken(vendors: Vendors, form: str | None, mime: str) -> None:
    body = {"format": form} if form else {}
    answer = vendors.server.ok(TTS, input="Hello from Infrai.", voice="alloy", **body)
    assert answer["format"] == (form or "mp3")
    assert answer["sample_rate"] == 24_000
    response = vendors.server.client.get(path_of(answer["audio_url"], vendors.server), headers={"Authorization": ""})
    assert response.headers["content-type"] == mime
    # An mp3 decoder gives out the silence that fills its last frames.
    assert seconds_of(response.content, form or "mp3") == pytest.approx(0.6, abs=0.1)
    assert answer["duration_seconds"] == pytest.approx(0.6, abs=0.01)
    assert vendors.first.requests(SPEECH)[0].body["voice"] == "alloy"
    assert answer["metadata"]["cost_usd"] == pytest.approx(18e-5)


def test_a_part_of_a_file_can_be_fetched_and_a_changed_url_cannot(embedded: Running) -> None:
    url = path_of(embedded.ok(TTS, input="Hello.", format="wav")["audio_url"], embedded)
    whole = embedded.client.get(url).content
    part = embedded.client.get(url, headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, whole[4:8])
    for changed in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("exp=1", "exp=2"), url.partition("?")[0]):
        assert problem(embedded.client.get(changed), 403)["code"] == "bad_signature"


@pytest.mark.parametrize(("form", "mime"), [("pcm", "pcm"), ("wav", "wav"), ("mp3", "mpeg"), ("ogg", "ogg")])
def test_streamed_speech_begins_before_it_is_all_there(vendors: Vendors, form: str, mime: str) -> None:
    """The voice stops in the middle and never comes back; what it has said by then has been encoded and sent."""
    vendors.first.speech_ms = 3000
    vendors.first.plan(SPEECH, Plan(hang=True, after=15))
    with vendors.server.client.stream(
        "POST", TTS, json={"input": "Hello there.", "format": form, "vendor": "first"}, headers={"Accept": "audio/*"}
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == f"audio/{mime}"
        sound = b""
        for piece in response.iter_bytes():
            sound += piece
            if len(sound) > 2000:
                break
    assert not vendors.first.requests(SPEECH)[0].finished


@pytest.mark.parametrize(("accept", "mime"), [("audio/ogg", "audio/ogg"), ("audio/*", "audio/mpeg")])
def test_streamed_speech_is_what_accept_asks_for(vendors: Vendors, accept: str, mime: str) -> None:
    response = vendors.server.post(TTS, headers={"Accept": accept}, input="Hello there.")
    assert response.headers["content-type"] == mime
    assert seconds_of(response.content, "any") == pytest.approx(0.6, abs=0.1)


def test_streamed_speech_that_breaks_is_not_taken_for_whole(vendors: Vendors) -> None:
    import httpx2

    vendors.first.speech_ms = 3000
    vendors.first.plan(SPEECH, Plan(reset=True, after=4))
    with pytest.raises(httpx2.HTTPError):
        vendors.server.post(TTS, headers={"Accept": "audio/*"}, input="Hello there.", format="pcm")


def test_a_keyed_request_for_audio_is_led_to_its_file(vendors: Vendors) -> None:
    for _ in range(2):
        response = vendors.server.post(TTS, headers={"Accept": "audio/*"}, input="Hello.", idempotency_key="speech")
        assert response.status_code == 303
        assert vendors.server.client.get(response.headers["location"]).headers["content-type"] == "audio/mpeg"
    assert len(vendors.first.requests(SPEECH)) == 1


def test_a_long_text_is_said_piece_by_piece(vendors: Vendors) -> None:
    text = "This is a sentence of a long text. " * 150
    answer = vendors.server.ok(TTS, input=text)
    said = [record.body["input"] for record in vendors.first.requests(SPEECH)]
    assert "".join(said) == text
    assert max(map(len, said)) <= 2000
    assert answer["duration_seconds"] == pytest.approx(0.6 * len(said), abs=0.05)


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "input"), ({"input": ""}, "input"), ({"input": "..."}, "input"), ({"input": "x" * 16_385}, "input"),
     ({"input": "x", "voice": "alloi"}, "voice"), ({"input": "x", "format": "flac"}, "format"),
     ({"input": "x", "speed": 9}, "speed"), ({"input": "x", "pitch": 1}, "pitch")],
)  # fmt: skip
def test_wrong_tts_fields_are_named(embedded: Running, body: dict[str, Any], param: str) -> None:
    assert embedded.error(422, TTS, **body)["param"] == param


# --- asr ------------------------------------------------------------------------------------------


def test_a_transcript_has_language_segments_and_words(vendors: Vendors) -> None:
    answer = vendors.server.ok(ASR, audio={"base64": b64(WEATHER), "mime": "audio/wav"}, language="en-US")
    assert answer["text"] == "what was said"
    assert answer["language"] == "en"
    (segment,) = answer["segments"]
    assert {name: segment[name] for name in ("id", "start", "end", "text")} == {
        "id": 0, "start": 0.0, "end": 3.0, "text": "what was said",
    }  # fmt: skip
    assert segment["words"][1] == {"word": "was", "start": 1.0, "end": 1.9}
    assert answer["duration_seconds"] == pytest.approx(3.19, abs=0.01)
    assert answer["metadata"]["cost_usd"] == pytest.approx(3.19e-4, rel=0.01)
    record = vendors.first.requests(TRANSCRIPTIONS)[0]
    assert record.body["language"] == "en"
    assert record.wav is not None
    assert record.wav.framerate == 16_000


def test_a_server_that_knows_no_times_gives_one_segment(vendors: Vendors) -> None:
    vendors.first.refuses = ("verbose_json",)
    answer = vendors.server.ok(ASR, audio={"base64": b64(WEATHER)})
    (segment,) = answer["segments"]
    assert (segment["text"], segment["start"]) == ("what was said", 0.0)
    assert answer["language"] is None


def test_an_upload_is_the_same(embedded: Running) -> None:
    response = embedded.client.post(ASR, files={"audio": ("a.wav", WEATHER)}, data={"language": "English"})
    assert response.status_code == 200, response.text
    assert "weather" in response.json()["text"]
    assert response.json()["language"] == "en"


@pytest.mark.parametrize("form", ["mp3", "ogg"])
def test_other_formats_are_understood(embedded: Running, form: str) -> None:
    url = path_of(embedded.ok(TTS, input="What time is it?", format=form)["audio_url"], embedded)
    data = embedded.client.get(url).content
    answer = embedded.ok(ASR, audio={"base64": b64(data), "mime": "nonsense"})
    assert answer["duration_seconds"] > 0.5


@pytest.mark.parametrize(
    ("body", "code"),
    [({}, "missing_field"), ({"audio": {}}, "invalid_value"), ({"audio": {"base64": "?"}}, "invalid_value"),
     ({"audio": {"base64": b64(b"nothing")}}, "unknown_format"),
     ({"audio": {"base64": b64(b"RIFF0000WAVE" + b"x" * 100)}}, "unreadable"),
     ({"audio": {"url": "http://[::1]/a.mp3"}}, "forbidden_url"),
     ({"audio": {"base64": b64(WEATHER)}, "language": "???"}, "invalid_value")],
)  # fmt: skip
def test_wrong_audio_is_refused(embedded: Running, body: dict[str, Any], code: str) -> None:
    assert embedded.error(422, ASR, **body)["code"] == code


# --- files that are more than they seem -----------------------------------------------------------


def zeros(seconds: int) -> bytes:
    """Silence as FLAC: an hour of it is a few hundred kilobytes."""
    out = io.BytesIO()
    with av.open(out, mode="w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        block = np.zeros((1, 8000 * 20), np.int16)
        for _ in range(seconds // 20):
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour: gigabytes of pixels in some kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packed = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(packed.compress(row) for _ in range(min(height, 2000))) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_an_hour_of_silence_in_a_small_file_is_refused_soon(embedded: Running) -> None:
    data = zeros(3600)
    assert len(data) < 1 << 20
    began = time.monotonic()
    assert embedded.error(413, ASR, audio={"base64": b64(data)})["code"] == "audio_too_long"
    assert time.monotonic() - began < 6  # two seconds are owed; the machine may be busy


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (65_000, 1_000), (5_000, 5_000)])
def test_a_picture_of_gigabytes_is_refused_soon(embedded: Running, width: int, height: int) -> None:
    began = time.monotonic()
    response = embedded.post(VISION, prompt="What?", images=[{"base64": b64(bomb(width, height))}])
    assert response.status_code in (413, 422)
    assert problem(response, response.status_code)["code"] in ("image_too_large", "file_too_complex", "unreadable")
    assert time.monotonic() - began < 6


def test_a_wav_that_claims_more_than_it_holds_is_what_it_holds(embedded: Running) -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    data = bytearray(out.getvalue())
    data[40:44] = struct.pack("<I", 0x7FFFFFFF)
    assert embedded.ok(ASR, audio={"base64": b64(bytes(data))})["duration_seconds"] == pytest.approx(1.0, abs=0.05)


# --- what the server keeps --------------------------------------------------------------------------


def test_files_expire_and_old_ones_are_swept(tmp_path: Path) -> None:
    import asyncio
    import os

    from realtime.gateway.files import LocalFiles
    from realtime.store.memory import MemoryStore

    now = time.time()

    async def scenario() -> None:
        clock = [now]
        files = LocalFiles(tmp_path / "f", MemoryStore(), seconds=60, max_bytes=100, clock=lambda: clock[0])
        await files.start()
        id_ = await files.put(b"x" * 80, "image/png")
        query = (await files.url("http://x", id_)).partition("?")[2]
        assert files.open(id_, query).path.read_bytes() == b"x" * 80
        with pytest.raises(GatewayError, match="no room"):
            await files.put(b"x" * 80, "image/png")
        clock[0] += 61
        with pytest.raises(GatewayError, match="expired"):
            files.open(id_, query)
        await files.close()
        os.utime(tmp_path / "f" / id_, (now - 100, now - 100))
        again = LocalFiles(tmp_path / "f", MemoryStore(), seconds=60, max_bytes=100)
        await again.start()
        assert list((tmp_path / "f").iterdir()) == []
        await again.close()

    asyncio.run(scenario())


# --- models, usage, jobs --------------------------------------------------------------------------


def test_models_say_kind_prices_and_which_are_demos(vendors: Vendors) -> None:
    data = vendors.server.client.get("/v1/ai/models").json()["data"]
    by_id = {(one["id"], one["kind"]): one for one in data}
    assert by_id["gpt-one", "chat"]["usd_per"]["input_token"] == 1e-6
    assert by_id["hear-one", "asr"]["note"] is None
    assert "demo" in by_id["embedded", "chat"]["note"]


def test_a_batch_job_in_time_is_the_answer_at_full_price(vendors: Vendors) -> None:
    answer = vendors.server.ok(CHAT, messages="Hello", batch_mode=True)
    assert answer["content"] == "Hello there, friend."
    assert answer["metadata"]["discount"] is None
    assert "batch_unsupported" in answer["metadata"]["warnings"]
    shown = vendors.server.client.get(f"/v1/ai/batches/{answer['metadata']['batch_id']}").json()
    assert (shown["object"], shown["status"], shown["result"]["content"]) == (
        "batch_job",
        "completed",
        answer["content"],
    )


def test_a_batch_job_that_takes_longer_is_a_job_that_can_be_cancelled(vendors: Vendors) -> None:
    vendors.first.plan(VENDOR_CHAT, Plan(hang=True))
    body = {
        "messages": "Hello",
        "batch_mode": True,
        "timeout_seconds": 0.5,
        "vendor": "first",
        "idempotency_key": "job",
    }
    response = vendors.server.post(CHAT, **body)
    assert response.status_code == 202
    job = response.json()
    assert vendors.server.post(CHAT, **body).json()["id"] == job["id"]
    assert response.headers["location"] == f"/v1/ai/batches/{job['id']}"
    cancelled = vendors.server.client.post(f"{response.headers['location']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert vendors.server.client.get(response.headers["location"]).json()["status"] == "cancelled"
    assert problem(vendors.server.client.get("/v1/ai/batches/batch_nothing"), 404)
