"""Real calls over loopback WebRTC: a stock aiortc caller, and a Peer with a Peer."""

import asyncio
import itertools
import re
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import uvloop

from media.network import Network, PortsExhausted
from media.pacer import Pacer
from media.peer import NegotiationError, Peer, PeerState
from media.playout import PlayoutEventKind
from tests.media.webrtc import Ear, StockCaller, Track, candidates, loudest_hz, rms, tone, until

QUESTION = Path(__file__).parents[1] / "audio" / "synth_flite_slt_how_are_you.wav"


def speech() -> np.ndarray:
    """The clip at 48 kHz mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    with av.open(str(QUESTION)) as clip:
        frames = [out for frame in clip.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames + resampler.resample(None)])


async def test_a_stock_caller_is_heard_word_for_word(dial):
    said = speech()
    call = await dial(Track(said))
    seconds = len(said) // 960 * 0.02
    await until(lambda: len(call.ear.pcm()) >= (seconds - 0.05) * 16_000, "all of the clip arrived")
    heard = call.ear.pcm()
    # The same loudness over time: the words are there, at their places.
    size = min(len(said) // 3, len(heard)) // 1600 * 1600
    envelope = [np.abs(x[:size].astype(float)).reshape(-1, 1600).mean(axis=1) for x in (said[::3], heard)]
    assert np.corrcoef(*envelope)[0, 1] > 0.95
    assert call.peer.stats()["packets_lost"] == 0


async def test_the_playout_is_heard_by_a_stock_caller_in_full(dial):
    call = await dial()
    call.peer.playout.push(1, tone(1.0, 24_000))
    call.peer.playout.finish(1)
    call.peer.wake()
    await until(lambda: call.ear.playout and call.ear.playout[-1].kind is PlayoutEventKind.DONE)
    packets = call.cable.packets
    await until(lambda: len(packets) == 50)
    assert [p.marker for p in packets] == [True] + [False] * 49
    assert [p.sequence - packets[0].sequence & 0xFFFF for p in packets] == list(range(50))
    steps = [b.timestamp - a.timestamp & 0xFFFFFFFF for a, b in itertools.pairwise(packets)]
    assert all(step and step % 960 == 0 for step in steps)
    assert sum(steps) < 3 * 48_000
    # aiortc's own jitter buffer keeps the last four frames back.
    await until(lambda: len(call.caller.pcm()) >= 46 * 960)
    heard = call.caller.pcm()[4800:]
    assert loudest_hz(heard, 48_000) == pytest.approx(440, abs=5)
    assert rms(heard) == pytest.approx(rms(tone(1.0, 48_000)), rel=0.1)
    assert call.ear.playout[-1].heard_ms == 1000


async def test_nothing_is_sent_while_there_is_nothing_to_say(dial, pacer):
    call = await dial()
    call.peer.playout.push(1, tone(0.1, 24_000))
    call.peer.playout.finish(1)
    call.peer.wake()
    await until(lambda: len(call.cable.packets) == 5)
    await until(lambda: pacer.members == 0, "an idle call is not ticked")
    await asyncio.sleep(0.3)
    assert len(call.cable.packets) == 5
    call.peer.playout.push(2, tone(0.1, 24_000))
    call.peer.wake()
    await until(lambda: len(call.cable.packets) == 10)
    before, after = call.cable.packets[4:6]
    assert after.marker
    assert after.sequence == before.sequence + 1 & 0xFFFF
    step = after.timestamp - before.timestamp & 0xFFFFFFFF
    assert step % 960 == 0
    assert step / 48_000 == pytest.approx(after.at - before.at, abs=0.05)


async def test_an_open_utterance_goes_on_without_being_woken(dial):
    call = await dial()
    call.peer.playout.push(1, tone(0.1, 24_000))
    call.peer.wake()
    await until(lambda: len(call.cable.packets) == 5)
    call.peer.playout.push(1, tone(0.1, 24_000))
    await until(lambda: len(call.cable.packets) == 10)


async def test_a_cut_stops_the_packets_at_once(dial):
    call = await dial()
    call.peer.playout.push(1, tone(5.0, 24_000))
    call.peer.wake()
    await until(lambda: len(call.cable.packets) >= 10)
    sent = call.peer.stats()["packets_sent"]
    (heard,) = call.peer.playout.cut()
    assert heard.heard_ms == sent * 20
    await until(lambda: call.peer.stats()["packets_sent"] > sent)
    await asyncio.sleep(0.1)
    # One more packet holds the fade.
    assert call.peer.stats()["packets_sent"] == sent + 1


async def test_an_utterance_pushed_when_the_last_one_ends_follows_without_a_hole(dial):
    call = await dial()

    def on_playout(event):
        if event.kind is PlayoutEventKind.DONE and event.generation < 3:
            call.peer.playout.push(event.generation + 1, tone(0.1, 24_000))
            call.peer.playout.finish(event.generation + 1)
            call.peer.wake()

    call.ear.on_playout = on_playout
    call.peer.playout.push(1, tone(0.1, 24_000))
    call.peer.playout.finish(1)
    call.peer.wake()
    await until(lambda: len(call.cable.packets) == 15)
    assert [p.marker for p in call.cable.packets] == [True] + [False] * 14


async def test_both_sides_report_to_each_other(dial):
    call = await dial(Track(tone(4.0, 48_000)))
    call.peer.playout.push(1, tone(4.0, 24_000))
    call.peer.wake()

    async def reports() -> dict:
        return {report.type: report for report in (await call.caller.connection.getStats()).values()}

    end = time.monotonic() + 6
    while not {"remote-inbound-rtp", "remote-outbound-rtp"} <= set(await reports()):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    found = await reports()
    assert found["remote-outbound-rtp"].packetsSent > 0
    assert found["remote-inbound-rtp"].packetsReceived > 0
    assert found["remote-inbound-rtp"].packetsLost <= 2
    await until(lambda: call.peer.stats()["round_trip_ms"] > 0)
    assert call.peer.stats()["round_trip_ms"] < 500
    assert call.peer.stats()["fraction_lost"] == 0


async def test_garbage_in_the_stream_leaves_the_call_alive(dial):
    good = [b"\xf8\xff\xfe"] * 10
    call = await dial(Track(packets=[*good, b"\xfb", b"\x03\xff", b"\x00" * 1300, b"\xff" * 50, *good]))
    await until(lambda: call.peer.stats().get("packets_received", 0) >= 24)
    dtls = call.caller.connection.getSenders()[0].transport
    ssrc = b"\x00\x00\x00\x07"
    for packet in (
        b"\x80\x63\x00\x01\x00\x00\x00\x00" + ssrc + b"wrong payload type",
        b"\x80\x60\x00\x01\x00\x00\x00\x00" + ssrc + b"\xf8\xff\xfe",
        b"\x80\x60\x90\x01\x70\x00\x00\x00" + ssrc + b"\xf8\xff\xfe",
        b"\x80\x60\x90\x02\x70\x00\x03\xc0" + ssrc + b"\xf8\xff\xfe",
        b"\x80\x60\x90\x03\x70\x00\x07\x80" + ssrc,
        b"\xa0\x60\x90\x04\x70\x00\x07\x80" + ssrc + b"bad padding\xff",
        b"\x80\xc8\xff\xff" + b"\x00" * 8,
    ):
        await dtls._send_rtp(packet)
    call.cable._back.sendto(b"\x80\x60" + b"\x00" * 40, call.cable.peer)
    call.cable._back.sendto(b"\x80", call.cable.peer)
    call.cable._back.sendto(b"\x80" * 9000, call.cable.peer)
    call.cable._back.sendto(b"\x80\xc8" * 4500, call.cable.peer)
    call.cable._back.sendto(b"", call.cable.peer)
    call.cable._back.sendto(b"\x00\x01\x00\x04" + b"\x00" * 20, call.cable.peer)
    call.peer.send_text("still here")
    await until(lambda: call.caller.texts == ["still here"])
    await until(lambda: call.peer.stats()["packets_unknown"] >= 1)
    stats = call.peer.stats()
    assert stats["packets_corrupt"] >= 2
    assert stats["packets_undecryptable"] >= 1
    assert call.ear.closed == []
    call.peer.playout.push(1, tone(0.1, 24_000))
    call.peer.wake()
    await until(lambda: len(call.cable.packets) == 5)


async def test_a_listener_that_fails_does_not_end_the_call(dial):
    call = await dial(Track(tone(1.0, 48_000)))
    heard = []

    def on_audio(pcm, arrived_at):
        heard.append(pcm)
        raise RuntimeError("listener")

    call.ear.on_audio = on_audio
    await until(lambda: len(heard) > 20)
    assert call.ear.closed == []


async def test_a_caller_that_vanishes_is_closed_by_inactivity(dial, pacer):
    call = await dial(Track(tone(30.0, 48_000)), inactivity_seconds=1.0)
    call.cable.is_cut = True
    await until(lambda: call.ear.closed == ["inactivity"])
    assert pacer.members == pacer.polled == pacer.watched == 0


async def test_a_silent_caller_is_kept_alive_by_its_consent_checks(dial):
    call = await dial(inactivity_seconds=8.0)
    await asyncio.sleep(0.5)
    assert call.ear.closed == []


async def test_a_caller_that_never_connects_is_closed(network, pacer, stock_on_loopback):
    ear, caller = Ear(), StockCaller()
    peer = Peer(network=network, pacer=pacer, connect_seconds=0.5)
    peer.attach(ear)
    await peer.answer(await caller.offer())
    await until(lambda: ear.closed == ["connect_timeout"])
    assert "open" not in ear.told
    await caller.close()
    await peer.close()


async def test_the_caller_hanging_up_closes_the_call_once(dial):
    call = await dial()
    await call.caller.close()
    await until(lambda: call.ear.closed)
    await call.peer.close("hangup")
    await call.peer.close("hangup")
    assert call.ear.closed == ["remote_closed"]
    assert call.ear.told[-1] == "closed"
    assert call.peer.state is PeerState.CLOSED


async def test_nothing_is_told_after_the_end(dial):
    call = await dial(Track(tone(2.0, 48_000)))
    await until(lambda: call.ear.audio)
    call.peer.playout.push(1, tone(1.0, 24_000))
    call.peer.wake()
    await call.peer.close()
    assert call.ear.closed == ["hangup"]
    counts = len(call.ear.audio), len(call.ear.playout), len(call.cable.packets)
    call.peer.wake()
    call.peer.send_text("too late")
    await asyncio.sleep(0.1)
    assert (len(call.ear.audio), len(call.ear.playout), len(call.cable.packets)) == counts


async def test_a_call_leaves_no_task_thread_or_socket_behind(stock_on_loopback):
    network, pacer = Network(interfaces=["127.0.0.1"], udp_ports="28110-28110"), Pacer()
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    for _ in range(2):
        ear, caller = Ear(), StockCaller()
        peer = Peer(network=network, pacer=pacer)
        peer.attach(ear)
        await caller.accept(await peer.answer(await caller.offer()))
        await until(lambda ear=ear: "text_open" in ear.told)
        assert threading.active_count() <= threads + 1, "the stock caller has one decoder thread, we have none"
        await caller.close()
        await until(lambda ear=ear: ear.closed)
        await peer.close()
        await until(lambda: asyncio.all_tasks() == tasks, "all tasks ended", 1.0)
        assert threading.active_count() == threads
        # The second round needs the only port again: the socket is closed.


async def test_a_call_owns_few_tasks_and_no_thread(network, pacer):
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    async with pair(network, pacer) as (one, two, _, _):
        assert len(asyncio.all_tasks() - tasks) <= 2 * 12
        assert threading.active_count() == threads
        assert one.state is two.state is PeerState.OPEN


class pair:
    """`async with pair(network, pacer) as (caller, callee, caller_ear, callee_ear)`: two peers, connected."""

    def __init__(self, network, pacer, **caller_options):
        self.caller = Peer(network=network, pacer=pacer, **caller_options)
        self.callee = Peer(network=network, pacer=pacer)
        self.ears = Ear(), Ear()

    async def __aenter__(self):
        self.caller.attach(self.ears[0])
        self.callee.attach(self.ears[1])
        await self.caller.accept(await self.callee.answer(await self.caller.offer()))
        await until(lambda: all("text_open" in ear.told for ear in self.ears), "both are open")
        return self.caller, self.callee, *self.ears

    async def __aexit__(self, *_):
        await self.caller.close()
        await self.callee.close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_two_peers_talk_on_either_loop_and_family(new_loop, address):
    async def talk():
        network, pacer = Network(interfaces=[address], udp_ports="28120-28129"), Pacer()
        began = time.monotonic()
        async with pair(network, pacer, send_silence=True) as (caller, callee, caller_ear, callee_ear):
            assert caller_ear.opened_at - began < 1.0
            assert caller_ear.told[:2] == callee_ear.told[:2] == ["open", "text_open"]
            caller.send_text("hello")
            callee.send_text("grüße")
            caller.playout.push(1, tone(0.5, 24_000))
            callee.playout.push(1, tone(0.5, 24_000, hz=1000))
            caller.wake()
            callee.wake()
            await until(lambda: rms(caller_ear.pcm()[-1600:]) > 1000 and rms(callee_ear.pcm()[-1600:]) > 1000)
            await until(lambda: caller_ear.texts == ["grüße"] and callee_ear.texts == ["hello"])
            assert loudest_hz(caller_ear.pcm()[-3200:], 16_000) == pytest.approx(1000, abs=20)
        assert caller_ear.closed == ["hangup"]
        assert callee_ear.closed == ["remote_closed"] or callee_ear.closed == ["hangup"]

    try:
        Network(interfaces=[address]).open_sockets()[0].close()
    except Exception:
        pytest.skip(f"{address} cannot be bound here")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(talk())


async def test_a_client_fills_its_pauses_with_silence_as_browsers_do(network, pacer):
    async with pair(network, pacer, send_silence=True) as (caller, _, _, callee_ear):
        await until(lambda: len(callee_ear.pcm()) >= 8000)
        assert rms(callee_ear.pcm()[:1600]) < 10
        caller.playout.push(1, tone(0.2, 24_000))
        caller.playout.finish(1)
        caller.wake()
        await until(lambda: rms(callee_ear.pcm()[-1600:]) > 1000)
        await until(lambda: rms(callee_ear.pcm()[-1600:]) < 10)
        assert caller.stats()["packets_sent"] > 30


async def test_the_answer_names_only_the_configured_address_and_range(pacer, stock_on_loopback):
    network = Network(interfaces=["127.0.0.1"], udp_ports="28130-28131")
    peers, callers = [], []
    for _ in range(2):
        caller, peer = StockCaller(), Peer(network=network, pacer=pacer)
        peer.attach(Ear())
        answer = await peer.answer(await caller.offer())
        assert {address for address, _ in candidates(answer)} == {"127.0.0.1"}
        assert {port for _, port in candidates(answer)} <= {28130, 28131}
        assert "a=msid:" in answer
        peers.append(peer)
        callers.append(caller)
    late, ear = Peer(network=network, pacer=pacer), Ear()
    late.attach(ear)
    with pytest.raises(PortsExhausted, match="28130 to 28131"):
        await late.answer(callers[1].connection.localDescription.sdp)
    assert ear.closed == ["failed"]
    await peers[0].close()
    again = Peer(network=network, pacer=pacer)
    again.attach(Ear())
    await again.answer(callers[0].connection.localDescription.sdp)
    for peer in (*peers, again):
        await peer.close()
    for caller in callers:
        await caller.close()


async def test_the_answer_shows_the_public_address(pacer, stock_on_loopback):
    network = Network(interfaces=["127.0.0.1"], public_address="203.0.113.9")
    caller, peer = StockCaller(), Peer(network=network, pacer=pacer)
    peer.attach(Ear())
    answer = await peer.answer(await caller.offer())
    assert {address for address, _ in candidates(answer)} == {"203.0.113.9"}
    assert set(re.findall(r"^c=IN IP4 (\S+)", answer, re.MULTILINE)) == {"203.0.113.9"}
    assert "127.0.0.1" not in answer
    await peer.close()
    await caller.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda sdp: "hello", "no audio"),
        (lambda sdp: "", "no audio"),
        (lambda sdp: re.sub(r"a=rtcp-mux\r\n", "", sdp), "mux"),
        (lambda sdp: re.sub(r"opus/48000/2|PCM[UA]/8000", "speex/16000", sdp), "opus"),
        (lambda sdp: re.sub(r"m=audio", "m=", sdp), "cannot be used"),
        (lambda sdp: re.sub(r"a=ice-ufrag:.*\r\n", "", sdp), "ICE"),
        (lambda sdp: re.sub(r"m=audio.*?(?=m=application)", "", sdp, flags=re.DOTALL), "audio"),
    ],
    ids=["not-sdp", "empty", "no-rtcp-mux", "no-codec", "bad-m-line", "no-ufrag", "no-audio"],
)
async def test_an_offer_that_cannot_be_used_says_so_and_leaves_nothing(network, pacer, stock_on_loopback, change, says):
    caller, ear = StockCaller(), Ear()
    offer = change(await caller.offer())
    tasks = asyncio.all_tasks()
    peer = Peer(network=network, pacer=pacer)
    peer.attach(ear)
    with pytest.raises(NegotiationError, match=says):
        await peer.answer(offer)
    assert ear.closed == ["failed"]
    await until(lambda: asyncio.all_tasks() <= tasks, "all tasks ended", 1.0)
    assert pacer.watched == 0
    await caller.close()


async def test_video_is_declined_and_the_audio_works(dial, monkeypatch):
    monkeypatch.setattr(StockCaller, "offer", offer_with_video)
    call = await dial(Track(tone(1.0, 48_000)))
    await until(lambda: rms(call.ear.pcm()[-1600:]) > 1000)
    assert re.search(r"m=video.*?a=inactive", call.answer, re.DOTALL)
    assert [thread.name for thread in threading.enumerate() if "video" in thread.name] == []


async def offer_with_video(self: StockCaller) -> str:
    self.connection.addTransceiver("video", "sendrecv")
    await self.connection.setLocalDescription(await self.connection.createOffer())
    return self.connection.localDescription.sdp


async def test_trickled_candidates_connect_and_unusable_ones_are_ignored(network, pacer):
    caller, callee = Peer(network=network, pacer=pacer), Peer(network=network, pacer=pacer)
    ears = Ear(), Ear()
    caller.attach(ears[0])
    callee.attach(ears[1])
    offer = await caller.offer()
    answer = await callee.answer(re.sub(r"a=candidate:.*\r\n", "", offer))
    # Nobody knows where the other is.
    await caller.accept(re.sub(r"a=candidate:.*\r\n", "", answer))
    for line in (None, "", "candidate:", "candidate:x y z", "a=candidate:1 1 tcp 1 127.0.0.1 9 typ host", "\x00" * 100):
        await callee.add_candidate(line)
    await callee.add_candidate(re.search(r"a=(candidate:.*)\r\n", offer)[1])
    await until(lambda: "open" in ears[0].told and "open" in ears[1].told)
    await caller.close()
    await callee.close()


async def test_closing_before_or_during_negotiation_is_clean(network, pacer, stock_on_loopback):
    ear, peer = Ear(), Peer(network=network, pacer=pacer)
    peer.attach(ear)
    await peer.close()
    assert ear.closed == ["hangup"]
    caller, ear, tasks = StockCaller(), Ear(), asyncio.all_tasks()
    peer = Peer(network=network, pacer=pacer)
    peer.attach(ear)
    await peer.answer(await caller.offer())
    await peer.close()
    assert ear.closed == ["hangup"]
    await until(lambda: asyncio.all_tasks() <= tasks)
    await caller.close()
