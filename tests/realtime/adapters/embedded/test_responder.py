import asyncio
from datetime import datetime

import pytest

from realtime.adapters.base import ChatEnd, ChatRequest, EngineError, Message, TextDelta, Tool, ToolCall, ToolCallDelta
from realtime.adapters.embedded.responder import Responder
from realtime.testing import conformance
from realtime.testing.conformance import WEATHER, called, check_deltas, converse, said

NOON = datetime(2025, 3, 4, 15, 7)


def responder() -> Responder:
    return Responder(clock=lambda: NOON)


async def reply(*words: str, **options: object) -> str:
    messages = [Message("user", text) for text in words]
    return said(await converse(responder(), ChatRequest(messages, **options)))  # type: ignore[arg-type]


async def test_it_keeps_the_contract() -> None:
    await conformance.check_chat_model(responder())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("hello how are you today", "Hello! I am well"),
        ("Good morning!", "Hello!"),
        ("what time is it", "It is 3:07 PM."),
        ("Could you tell me the time, please?", "3:07 PM"),
        ("what day is it", "Tuesday, March 4, 2025"),
        ("repeat after me the quick brown fox", "the quick brown fox"),
        ("Please repeat: one, two.", "one, two."),
        ("count to five", "1, 2, 3, 4, 5."),
        ("count to 12", "11, 12."),
        ("count to 999999999999999999999", "99, 100."),
        ("count", "9, 10."),
        ("thanks a lot", "welcome"),
        ("okay goodbye", "Goodbye"),
        ("who are you", "demo"),
        ("are you a real person", "demo"),
        ("what can you do", "story"),
        ("i feel tired of my work", "Why do you feel tired of your work?"),
        ("I'm your friend.", "How long have you been my friend?"),
        ("what is the weather like in london tomorrow", "I heard: what is the weather like in london tomorrow"),
    ],
)
async def test_answers(words: str, part: str) -> None:
    assert part in await reply(words)


async def test_jokes_change_from_turn_to_turn_and_answers_do_not() -> None:
    assert await reply("tell me a joke") != await reply("tell me a joke", "another joke")
    assert await reply("tell me a joke") == await reply("tell me a joke")


@pytest.mark.parametrize("asked", ["tell me a very long story", "Please, a long story!", "a really long story please"])
async def test_a_long_story_is_long_and_told_in_sentences(asked: str) -> None:
    story = await reply(asked)
    assert len(story.split()) >= 120
    sentences = story.split(". ")
    assert len(sentences) >= 12
    assert max(len(sentence.split()) for sentence in sentences) <= 35
    assert len((await reply("tell me a story")).split()) < 100


async def test_without_words_it_greets() -> None:
    for messages in ([], [Message("system", "You are a pirate.")], [Message("user", "")]):
        assert "Hello" in said(await converse(responder(), ChatRequest(messages)))


async def test_a_notice_instead_of_words_is_told_plainly() -> None:
    notice = "[2.3 seconds of speech; no recogniser is installed: pip install 'infrai-realtime[local]', or set stt]"
    answer = await reply(notice)
    assert "2.3 seconds" in answer
    assert "no recogniser is installed" in answer
    assert "I heard: " not in answer


async def test_it_streams_word_by_word_and_counts_them() -> None:
    deltas = await converse(responder(), ChatRequest([Message("user", "who are you"), Message("assistant", "")]))
    words = [delta.text for delta in deltas if isinstance(delta, TextDelta)]
    assert len(words) > 10
    assert all(len(word.split()) == 1 for word in words)
    end = check_deltas(deltas)
    assert end.finish_reason == "stop"
    assert end.usage is not None
    assert (end.usage.input_tokens, end.usage.output_tokens) == (3, len(words))


async def test_others_run_while_it_streams() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    deltas = await converse(responder(), ChatRequest([Message("user", "tell me a very long story")]))
    task.cancel()
    assert turns >= len(deltas) - 5


async def test_max_tokens_is_kept() -> None:
    deltas = await converse(responder(), ChatRequest([Message("user", "a long story please")], max_tokens=5))
    assert len(said(deltas).split()) == 5
    assert deltas[-1].finish_reason == "length"  # type: ignore[union-attr]


async def test_it_calls_a_tool_when_the_words_ask_for_it() -> None:
    asked = ChatRequest([Message("user", "what is the weather like in london tomorrow")], [WEATHER], session="s")
    deltas = await converse(responder(), asked)
    [(id_, name, arguments)] = called(deltas)
    assert name == "get_weather"
    assert arguments == {"location": "london"}
    assert isinstance(deltas[0], ToolCallDelta)
    assert check_deltas(deltas).finish_reason == "tool_calls"
    assert called(await converse(responder(), asked)) == [(id_, name, arguments)]


@pytest.mark.parametrize(("choice", "calls"), [("auto", 0), ("none", 0), ("required", 1), ("tool:get_weather", 1)])
async def test_tool_choice_decides_when_the_words_do_not(choice: str, calls: int) -> None:
    deltas = await converse(responder(), ChatRequest([Message("user", "hello")], [WEATHER], choice))
    assert len(called(deltas)) == calls


async def test_no_tool_is_called_when_none_may_be() -> None:
    asked = [Message("user", "what is the weather in london")]
    assert called(await converse(responder(), ChatRequest(asked, [WEATHER], "none"))) == []
    assert called(await converse(responder(), ChatRequest(asked, [], "required"))) == []
    with pytest.raises(EngineError) as unknown:
        await converse(responder(), ChatRequest(asked, [WEATHER], "tool:other"))
    assert unknown.value.code == "unknown_tool"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            '{"location": "London", "temperature_c": 12, "rain": false, "wind": null}',
            "location London, temperature c 12, rain no, wind nothing",
        ),
        ('["one", 2]', "one, 2"),
        ("sunny", "sunny"),
        ('{"broken', '{"broken'),
        ("[" * 5000, "["),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_a_result_is_told_in_words(result: str, words: str, choice: str) -> None:
    messages = [
        Message("user", "what is the weather in london"),
        Message("assistant", tool_calls=(ToolCall("call_1", "get_weather", "{}"),)),
        Message("tool", result, tool_call_id="call_1"),
    ]
    deltas = await converse(responder(), ChatRequest(messages, [WEATHER], choice))
    assert said(deltas).startswith("Get weather says: ")
    assert words in said(deltas)
    assert called(deltas) == []


async def test_an_empty_result_is_told_too() -> None:
    assert said(await converse(responder(), ChatRequest([Message("tool", "")]))) == "The tool is done."


async def test_a_very_long_message_is_answered_shortly() -> None:
    assert len(await reply("word " * 100_000)) < 1000


async def test_a_rate_spreads_the_words() -> None:
    fast = Responder(words_per_second=1000)
    async with asyncio.timeout(20), fast.stream(ChatRequest([Message("user", "hello")])) as deltas:
        assert isinstance([delta async for delta in deltas][-1], ChatEnd)


def test_it_calls_itself_a_demo() -> None:
    info = Responder().info
    assert (info.model, info.vendor) == ("demo", "embedded")
    assert Tool("x").parameters == {}
