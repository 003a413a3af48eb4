"""Turns: text and speech, detected and committed, cut and cancelled, with tools and beside the conversation."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from typing import Any

import openai
from openai_call import RATE, TOOL, WEATHER, Call, client_of, connected, main, said, sound


async def text_turn() -> None:
    async with connected() as call:
        await call.update(output_modalities=["text"])
        await call.ask("Tell me a joke.")
        response = await call.answer()
        text = call.only("response.output_text.done").text
        assert text == response.output[0].content[0].text
        assert text == "".join(e.delta for e in call.events if e.type == "response.output_text.delta")
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
        assert "response.output_audio.delta" not in call.types()


async def audio_turn() -> None:
    """A recording as an item of its own, answered aloud."""
    content = [{"type": "input_audio", "audio": base64.b64encode(sound("weather.pcm")[2 * RATE : -2 * RATE]).decode()}]
    async with connected() as call:
        await call.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await call.connection.response.create()
        response = await call.answer()
        assert call.only("conversation.item.input_audio_transcription.completed").transcript == WEATHER
        assert response.output[0].content[0].transcript
        assert len(call.audio()) > RATE
        assert len(call.audio()) % 2 == 0


async def vad_turn() -> None:
    """Speech as it is spoken, in pieces of 20 ms."""
    async with connected() as call:
        data = sound("weather.pcm")

        async def speak() -> None:
            for at in range(0, len(data), 960):
                await call.append(data[at : at + 960])
                await asyncio.sleep(0.005)

        speaking = asyncio.create_task(speak())
        response = await call.answer()
        await speaking
        assert response.status == "completed"
        order = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "conversation.item.input_audio_transcription.completed",
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.done",
        ]
        places = [call.types().index(kind) for kind in order]
        assert places == sorted(places), call.types()
        started, stopped = call.only(order[0]), call.only(order[1])
        assert 500 <= started.audio_start_ms <= 1300, started
        assert 3800 <= stopped.audio_end_ms <= 5000, stopped
        items = {event.item_id for event in call.events if event.type.startswith("input_audio_buffer.")}
        assert len(items) == 1
        assert call.only(order[5]).transcript == WEATHER


async def manual_turn() -> None:
    async with connected() as call:
        await call.update(audio={"input": {"turn_detection": None}})
        await call.append(sound("how_are_you.pcm")[2 * RATE : -2 * RATE])
        await call.connection.input_audio_buffer.commit()
        await call.connection.response.create()
        await call.answer()
        assert call.only("conversation.item.input_audio_transcription.completed").transcript.endswith("today")
        assert "input_audio_buffer.speech_started" not in call.types()
        await call.connection.input_audio_buffer.commit(event_id="ev_1")
        assert (await call.until("error")).error.event_id == "ev_1"
        await call.append(sound("how_are_you.pcm"))
        await call.connection.input_audio_buffer.clear()
        await call.until("input_audio_buffer.cleared")


async def g711_turn() -> None:
    async with connected() as call:
        session = await call.update(
            audio={"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}
        )
        assert session.audio.output.format.type == "audio/pcmu"
        await call.append(sound("weather.ulaw"))
        response = await call.answer()
        # The embedded recogniser understands half of what comes over a telephone.
        assert "tomorrow" in call.only("conversation.item.input_audio_transcription.completed").transcript
        assert response.audio.output.format.type == "audio/pcmu", response.audio
        # µ-law: one byte a sample at 8 kHz, silence is 0xff or 0x7f.
        assert len(call.audio()) > 8000
        assert len(set(call.audio())) > 50


async def semantic_vad_turn() -> None:
    async with connected() as call:
        session = await call.update(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}})
        turn = session.audio.input.turn_detection
        assert (turn.type, turn.eagerness, turn.create_response, turn.interrupt_response) == (
            "semantic_vad",
            "high",
            True,
            True,
        )
        await call.append(sound("how_are_you.pcm"))
        assert (await call.answer()).status == "completed"


async def barge_in_with_truncation() -> None:
    """The program plays in real time, stops when the caller speaks, and says how much was heard."""
    async with connected() as call:
        await call.ask("Tell me a very long story.")
        first = await call.until("response.output_audio.delta")
        begun = time.monotonic()
        assert (await call.answer()).status == "completed"
        await asyncio.sleep(max(0.0, begun + 2.0 - time.monotonic()))
        await call.append(sound("how_are_you.pcm"))
        await call.until("input_audio_buffer.speech_started")
        played = round((time.monotonic() - begun) * 1000)
        await call.connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=played)
        assert (await call.until("conversation.item.truncated")).audio_end_ms == played
        await call.connection.conversation.item.retrieve(item_id=first.item_id)
        kept = (await call.until("conversation.item.retrieved")).item.content[0].transcript
        assert kept
        assert call.only("response.output_audio_transcript.done").transcript.startswith(kept)
        assert len(kept.split()) < 30, kept
        assert (await call.answer()).status == "completed"


async def barge_in_while_the_answer_is_made() -> None:
    async with connected() as call:
        await call.append(sound("how_are_you.pcm")[: RATE * 2 * 3 // 4])  # the silence before the words
        await call.ask("Tell me a very long story.")
        first = await call.until("response.output_audio.delta")
        await call.append(sound("how_are_you.pcm"))
        done = await call.answer()
        assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected"), done
        assert done.output[0].status == "incomplete"
        # The client throws its queue away and truncates only if the speech came before the closing events.
        assert call.types().index("input_audio_buffer.speech_started") < call.types().index(
            "response.output_audio.done"
        )
        await call.connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=700)
        await call.until("conversation.item.truncated")
        answer = await call.answer()
        assert answer.status == "completed"
        after = call.types()[call.types().index("response.done") :]
        assert "response.output_audio.delta" in after
        late = [e for e in call.events if e.type == "response.output_audio.delta" and e.item_id == first.item_id]
        assert call.events.index(late[-1]) < call.types().index("response.done")


async def interrupt_response_false() -> None:
    async with connected() as call:
        await call.update(
            audio={
                "input": {
                    "turn_detection": {"type": "server_vad", "interrupt_response": False, "create_response": False}
                }
            }
        )
        await call.ask("Count to ten.")
        await call.until("response.output_audio.delta")
        await call.append(sound("how_are_you.pcm"))
        assert (await call.answer()).status == "completed"
        if "conversation.item.input_audio_transcription.completed" not in call.types():
            await call.until("conversation.item.input_audio_transcription.completed")
        assert call.types().count("response.created") == 1


async def cancel() -> None:
    async with connected() as call:
        await call.ask("Tell me a very long story.")
        await call.until("response.output_audio.delta")
        await call.connection.response.cancel()
        done = await call.answer()
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
        assert done.output[0].status == "incomplete"
        await call.connection.response.cancel(event_id="ev_1")
        assert (await call.until("error")).error.event_id == "ev_1"
        await call.ask("Tell me a joke.")
        assert (await call.answer()).status == "completed"


async def tool_round_trip() -> None:
    async with connected() as call:
        await call.update(tools=[TOOL])
        await call.ask("What is the weather in London?")
        asked = await call.answer()
        assert [item.type for item in asked.output] == ["function_call"]
        wanted = asked.output[0]
        assert (wanted.name, wanted.status) == ("get_weather", "completed")
        arguments = call.only("response.function_call_arguments.done")
        assert json.loads(arguments.arguments)["city"]
        assert arguments.arguments == wanted.arguments
        assert call.only("response.output_item.added").item.status == "in_progress"
        await call.connection.conversation.item.create(
            item={
                "type": "function_call_output",
                "call_id": wanted.call_id,
                "output": json.dumps({"sky": "purple rain"}),
            }
        )
        await call.connection.response.create()
        answer = await call.answer()
        assert "purple rain" in answer.output[0].content[0].transcript
        assert call.types().count("response.function_call_arguments.done") == 1


async def parallel_tools() -> None:
    clock = {"type": "function", "name": "local_time", "description": "The time in a city.", "parameters": {}}
    async with connected() as call:
        await call.update(tools=[TOOL, clock])
        await call.ask("Get the weather in London and the local time there.")
        asked = await call.answer()
        assert [item.name for item in asked.output] == ["get_weather", "local_time"]
        assert len({item.call_id for item in asked.output}) == 2
        for item, output in zip(asked.output, ("purple rain", "half past nine"), strict=True):
            await call.connection.conversation.item.create(
                item={"type": "function_call_output", "call_id": item.call_id, "output": output}
            )
        await call.connection.response.create()
        said = (await call.answer()).output[0].content[0].transcript
        assert "purple rain" in said
        assert "half past nine" in said
        assert call.types().count("response.function_call_arguments.done") == 2


async def out_of_band() -> None:
    async with connected() as call:
        await call.connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "metadata": {"topic": "side"},
                "input": [said("Tell me a joke.")],
            }
        )
        response = await call.answer()
        assert (response.conversation_id, response.metadata) == (None, {"topic": "side"})
        assert response.output[0].content[0].text
        assert "conversation.item.added" not in call.types()


async def eight_calls_at_once() -> None:
    async def one(number: int) -> str:
        async with connected() as call:
            await call.ask(f"Repeat after me: the number {number}.", output_modalities=["text"])
            return (await call.answer()).output[0].content[0].text

    texts = await asyncio.gather(*(one(number) for number in range(8)))
    for number, text in enumerate(texts):
        assert f"number {number}" in text, texts


async def transcription_session() -> None:
    secret = await client_of().realtime.client_secrets.create(
        session={
            "type": "transcription",
            "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}}},
        }
    )
    async with client_of(secret.value).realtime.connect(extra_query={"intent": "transcription"}) as connection:
        call = Call(connection)
        assert (await call.next()).session.type == "transcription"
        await call.append(sound("how_are_you.pcm"))
        heard = await call.until("conversation.item.input_audio_transcription.completed")
        assert heard.transcript.endswith("today")
        assert "response.created" not in call.types()


async def idle_timeout() -> None:
    async with connected() as call:
        await call.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}})
        await call.ask("Repeat after me: hm.")
        await call.answer()
        await call.until("input_audio_buffer.timeout_triggered")
        assert (await call.answer()).status == "completed"


async def the_betasclient_of() -> None:
    """It never validated; what counts is that it hears the answer by the old names."""
    client = openai.AsyncOpenAI(
        api_key=os.environ["API_KEY"], websocket_base_url=os.environ["BASE_URL"].replace("http", "ws")
    )
    async with client.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection:
        seen: list[Any] = []

        async def until(kind: str) -> Any:
            async with asyncio.timeout(20):
                while (event := await connection.recv()).type != kind:
                    assert event.type != "error", event
                    seen.append(event)
            return event

        assert (await until("session.created")).session.input_audio_format == "pcm16"
        turn = {"type": "server_vad", "silence_duration_ms": 400}
        await connection.session.update(
            session={"modalities": ["audio", "text"], "voice": "ash", "turn_detection": turn}
        )
        session = (await until("session.updated")).session
        assert (session.voice, session.turn_detection.silence_duration_ms) == ("ash", 400)
        await connection.input_audio_buffer.append(audio=base64.b64encode(sound("how_are_you.pcm")).decode())
        heard = await until("conversation.item.input_audio_transcription.completed")
        assert heard.transcript.endswith("today")
        done = await until("response.done")
        assert done.response.output[0].content[0].type == "audio"
        assert any(event.type == "response.audio.delta" for event in seen)


if __name__ == "__main__":
    main(globals())
