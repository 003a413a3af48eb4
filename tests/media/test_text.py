"""The text channel over real calls with a stock aiortc caller."""

import asyncio

import pytest
from aiortc import RTCDataChannel
from aiortc.rtcsctptransport import DataChunk

from media.text import MAX_MESSAGE_BYTES, MESSAGES_BURST
from tests.media.webrtc import until

TAKES_ANY_SIZE = "a=max-message-size:1000000"


async def test_text_goes_both_ways_in_order(dial):
    call = await dial()
    sent = [f"event {n} äöü €" for n in range(100)]
    for text in sent:
        call.peer.send_text(text)
        call.caller.channel.send(text)
    await until(lambda: call.caller.texts == sent)
    await until(lambda: call.ear.texts == sent)
    assert call.ear.refused == []


async def test_what_is_sent_before_the_channel_opens_arrives_once_it_does(dial):
    call = await dial(channel=False)
    assert "text_open" not in call.ear.told
    call.peer.send_text("nobody reads this: the offer had no data section")
    assert call.ear.closed == []

    def before(peer):
        for n in range(1100):
            peer.send_text(str(n))

    call = await dial(before=before)
    await until(lambda: call.caller.texts[-1:] == ["1099"])
    # Bounded: the newest are kept.
    assert call.caller.texts == [str(n) for n in range(1100 - 1024, 1100)]


async def test_messages_of_the_largest_size_pass_and_larger_ones_are_refused(dial):
    call = await dial(lie=TAKES_ANY_SIZE)
    call.caller.channel.send("x" * MAX_MESSAGE_BYTES)
    call.caller.channel.send("ä" * (MAX_MESSAGE_BYTES // 2))
    call.caller.channel.send("x" * 300_000)
    call.caller.channel.send("ä" * 150_000)
    call.caller.channel.send("after")
    await until(lambda: call.ear.texts[-1:] == ["after"])
    assert [len(text) for text in call.ear.texts] == [MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES // 2, 5]
    assert [code for code, _ in call.ear.refused] == ["too_large", "too_large"]
    assert call.ear.closed == []


async def test_binary_and_broken_text_are_refused_and_the_call_goes_on(dial):
    call = await dial()
    call.caller.channel.send(b"\x00\x01")
    call.caller.channel.send(b"")
    call.caller.channel.send("")
    # A string on the wire that is not UTF-8.
    await call.caller.connection.sctp._send(call.caller.channel.id, 51, b"\xff\xfe")
    call.caller.channel.send("after")
    await until(lambda: call.ear.texts == ["", "after"])
    assert [code for code, _ in call.ear.refused] == ["not_text"] * 3
    assert call.ear.closed == []


async def test_a_caller_takes_all_that_its_server_has_to_say(dial):
    call = await dial(counts_text=False)
    sent = [str(n) for n in range(500)]
    for text in sent:
        call.caller.channel.send(text)
    await until(lambda: len(call.ear.texts) == 500)
    assert call.ear.texts == sent
    assert call.ear.refused == []


async def test_a_flood_is_cut_down_and_told_once_a_second(dial):
    call = await dial()
    for n in range(500):
        call.caller.channel.send(str(n))
    await until(lambda: call.peer.stats()["texts_received"] + call.peer.stats()["texts_refused"] >= 500)
    assert MESSAGES_BURST <= len(call.ear.texts) <= MESSAGES_BURST + 300
    assert call.ear.texts[:200] == [str(n) for n in range(200)]
    codes = [code for code, _ in call.ear.refused]
    assert 1 <= len(codes) <= 6
    assert set(codes) == {"too_many"}
    # The bucket fills again.
    await asyncio.sleep(0.1)
    call.caller.channel.send("later")
    await until(lambda: call.ear.texts[-1] == "later")


async def test_other_channels_are_closed_and_the_first_is_kept(dial):
    call = await dial()
    strangers: list[RTCDataChannel] = [call.caller.connection.createDataChannel(n) for n in ("chat", "oai-events")]
    await until(lambda: all(channel.readyState == "closed" for channel in strangers))
    call.caller.channel.send("here")
    await until(lambda: call.ear.texts == ["here"])
    assert call.ear.closed == []


async def test_a_caller_that_opens_channel_after_channel_is_ended(dial):
    call = await dial()
    for n in range(40):
        call.caller.connection.createDataChannel(f"channel {n}")
    await until(lambda: call.ear.closed == ["failed"])


async def test_a_reader_that_never_reads_ends_the_call(dial):
    call = await dial(inactivity_seconds=60.0)
    call.cable.is_cut = True
    for _ in range(50):
        call.peer.send_text("x" * 100_000)
    assert call.ear.closed == ["slow_reader"]


async def test_a_message_longer_than_the_caller_takes_is_left_out(dial, monkeypatch):
    call = await dial()
    call.peer.send_text("x" * 300_000)
    call.peer.send_text("after")
    await until(lambda: call.caller.texts == ["after"])
    assert call.ear.closed == []


async def test_a_closed_channel_leaves_the_audio_alone(dial):
    call = await dial()
    call.caller.channel.close()
    await until(lambda: call.caller.channel.readyState == "closed")
    call.peer.send_text("into the void")
    assert call.ear.closed == []


@pytest.mark.parametrize(
    "datagram", [b"\x00" * 12, b"\x13\x88\x13\x88" + b"\x00" * 8 + b"\x01\x00\x00\x04", b"x" * 900]
)
async def test_malformed_sctp_is_dropped(dial, datagram):
    call = await dial()
    await call.caller.connection.sctp.transport._send_data(datagram)
    call.caller.channel.send("after")
    await until(lambda: call.ear.texts == ["after"])
    assert call.ear.closed == []


async def test_endless_messages_end_the_call_before_they_fill_the_memory(dial):
    call = await dial()
    sctp = call.caller.connection.sctp
    # A sender that ignores the window and never ends its message.
    tsn, piece = sctp._local_tsn, b"x" * 1000
    for n in range(4000):
        chunk = DataChunk()
        chunk.flags = 2 if n == 0 else 0
        chunk.tsn = (tsn + n) % 2**32
        chunk.stream_id, chunk.stream_seq, chunk.protocol = call.caller.channel.id, 1, 51
        chunk.user_data = piece
        await sctp._send_chunk(chunk)
        for _ in range(3):
            await asyncio.sleep(0)
        if call.ear.closed:
            break
    await until(lambda: call.ear.closed == ["failed"])
