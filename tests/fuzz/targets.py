"""Where bytes from outside come in, as functions of one input that must neither raise nor take long.

A target raises for what must not happen; what the product may raise there is caught here, by its type. The corpus of
each is what honest senders send: fuzzing begins there.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from unittest import mock

import numpy as np
from aiortc.rtp import RtcpByePacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSenderInfo, RtcpSrPacket

from media import stream
from media.codec import CODECS, OPUS
from media.inbound import Inbound
from media.opus import OpusDecoder, OpusEncoder, OpusError
from media.outbound import Outbound
from media.playout import Playout
from media.rtp import RtpPacket
from media.stream import AudioStream, Refused
from signaling.sdp import MAX_OFFER_BYTES, OfferError, guard_offer, parse_fragment
from tests.signaling import offers

OPUS_TYPE, KEY_TYPE = 111, 110
MAX_BYTES = 4096
"""Of an input; what arrives in one datagram is less."""


class _Line:
    """A wire without encryption."""

    def decrypt_rtp(self, data: bytes) -> bytes:
        return data

    decrypt_rtcp = decrypt_rtp

    def send_rtcp(self, packet: bytes) -> bool:
        return True


def _datagrams(data: bytes) -> Iterator[tuple[bytes, float]]:
    """An input as datagrams, each behind two bytes of length and one of time in 4 ms."""
    while len(data) > 3:
        end = 3 + int.from_bytes(data[:2], "big")
        yield data[3:end], data[2] * 0.004
        data = data[end:]


def media(data: bytes) -> dict[str, float]:
    """RTP and RTCP after decryption, one after another: parsed, reordered, decoded, answered. The call's counts."""
    refused, now, samples = Refused(), 1000.0, 0

    def heard(pcm: Sequence[int], at: float) -> None:
        nonlocal samples
        samples += len(pcm)

    codec = CODECS["pcmu"] if data[-1:] == b"u" else OPUS
    inbound = Inbound(OPUS_TYPE, heard, codec=codec, key_type=KEY_TYPE)
    outbound = Outbound(
        playout=Playout(),
        payload_type=OPUS_TYPE,
        ssrc=7,
        cname="c",
        send=lambda packet: True,
        on_event=lambda event: None,
    )
    call = AudioStream(_Line(), inbound, outbound, mock.Mock(), refused)  # type: ignore[arg-type]
    with mock.patch.object(stream.logger, "exception", side_effect=_caught):
        for datagram, wait in _datagrams(data):
            now += wait
            call.datagram(datagram, now)
            call.on_poll(now)
            call.report(now)
    passed_s, packets = now - 1000.0, len(data) // 15 + 1
    assert samples <= 16_000 * (2 * passed_s + 1 + 0.12 * packets) + 320, "sound out of nothing"
    return {**call.stats(), "samples": samples, "malformed": refused.malformed}


def _caught(message: str) -> None:
    raise


def opus(data: bytes) -> None:
    """Payloads for one decoder: the next honest one decodes whatever came before."""
    decoder = OpusDecoder()
    for payload, _ in _datagrams(data):
        with contextlib.suppress(OpusError):
            assert 1 <= len(decoder.decode(payload)) <= 1920
        decoder.recover(960, payload)
        decoder.conceal(960)
    assert len(decoder.decode(_speech()[0])) == 320


def offer(data: bytes) -> None:
    with contextlib.suppress(OfferError):
        taken = guard_offer(data[:MAX_OFFER_BYTES], codecs=tuple(CODECS))
        assert guard_offer(taken.text, codecs=tuple(CODECS)).text == taken.text


def fragment(data: bytes) -> None:
    with contextlib.suppress(OfferError):
        parse_fragment(data, guard_offer(offers.chrome()))


@cache
def _speech() -> tuple[bytes, ...]:
    encoder = OpusEncoder()
    encoder.expect_loss(0.1)
    wave = (12_000 * (np.arange(10 * 480) * 140 / 24_000 % 1 - 0.5)).astype(np.int16)
    return tuple(encoder.encode(wave[start : start + 480]) for start in range(0, len(wave), 480))


def _framed(*datagrams: bytes) -> bytes:
    """What `_datagrams` takes apart again, 20 ms each."""
    return b"".join(len(datagram).to_bytes(2, "big") + b"\x05" + datagram for datagram in datagrams)


def _rtp(sequence: int, payload: bytes, payload_type: int = OPUS_TYPE) -> bytes:
    return RtpPacket(payload_type, sequence, sequence * 960, 1, payload).serialize()


def _rtcp() -> list[bytes]:
    block = RtcpReceiverInfo(ssrc=7, fraction_lost=20, packets_lost=5, highest_sequence=9, jitter=3, lsr=1, dlsr=2)
    info = RtcpSenderInfo(ntp_timestamp=1 << 40, rtp_timestamp=5, packet_count=6, octet_count=7)
    report = bytes(RtcpSrPacket(ssrc=1, sender_info=info, reports=[block]))
    answer = bytes(RtcpRrPacket(ssrc=1, reports=[block])) + bytes(RtcpByePacket(sources=[1]))
    feedback = struct.pack("!BBHII", 0x81, 205, 3, 1, 7) + struct.pack("!HH", 3, 4)
    described = struct.pack("!BBHI", 0x81, 202, 3, 1) + b"\x01\x04abcd\0\0"
    return [report, answer, feedback, described]


def corpus(name: str) -> list[bytes]:
    if name == "media":
        sound = [_rtp(65_533 + n & 0xFFFF, payload) for n, payload in enumerate(_speech())]
        keys = [_rtp(4 + n, struct.pack("!BBH", 5, 10, 960), KEY_TYPE) for n in range(2)]
        extension = struct.pack("!HHI", 0xBEDE, 1, 5)
        extended = b"\xb1" + sound[1][1:12] + b"abcd" + extension + sound[1][12:] + b"\x01"
        lossy = _framed(*sound[:5], *sound[6:])
        return [_framed(*sound, *keys), lossy, _framed(extended), _framed(*_rtcp(), *sound[:1])]
    if name == "opus":
        return [_framed(*_speech()), _framed(b"\xfb\x03abc", b"\xfc", b"\x1b\x02aa"), _framed(b"\xf9abcd")]
    if name == "offer":
        return [text.encode() for text in (offers.chrome(), offers.firefox(), offers.chrome_with_video())]
    candidates = "".join(f"a={line}\r\n" for line in offers.chrome().splitlines() if line.startswith("a=candidate"))
    return [("a=ice-ufrag:x\r\na=ice-pwd:y\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n" + candidates).encode()]


TARGETS: dict[str, Callable[[bytes], object]] = {"media": media, "opus": opus, "offer": offer, "fragment": fragment}


def mutated(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with some of its bytes flipped, set, cut out, doubled, or another seed's."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        at = chance.randrange(len(data) + 1)
        size = chance.choice((1, 1, 2, 4, 32))
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + size] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size]
            case _:
                other = chance.choice(seeds)
                begin = chance.randrange(len(other) + 1)
                data[at : at + size] = other[begin : begin + size]
    return bytes(data[:MAX_BYTES])
