"""A WebRTC leg: one peer connection, its audio both ways and its text channel.

aiortc does ICE, DTLS and SCTP; audio is ours (`media.stream`). A call owns no thread, and no task but
the three of aiortc. Nothing that a caller sends may raise out of here, or reach another call.

    NEW --answer, offer--> NEGOTIATING --described--> CONNECTING --DTLS up--> OPEN
    any of them --close, timeouts, the other side--> CLOSED

`offer` leaves the peer in NEGOTIATING until `accept` brings the answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from typing import Any, ParamSpec

from aiortc import RTCDtlsTransport, RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from media import aiortc_private, dtmf
from media.audio import Pcm
from media.codec import CODECS, OPUS, Codec
from media.inbound import Inbound
from media.leg import Abilities, LegListener
from media.network import Network, NetworkError
from media.outbound import Outbound
from media.pacer import Pacer
from media.playout import Playout, PlayoutEvent
from media.stream import AudioStream, Refused
from media.text import LABEL, TextChannel

logger = logging.getLogger(__name__)

_NEGOTIATION_S = 5.0
"""Seconds for one offer or answer: it takes milliseconds, unless something in it makes aiortc wait."""
_TEARDOWN_S = 2.0
"""Seconds after which a connection that does not close is cut off."""

_P = ParamSpec("_P")

_EARLY_PACKETS = 8
"""Packets kept until DTLS is up: the other side may be a moment ahead, and its first words count."""
_MAX_DATAGRAM = 1500


class NegotiationError(Exception):
    """The description cannot be used; `message` says why. The peer is closed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PeerState(Enum):
    NEW = "new"
    NEGOTIATING = "negotiating"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class Peer:
    """Implements `media.leg.Leg`. One peer is one call: it answers or offers once.

    `connect_seconds`: from the description to DTLS being up. `inactivity_seconds`: without any
    packet, of whatever kind. `send_silence`: send packets of silence in pauses, as browsers do.
    `counts_text`: refuse text messages that come too often, as a server must and its caller must not.
    """

    def __init__(
        self,
        *,
        network: Network,
        pacer: Pacer,
        connect_seconds: float = 15.0,
        inactivity_seconds: float = 15.0,
        send_silence: bool = False,
        playout: Playout | None = None,
        counts_text: bool = True,
    ) -> None:
        self._network = network
        self._pacer = pacer
        self._connect_seconds = connect_seconds
        self._inactivity_seconds = inactivity_seconds
        self._send_silence = send_silence
        self._playout = playout if playout is not None else Playout()
        self._listener: LegListener | None = None
        self._state = PeerState.NEW
        self._text = TextChannel(self, counts=counts_text)
        self._connection: RTCPeerConnection | None = None
        self._connecting: set[asyncio.Task[Any]] = set()
        self._dtls: RTCDtlsTransport | None = None
        self._line: RTCRtpTransceiver | None = None
        self._stream: AudioStream | None = None
        self._codec: Codec = OPUS
        self._payload_type = 0
        self._key_type: int | None = None
        self._heard_at = time.monotonic()
        self._connecting_since = 0.0
        self._early: deque[bytes] = deque(maxlen=_EARLY_PACKETS)
        self._refused = Refused()
        self._final_stats: Mapping[str, float] = {}
        self._last_sent_at: float | None = None
        self._teardown: asyncio.Task[None] | None = None

    @property
    def abilities(self) -> Abilities:
        return Abilities(text=True, dtmf=self._key_type is not None)

    @property
    def playout(self) -> Playout:
        return self._playout

    @property
    def state(self) -> PeerState:
        return self._state

    @property
    def last_sent_at(self) -> float | None:
        """`time.monotonic()` seconds of the latest audio packet sent."""
        return self._stream.last_sent_at if self._stream is not None else self._last_sent_at

    def attach(self, listener: LegListener) -> None:
        self._listener = listener

    def send_text(self, text: str) -> None:
        self._text.send(text)

    def wake(self) -> None:
        if self._stream is not None:
            self._stream.wake()

    def stats(self) -> Mapping[str, float]:
        """Counts since the call began; `jitter_ms`, `round_trip_ms` (0 when unknown), `fraction_lost` as of now."""
        stats: dict[str, float] = {
            "packets_undecryptable": self._refused.undecryptable,
            "datagrams_malformed": self._refused.malformed,
            **self._text.stats(),
            **self._final_stats,
        }
        if self._stream is not None:
            stats |= self._stream.stats()
        return stats

    # Negotiation

    async def answer(self, offer_sdp: str) -> str:
        """The answer to a guarded offer. Raises `NegotiationError`, or `NetworkError` when there is no port."""
        self._begin(needs_listener=True)
        return await self._negotiate(self._answer(offer_sdp))

    async def offer(self) -> str:
        """An offer of audio both ways and the text channel. Raises `NetworkError`, `NegotiationError`."""
        self._begin(needs_listener=False)
        return await self._negotiate(self._offer())

    async def accept(self, answer_sdp: str) -> None:
        """The answer to our offer. Raises `NegotiationError`."""
        if self._state is not PeerState.NEGOTIATING or self._listener is None:
            raise RuntimeError("accept() follows offer() and attach(), once")
        await self._negotiate(self._accept(answer_sdp))

    async def add_candidate(self, candidate: str | None) -> None:
        """A candidate line of the other side; whatever cannot be used is ignored, the end of them too."""
        dtls = self._dtls
        if not candidate or dtls is None or self._state is PeerState.CLOSED:
            return
        try:
            parsed = candidate_from_sdp(candidate.removeprefix("a=").removeprefix("candidate:"))
            async with asyncio.timeout(_NEGOTIATION_S):
                await dtls.transport.addRemoteCandidate(parsed)
        except Exception as error:
            logger.debug("a candidate was ignored: %r", error)

    def _begin(self, *, needs_listener: bool) -> None:
        if self._state is not PeerState.NEW or (needs_listener and self._listener is None):
            raise RuntimeError("a peer negotiates once, and after attach()")
        self._state = PeerState.NEGOTIATING

    async def _negotiate(self, work: Coroutine[Any, Any, str]) -> str:
        """Run `work` within its time; whatever goes wrong closes the peer and has a name."""
        try:
            async with asyncio.timeout(_NEGOTIATION_S):
                result = await work
            if self._state is PeerState.CLOSED:
                raise NegotiationError("the call was closed meanwhile")
            return result
        except (NegotiationError, NetworkError, asyncio.CancelledError):
            await self.close("failed")
            raise
        except TimeoutError:
            await self.close("failed")
            raise NegotiationError("the description took too long to apply") from None
        except Exception as error:
            await self.close("failed")
            detail = f": {error}" if str(error) else ""
            raise NegotiationError(f"the description cannot be used ({type(error).__name__}{detail})") from error

    async def _answer(self, offer_sdp: str) -> str:
        connection = self._open_connection(aiortc_private.new_connection())
        await connection.setRemoteDescription(_description(offer_sdp, "offer"))
        line = aiortc_private.live_audio(connection)
        if line is None:
            raise NegotiationError("the offer has no audio")
        for transceiver in connection.getTransceivers():
            aiortc_private.silence_tracks(transceiver)
            transceiver.direction = "sendrecv" if transceiver is line else "inactive"
        self._keep_codec(line)
        self._key_type = dtmf.payload_type(offer_sdp, self._codec.clock_rate)
        self._adopt(connection, line)
        await connection.setLocalDescription()
        return self._described(connection)

    async def _offer(self) -> str:
        connection = self._open_connection(aiortc_private.new_connection(max_bundle=True))
        line = connection.addTransceiver("audio", "sendrecv")
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        line.setCodecPreferences([codec for codec in codecs if codec.mimeType.lower() == "audio/opus"])
        aiortc_private.silence_tracks(line)
        self._text.take(connection.createDataChannel(LABEL))
        self._adopt(connection, line)
        await connection.setLocalDescription()
        return self._network.dress(connection.localDescription.sdp)

    async def _accept(self, answer_sdp: str) -> str:
        connection, line = self._connection, self._line
        assert connection is not None
        assert line is not None
        await connection.setRemoteDescription(_description(answer_sdp, "answer"))
        self._keep_codec(line)
        return self._described(connection)

    def _keep_codec(self, line: RTCRtpTransceiver) -> None:
        kept = aiortc_private.keep_codec(line, CODECS)
        if kept is None:
            raise NegotiationError(f"no common audio codec: {', '.join(CODECS)} are spoken here")
        name, self._payload_type = kept
        self._codec = CODECS[name]

    def _open_connection(self, connection: RTCPeerConnection) -> RTCPeerConnection:
        self._connection = connection
        self._connecting = aiortc_private.track_connecting(connection)
        connection.on("datachannel", self._text.take)
        return connection

    def _adopt(self, connection: RTCPeerConnection, line: RTCRtpTransceiver) -> None:
        """Take the transport of `line` for everything; before candidates are gathered."""
        dtls = line.receiver.transport
        for transceiver in connection.getTransceivers():
            if transceiver.receiver.transport is not dtls:
                aiortc_private.gather_nothing(transceiver.receiver.transport.transport)
        sctp = connection.sctp
        if sctp is None:
            self._text.off()
        elif sctp.transport is not dtls:
            raise NegotiationError("audio and data must be bundled")
        else:
            aiortc_private.guard_data(sctp, self._on_malformed_data, self._on_hostile_data)
        aiortc_private.gather_on(dtls.transport, self._network.open_sockets, self)
        dtls.on("statechange", self._on_transport_state)
        dtls.transport.on("statechange", self._on_transport_state)
        self._dtls = dtls
        self._line = line

    def _described(self, connection: RTCPeerConnection) -> str:
        """Both sides are described: the connection comes up by itself from here."""
        if self._state is PeerState.NEGOTIATING:
            self._state = PeerState.CONNECTING
            self._heard_at = self._connecting_since = time.monotonic()
            self._pacer.watch(self)
        return self._network.dress(connection.localDescription.sdp)

    # Transports

    def _on_transport_state(self) -> None:
        dtls = self._dtls
        if dtls is None or self._state is PeerState.CLOSED:
            return
        if dtls.state == "connected" and self._state is PeerState.CONNECTING:
            self._open(dtls)
        elif dtls.state == "failed":
            self._finish("failed")
        elif dtls.state == "closed" or dtls.transport.state in ("failed", "closed"):
            self._finish("remote_closed" if self._state is PeerState.OPEN else "failed")

    def _open(self, dtls: RTCDtlsTransport) -> None:
        line, connection = self._line, self._connection
        assert line is not None
        assert connection is not None
        wire = aiortc_private.Wire(dtls)
        may_send = line.currentDirection in ("sendrecv", "sendonly")
        outbound = Outbound(
            playout=self._playout,
            payload_type=self._payload_type,
            codec=self._codec,
            ssrc=aiortc_private.own_ssrc(line),
            cname=aiortc_private.own_cname(connection),
            send=wire.send_rtp if may_send else _drop,
            on_event=self._on_playout,
            send_silence=self._send_silence and may_send,
        )
        inbound = Inbound(
            self._payload_type, self._on_audio, codec=self._codec, key_type=self._key_type, on_key=self._on_key
        )
        self._stream = AudioStream(wire, inbound, outbound, self._pacer, self._refused)
        self._state = PeerState.OPEN
        if self._listener is not None:
            self._tell(self._listener.on_open)
        while self._early:
            self.on_datagram(self._early.popleft())
        self.wake()

    def on_datagram(self, data: bytes) -> bool:
        """RTP and RTCP are taken here, before anything else sees them; the rest goes on to aiortc."""
        now = time.monotonic()
        if not 128 <= data[0] <= 191:
            self._heard_at = now
            return False
        stream = self._stream
        if stream is not None:
            stream.datagram(data, now)
        elif self._state is not PeerState.CLOSED:
            self._early.append(data[:_MAX_DATAGRAM])
        return True

    # Clock

    def on_watch(self, now: float) -> None:
        """Four times a second: timeouts and reports."""
        if self._state is PeerState.CONNECTING:
            if now - self._connecting_since > self._connect_seconds:
                self._finish("connect_timeout")
        elif self._state is PeerState.OPEN and self._stream is not None:
            if now - max(self._heard_at, self._stream.heard_at) > self._inactivity_seconds:
                self._finish("inactivity")
            else:
                self._stream.report(now)

    # Listener

    def _tell(self, callback: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Whatever the listener raises is its own fault and must not end the datagram, tick or call."""
        try:
            callback(*args, **kwargs)
        except Exception:
            logger.exception("the listener of a call failed")

    def _on_audio(self, pcm: Pcm, arrived_at: float) -> None:
        if self._listener is not None and self._state is PeerState.OPEN:
            self._tell(self._listener.on_audio, pcm, arrived_at)

    def _on_key(self, key: str) -> None:
        if self._listener is not None and self._state is PeerState.OPEN:
            self._tell(self._listener.on_key, key)

    def _on_playout(self, event: PlayoutEvent) -> None:
        if self._listener is not None and self._state is PeerState.OPEN:
            self._tell(self._listener.on_playout, event)

    def on_text_open(self) -> None:
        if self._listener is not None and self._state is not PeerState.CLOSED:
            self._tell(self._listener.on_text_open)

    def on_text(self, text: str) -> None:
        if self._listener is not None and self._state is not PeerState.CLOSED:
            self._tell(self._listener.on_text, text)

    def on_text_refused(self, code: str, detail: str) -> None:
        if self._listener is not None and self._state is not PeerState.CLOSED:
            self._tell(self._listener.on_text_refused, code, detail)

    def on_text_broken(self, reason: str) -> None:
        self._finish(reason)

    def _on_malformed_data(self, error: Exception) -> None:
        self._refused.malformed += 1
        if isinstance(error, UnicodeDecodeError):
            self._text.refuse("not_text", "the message is not UTF-8")

    def _on_hostile_data(self) -> None:
        self._finish("failed")

    # The end

    async def close(self, reason: str = "hangup") -> None:
        """Hang up, within two seconds. Idempotent; `on_closed` has been called when this returns."""
        self._finish(reason)
        if self._teardown is not None and self._teardown is not asyncio.current_task():
            await asyncio.shield(self._teardown)

    def _finish(self, reason: str) -> None:
        """The call is over from here on; what is left of it is taken down by a task of its own."""
        if self._state is PeerState.CLOSED:
            return
        self._state = PeerState.CLOSED
        self._pacer.unwatch(self)
        self._text.off()
        if self._stream is not None:
            self._stream.end()
        if self._listener is not None:
            self._tell(self._listener.on_closed, reason)
        # Nothing refers back from here on, so that references alone free what ended: a search for cycles is heard.
        self._listener = None
        if self._stream is not None:
            self._final_stats, self._last_sent_at = self._stream.stats(), self._stream.last_sent_at
            self._stream = None
        if self._connection is not None:
            self._teardown = asyncio.get_running_loop().create_task(self._tear_down(self._connection))

    async def _tear_down(self, connection: RTCPeerConnection) -> None:
        try:
            async with asyncio.timeout(_TEARDOWN_S):
                connecting = set(self._connecting)
                for task in connecting:
                    task.cancel()
                if connecting:
                    await asyncio.wait(connecting)
                await connection.close()
                # aiortc cancels its reader without waiting for it.
                await asyncio.sleep(0)
        except Exception:
            logger.warning("a connection did not close and was cut off", exc_info=True)
        finally:
            if self._dtls is not None:
                aiortc_private.abort_sockets(self._dtls.transport)
            aiortc_private.release(connection)
            self._text.release()
            self._connection = self._dtls = self._line = None


def _description(sdp: str, kind: str) -> RTCSessionDescription:
    """Without the end of candidates: after it aioice gives up on a peer whose checks tell its address."""
    lines = [line for line in sdp.splitlines() if not line.startswith("a=end-of-candidates")]
    return RTCSessionDescription("\r\n".join([*lines, ""]), kind)


def _drop(packet: bytes) -> bool:
    """The other side asked for no audio: the playout runs all the same, so that turns end."""
    return False
