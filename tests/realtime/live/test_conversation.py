"""The conversation: orders of events, interruption, tools, and what a client may ask for at any moment."""

from __future__ import annotations

import pytest

from media.endpoint import SpeechStarted, SpeechStopped
from realtime.adapters.base import ChatEnd, TextDelta, ToolCallDelta, Usage
from realtime.live.agent import Filler
from realtime.live.effects import (
    ChatFailed,
    ChatProduced,
    EndListening,
    Listen,
    Speak,
    SpeechFailed,
    Stop,
    Think,
    TranscriptFailed,
    TranscriptHeard,
)
from realtime.settings import TurnDetectionSettings
from tests.realtime.live.simulation import EnginePlan, Simulation

FAST = EnginePlan(transcript_delay=0.01, token_delay=0.001, voice_delay=0.001, answer_words=1)


class Call(Simulation):
    """A simulation whose engines say nothing by themselves: the test does."""

    def _transcribe(self, item_id: str) -> None:
        return

    def _think(self, effect: Think) -> None:
        return

    def hear(self, text: str = "hello") -> str:
        """The caller says `text`; gives the item's id. The response has then been asked for."""
        begin = self.now
        started = self.tell(SpeechStarted(0, 100.0, begin - 0.1))
        item_id = next(e["item_id"] for e in started if e["type"] == "input_audio_buffer.speech_started")
        self.run(0.5)
        self.tell(SpeechStopped(1200, 700.0, self.now - 0.5))
        self.tell(TranscriptHeard(item_id, text, final=True))
        return item_id

    def thinking(self) -> Think:
        return [effect for effect in self.effects if isinstance(effect, Think)][-1]

    def answer(self, text: str) -> None:
        generation = self.thinking().generation
        for word in text.split(" "):
            self.tell(ChatProduced(generation, TextDelta(word + " ")))
        self.tell(ChatProduced(generation, ChatEnd("stop", Usage(7, 3))))


def test_an_item_deleted_before_its_words_are_there_gets_none_and_is_not_answered():
    call = Call()
    started = call.tell(SpeechStarted(0, 100.0, call.now - 0.1))
    item_id = started[0]["item_id"]
    call.run(0.5)
    call.tell(SpeechStopped(1200, 700.0, call.now - 0.5))
    assert [e["type"] for e in call.client(type="conversation.item.delete", item_id=item_id)] == [
        "conversation.item.deleted"
    ]
    assert call.tell(TranscriptHeard(item_id, "what time is it", final=True)) == []
    assert not [effect for effect in call.effects if isinstance(effect, Think)]
    call.hear("tell me a joke")  # and the next turn is answered as ever
    assert len([effect for effect in call.effects if isinstance(effect, Think)]) == 1


def test_the_order_of_a_spoken_turn():
    call = Call()
    item_id = call.hear("what time is it")
    call.answer("It is noon.")
    call.run(5)
    call.orders.finish()
    types = call.types()
    assert types.index("response.content_part.added") < types.index("output_audio_buffer.started")
    types.remove("output_audio_buffer.started")
    assert types == [
        "session.created",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "output_audio_buffer.stopped",
    ]
    added = call.of("conversation.item.added")
    assert [event["previous_item_id"] for event in added] == [None, item_id]
    done = call.of("response.done")[0]["response"]
    assert done["status"] == "completed"
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": "It is noon. "}]
    assert done["usage"]["total_tokens"] == 10
    assert call.of("conversation.item.input_audio_transcription.completed")[0]["usage"]["type"] == "duration"


def test_the_model_reads_the_words_and_the_instructions():
    call = Call()
    call.hear("what time is it")
    messages = call.thinking().request.messages
    assert [(message.role, message.content) for message in messages] == [
        ("system", "Be brief."),
        ("user", "what time is it"),
    ]


def test_the_recogniser_hears_from_before_the_onset_and_is_told_the_end():
    call = Call()
    call.tell(SpeechStarted(640, 940.0, call.now))
    call.tell(SpeechStopped(2000, 1500.0, call.now))
    listen = next(effect for effect in call.effects if isinstance(effect, Listen))
    assert listen.from_ms == 640
    assert EndListening(listen.item_id) in call.effects


def test_speech_over_the_bot_cuts_it_and_keeps_the_words_heard():
    call = Call()
    call.hear("tell me")
    call.answer("one two three four five six seven eight.")
    call.run(0.7)
    before = len(call.events)
    call.tell(SpeechStarted(5000, 5300.0, call.now - 0.1))
    kinds = [event["type"] for event in call.events[before:]]
    assert kinds == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    bot = next(item for item in call.conversation.history if item.role == "assistant")
    assert bot.text == "one two three"
    truncated = call.of("conversation.item.truncated")[0]
    assert truncated["item_id"] == bot.id
    assert 600 <= truncated["audio_end_ms"] <= 700
    assert not call.turns
    call.run(0.05)
    # Known once the fade has left: up to one packet later.
    assert call.turns[-1].barge_in_ms == pytest.approx(110, abs=11)


def test_speech_while_the_answer_is_still_being_made_cancels_it():
    call = Call()
    call.hear("tell me")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, TextDelta("one two three, four")))
    call.run(0.35)
    before = len(call.events)
    call.tell(SpeechStarted(5000, 5300.0, call.now - 0.1))
    assert [event["type"] for event in call.events[before:]] == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "conversation.item.truncated",
    ]
    done = call.of("response.done")[-1]["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
    assert done["output"][0]["status"] == "incomplete"
    assert Stop(generation) in call.effects
    call.tell(ChatProduced(generation, TextDelta("late")))
    assert "late" not in str(call.events)


def test_a_second_turn_reads_only_what_was_heard_of_the_first_answer():
    call = Call()
    call.hear("tell me")
    call.answer("one two three four five six seven eight.")
    call.run(0.5)
    call.hear("stop")
    assert [message.content for message in call.thinking().request.messages][1:] == ["tell me", "one two", "stop"]


def test_hanging_up_keeps_what_was_heard_and_leaves_no_turn_unrecorded():
    call = Call()
    call.hear("tell me")
    call.answer("one two three four five six seven eight.")
    call.run(0.5)
    (turn,) = call.conversation.ended()
    assert (turn.status, turn.heard_ms) == ("completed", pytest.approx(480, abs=20))
    assert [item.text for item in call.conversation.history][-1] == "one two"


def test_hanging_up_before_the_answer_is_made_is_a_cancelled_turn():
    call = Call()
    call.hear("tell me")
    call.tell(ChatProduced(call.thinking().generation, TextDelta("one two")))
    (turn,) = call.conversation.ended()
    assert turn.status == "cancelled"


def test_hanging_up_after_a_turn_that_was_heard_records_nothing_twice():
    call = Call()
    call.hear("tell me")
    call.answer("one two.")
    call.run(5)
    assert len(call.turns) == 1
    assert call.conversation.ended() == []


def test_without_interruption_the_answer_waits_for_the_bot_to_finish_speaking_its_mind():
    call = Call(turn_detection=TurnDetectionSettings(interrupt_response=False))
    call.hear("first")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, TextDelta("one two three, ")))
    call.hear("second")
    assert call.thinking().generation == generation
    call.tell(ChatProduced(generation, ChatEnd("stop")))
    call.run(5)
    assert call.thinking().generation == generation + 1
    assert call.thinking().request.messages[-1].content == "second"


def test_without_create_response_only_the_client_asks_for_answers():
    call = Call(turn_detection=TurnDetectionSettings(create_response=False))
    call.hear("hello")
    assert "response.created" not in call.types()
    call.client(type="response.create")
    assert call.thinking().request.messages[-1].content == "hello"


def test_two_tools_are_called_beside_each_other_and_both_results_are_read():
    call = Call()
    call.hear("weather and time")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, ToolCallDelta(0, '{"city"', "call_1", "weather")))
    call.tell(ChatProduced(generation, ToolCallDelta(1, "{", "call_2", "time")))
    call.tell(ChatProduced(generation, ToolCallDelta(0, ':"Rome"}')))
    call.tell(ChatProduced(generation, ToolCallDelta(1, "}")))
    call.tell(ChatProduced(generation, ChatEnd("tool_calls", Usage(4, 2))))
    call.orders.finish()
    done = call.of("response.function_call_arguments.done")
    assert [(event["call_id"], event["arguments"], event["output_index"]) for event in done] == [
        ("call_1", '{"city":"Rome"}', 0),
        ("call_2", "{}", 1),
    ]
    assert [item["call_id"] for item in call.of("response.done")[-1]["response"]["output"]] == ["call_1", "call_2"]
    for number, output in ((2, "noon"), (1, "sunny")):
        item = {"type": "function_call_output", "call_id": f"call_{number}", "output": output}
        call.client(type="conversation.item.create", item=item)
    call.client(type="response.create")
    *_, asked, first, second = call.thinking().request.messages
    assert [tool.id for tool in asked.tool_calls] == ["call_1", "call_2"]
    assert {(result.tool_call_id, result.content) for result in (first, second)} == {
        ("call_1", "sunny"),
        ("call_2", "noon"),
    }


def test_a_tool_call_streams_its_arguments_and_the_result_is_read_by_the_model():
    call = Call()
    call.hear("weather")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, ToolCallDelta(0, '{"city"', "call_1", "weather")))
    call.tell(ChatProduced(generation, ToolCallDelta(0, ':"Rome"}')))
    call.tell(ChatProduced(generation, ChatEnd("tool_calls", Usage(4, 2))))
    call.orders.finish()
    added = call.of("response.output_item.added")[0]["item"]
    assert (added["status"], added["name"], added["call_id"]) == ("in_progress", "weather", "call_1")
    assert [event["delta"] for event in call.of("response.function_call_arguments.delta")] == ['{"city"', ':"Rome"}']
    done = call.of("response.function_call_arguments.done")[0]
    assert (done["arguments"], done["name"]) == ('{"city":"Rome"}', "weather")
    assert call.of("response.output_item.done")[0]["item"]["status"] == "completed"
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
    call.client(type="conversation.item.create", item=output)
    call.client(type="response.create")
    *_, asked, result = call.thinking().request.messages
    assert asked.tool_calls[0].arguments == '{"city":"Rome"}'
    assert (result.role, result.content, result.tool_call_id) == ("tool", "sunny", "call_1")


def test_a_tool_that_takes_long_is_bridged_by_one_sentence():
    call = Call(filler=Filler("One moment please.", 1.5))
    call.hear("weather")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, ToolCallDelta(0, "{}", "call_1", "weather")))
    call.tell(ChatProduced(generation, ChatEnd("tool_calls")))
    call.run(1.4)
    assert len(call.of("response.created")) == 1
    call.run(20)
    assert [item.text for item in call.conversation.history if item.role == "assistant"] == ["One moment please."]
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
    call.client(type="conversation.item.create", item=output)
    call.client(type="response.create")
    roles = [message.role for message in call.thinking().request.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    call.answer("Sunny.")
    call.run(5)
    call.orders.finish()


def test_a_quick_tool_needs_no_bridge():
    call = Call(filler=Filler("One moment please.", 1.5))
    call.client(type="response.create")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, ToolCallDelta(0, "{}", "call_1", "weather")))
    call.tell(ChatProduced(generation, ChatEnd("tool_calls")))
    call.run(0.5)
    call.client(type="response.create")
    call.answer("Sunny.")
    call.run(10)
    assert "One moment" not in str(call.events)


def test_a_text_response_makes_no_sound():
    call = Call()
    call.client(type="response.create", response={"output_modalities": ["text"]})
    call.answer("Plain words.")
    call.orders.finish()
    assert not [effect for effect in call.effects if isinstance(effect, Speak)]
    assert call.of("response.output_text.done")[0]["text"] == "Plain words. "
    assert call.of("response.content_part.added")[0]["part"] == {"type": "text", "text": ""}


def test_a_greeting_is_said_as_soon_as_the_caller_can_hear():
    call = Call(greeting="Good morning.")
    call.run(3)
    call.orders.finish()
    assert call.of("response.done")[0]["response"]["output"][0]["content"][0]["transcript"] == "Good morning."


def test_a_recogniser_that_fails_ends_the_turn_with_an_error_and_the_next_one_works():
    call = Call()
    call.tell(SpeechStarted(0, 100.0, call.now))
    listen = next(effect for effect in call.effects if isinstance(effect, Listen))
    call.tell(TranscriptFailed(listen.item_id, "worker_died", "The recogniser died."))
    call.tell(SpeechStopped(1200, 700.0, call.now))
    assert call.of("conversation.item.input_audio_transcription.failed")[0]["error"]["code"] == "worker_died"
    assert call.of("error")[0]["error"]["code"] == "worker_died"
    call.hear("again")
    call.answer("Yes.")
    call.run(3)
    call.orders.finish()
    assert call.of("response.done")[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize("failure", [ChatFailed, SpeechFailed])
def test_an_engine_that_fails_fails_the_response_and_the_next_one_works(failure):
    call = Call()
    call.hear("hello")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, TextDelta("one two three, ")))
    call.tell(failure(generation, "timeout", "It took too long."))
    done = call.of("response.done")[0]["response"]
    assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "timeout")
    assert call.of("error")[0]["error"]["code"] == "timeout"
    call.run(2)
    call.hear("again")
    call.answer("Yes.")
    call.run(3)
    call.orders.finish()
    assert call.of("response.done")[-1]["response"]["status"] == "completed"


def test_a_notice_of_a_missing_recogniser_is_no_transcript_but_is_answered():
    call = Call()
    call.tell(SpeechStarted(0, 100.0, call.now))
    item_id = call.events[-1]["item_id"]
    call.tell(SpeechStopped(1200, 700.0, call.now))
    call.tell(TranscriptHeard(item_id, "[2.3 seconds of speech]", final=True, spoken=False))
    assert call.of("conversation.item.input_audio_transcription.completed")[0]["transcript"] == ""
    assert call.thinking().request.messages[-1].content == "[2.3 seconds of speech]"


def test_cancelling_stops_the_making_and_lets_what_was_made_be_heard():
    call = Call()
    call.client(type="response.create")
    generation = call.thinking().generation
    call.tell(ChatProduced(generation, TextDelta("one two three, four five six")))
    call.run(0.1)
    call.client(type="response.cancel")
    call.run(5)
    call.orders.finish()
    done = call.of("response.done")[0]["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "client_cancelled")
    assert call.conversation.history.require(done["output"][0]["id"]).text == "one two three,"
    assert call.heard_words() == {generation: 600.0}


def test_clearing_the_buffer_silences_the_bot():
    call = Call()
    call.client(type="response.create")
    call.answer("one two three four five six.")
    call.run(0.5)
    before = len(call.frames)
    call.client(type="output_audio_buffer.clear")
    call.run(2)
    assert len(call.frames) - before <= 1
    assert call.of("output_audio_buffer.cleared")
    assert (
        call.conversation.history.require(call.of("response.done")[0]["response"]["output"][0]["id"]).text == "one two"
    )
    call.orders.finish()


def test_a_truncation_beyond_the_audio_is_clamped():
    call = Call()
    call.client(type="response.create")
    call.answer("one two three.")
    call.run(3)
    bot = call.of("response.done")[0]["response"]["output"][0]["id"]
    call.client(type="conversation.item.truncate", item_id=bot, content_index=0, audio_end_ms=99_999)
    assert call.of("conversation.item.truncated")[-1]["audio_end_ms"] == 600
    call.client(type="conversation.item.truncate", item_id=bot, content_index=0, audio_end_ms=350)
    assert call.of("conversation.item.truncated")[-1]["audio_end_ms"] == 350
    assert call.conversation.history.require(bot).text == "one two"


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "response.cancel"}, "response_cancel_not_active", None),
        ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_not_found", "item_id"),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_not_found", "item_id"),
        ({"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": 1}, "item_not_found", "item_id"),
        (
            {
                "type": "conversation.item.create",
                "previous_item_id": "x",
                "item": {"type": "message", "role": "user", "content": []},
            },
            "item_not_found",
            "previous_item_id",
        ),
        ({"type": "session.update", "session": {"instructions": 1}}, "invalid_value", "session.instructions"),
        ({"type": "input_audio_buffer.append", "audio": ""}, "unsupported_event", "type"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_the_clients_event_id(event, code, param):
    call = Call()
    (answer,) = call.client(event_id="ev_7", **event)
    assert answer["type"] == "error"
    assert (answer["error"]["code"], answer["error"]["param"]) == (code, param)
    assert answer["error"]["event_id"] == "ev_7"


def test_a_second_response_while_one_is_made_is_refused():
    call = Call()
    call.client(type="response.create")
    (answer,) = call.client(type="response.create", event_id="ev_2")
    assert answer["error"]["code"] == "conversation_already_has_active_response"
    assert answer["error"]["event_id"] == "ev_2"


def test_items_are_created_where_asked_retrieved_and_deleted():
    call = Call()
    text = {"type": "message", "role": "user", "id": "mine", "content": [{"type": "input_text", "text": "hi"}]}
    added, done = call.client(type="conversation.item.create", item=text)
    assert (added["item"]["id"], added["previous_item_id"]) == ("mine", None)
    assert done["type"] == "conversation.item.done"
    first = {"type": "message", "role": "system", "id": "top", "content": []}
    assert (
        call.client(type="conversation.item.create", item=first, previous_item_id="root")[0]["previous_item_id"] is None
    )
    (got,) = call.client(type="conversation.item.retrieve", item_id="mine")
    assert got["item"]["content"] == [{"type": "input_text", "text": "hi"}]
    (gone,) = call.client(type="conversation.item.delete", item_id="mine")
    assert gone == {"type": "conversation.item.deleted", "item_id": "mine", "event_id": gone["event_id"]}


def test_partial_transcripts_only_append_and_the_opt_in_event_shows_them_all():
    call = Call()
    include = ["realtime.input_transcript.partial"]
    call.client(type="session.update", session={"type": "realtime", "include": include})
    call.tell(SpeechStarted(0, 100.0, call.now))
    item_id = call.events[-1]["item_id"]
    call.tell(TranscriptHeard(item_id, "go four", final=False))
    call.tell(SpeechStopped(1200, 700.0, call.now))
    call.tell(TranscriptHeard(item_id, "go forward", final=False))
    call.tell(TranscriptHeard(item_id, "go forward ten meters", final=True))
    assert [event["text"] for event in call.of("realtime.input_transcript.partial")] == ["go four", "go forward"]
    deltas = [event["delta"] for event in call.of("conversation.item.input_audio_transcription.delta")]
    assert deltas == ["go forward", " ten meters"]
