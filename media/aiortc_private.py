"""Every private name of aiortc and aioice that is touched, and the one reason for each.

aiortc keeps ICE, DTLS, SRTP keys and SCTP. What it has no public door for is here, behind small
functions, so that no other module knows a private name: the sockets it gathers on, the datagrams it
receives, the SRTP sessions it negotiated. `check` proves at start that all of it is there; when it
is not, the server refuses to start, because there is no second media path.

aiortc's own sender and receiver are never started: no decoder thread, no task per track.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import aioice.ice
import pylibsrtp
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDtlsTransport,
    RTCIceTransport,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSctpTransport,
    rtcsctptransport,
)
from aiortc.rtcicetransport import RTCIceGatherer

logger = logging.getLogger(__name__)

NEEDED = "1.16"
"""The minor version of aiortc whose private names these are."""

_CHUNK_BYTES = 1100
"""Bytes of user data in an SCTP packet: with SCTP, DTLS, TURN, UDP and IPv6 around it still below a
1,280-byte MTU, over which a data channel stalls silently."""
_COMPONENT = 1
"""RTP and RTCP share one ICE component (rtcp-mux)."""
_QUEUED_DATAGRAMS = 512
"""DTLS datagrams that may wait for aiortc's reader, whose queue has no bound of its own."""
_REMOTE_ADDRESSES = 64
"""Addresses from which a peer may send connectivity checks: each costs a check of our own."""
_UNREAD_BYTES = 1024 * 1024
"""Bytes of unfinished messages past the 1 MiB that SCTP offers: no honest sender gets there."""
_MISORDERED_CHUNKS = 1024
"""SCTP chunks received ahead of a missing one, all that fits the offered window; aiortc sorts them every time."""


class UnsupportedAiortc(RuntimeError):
    """The installed aiortc is not the one whose private names are used; the message says which is needed."""


@dataclass(frozen=True, slots=True)
class _Private:
    """One private name. `owner` has it as attribute, or sets it in `__init__` (`set_in_init`)."""

    owner: type | Any
    name: str
    why: str
    set_in_init: bool = False

    def exists(self) -> bool:
        if not self.set_in_init:
            return hasattr(self.owner, self.name)
        code = getattr(self.owner, "__init__").__code__  # noqa: B009, of a class, which mypy would have none of
        return self.name in code.co_names


_CONNECTION = aioice.ice.Connection
_PRIVATE = (
    _Private(rtcsctptransport, "USERDATA_MAX_LENGTH", "size of SCTP packets, which no setting reaches"),
    _Private(RTCIceTransport, "_connection", "the ICE connection, whose sockets and selected pair are used", True),
    _Private(RTCIceGatherer, "_connection", "the same connection, before the transport is started", True),
    _Private(RTCDtlsTransport, "_rx_srtp", "to decrypt RTP and RTCP where the datagram arrives", True),
    _Private(RTCDtlsTransport, "_tx_srtp", "to encrypt RTP and RTCP where they are sent", True),
    _Private(RTCSctpTransport, "_handle_data", "a malformed chunk must not end the call, nor fill the memory"),
    _Private(RTCSctpTransport, "_send_sack", "to acknowledge what came beside a malformed chunk"),
    _Private(RTCSctpTransport, "_sack_needed", "whether there is something to acknowledge", True),
    _Private(RTCSctpTransport, "_advertised_rwnd", "bytes of unfinished messages held", True),
    _Private(RTCSctpTransport, "_sack_misordered", "chunks held because one before them is missing", True),
    _Private(RTCSctpTransport, "_data_channel_queue", "texts never sent, which hold their channel and it us", True),
    _Private(RTCPeerConnection, "_RTCPeerConnection__connect", "the tasks that connect, to end them on close"),
    _Private(RTCPeerConnection, "_RTCPeerConnection__cname", "the CNAME that our description promises", True),
    _Private(RTCRtpTransceiver, "_codecs", "to answer with one codec alone", True),
    _Private(RTCRtpTransceiver, "_offerDirection", "which of the offered lines is alive", True),
    _Private(RTCRtpSender, "_ssrc", "the SSRC that our description promises", True),
    _Private(RTCRtpSender, "send", "aiortc's sender must not start (public; replaced)"),
    _Private(RTCRtpReceiver, "receive", "aiortc's decoder thread must not start (public; replaced)"),
    _Private(_CONNECTION, "gather_candidates", "host candidates on our sockets (public; replaced)"),
    _Private(_CONNECTION, "_local_candidates_start", "gathering has begun", True),
    _Private(_CONNECTION, "_local_candidates_end", "gathering is complete", True),
    _Private(_CONNECTION, "_local_candidates", "the candidates gathered", True),
    _Private(_CONNECTION, "_protocols", "the protocols of our sockets", True),
    _Private(_CONNECTION, "_remote_candidates", "how many addresses the peer has used", True),
    _Private(_CONNECTION, "_nominated", "the pair that was selected: where packets go", True),
    _Private(_CONNECTION, "_check_list", "pairs that hold the sockets, to let go of them", True),
    _Private(_CONNECTION, "_queue", "datagrams waiting for DTLS, which is not bounded", True),
    _Private(aioice.ice, "StunProtocol", "every datagram passes its datagram_received"),
)


def check() -> None:
    """Raises `UnsupportedAiortc` unless aiortc is the supported version with every name used here."""
    installed = version("aiortc")
    missing = [f"{getattr(item.owner, '__name__', '?')}.{item.name}" for item in _PRIVATE if not item.exists()]
    if installed.split(".")[:2] == NEEDED.split(".") and not missing:
        return
    detail = f"; missing in it: {', '.join(missing)}" if missing else ""
    raise UnsupportedAiortc(f"aiortc {NEEDED}.x is needed, {installed} is installed{detail}")


class Tap(Protocol):
    """Sees every datagram of a call first."""

    def on_datagram(self, data: bytes) -> bool:
        """True when it was taken and aiortc must not see it."""


class TappedProtocol(aioice.ice.StunProtocol):
    """A socket of one call. RTP and RTCP go to the tap, STUN and DTLS on to aioice, bounded."""

    def __init__(self, connection: aioice.ice.Connection, tap: Tap) -> None:
        super().__init__(connection)
        self._connection = connection
        self._tap = tap
        self.is_blocked = False

    def pause_writing(self) -> None:
        self.is_blocked = True

    def resume_writing(self) -> None:
        self.is_blocked = False

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        assert isinstance(data, bytes)
        if not data or self._tap.on_datagram(data) or not self._is_welcome(data[0], addr):
            return
        try:
            super().datagram_received(data, addr)
        except Exception:
            # Whatever aioice's parser trips over came from outside; the socket goes on.
            logger.debug("a malformed datagram was dropped", exc_info=True)

    def _is_welcome(self, first: int, addr: tuple[Any, ...]) -> bool:
        connection = self._connection
        if 20 <= first <= 63:
            return connection._queue.qsize() < _QUEUED_DATAGRAMS
        if first > 3:
            return False
        remotes = connection._remote_candidates
        return len(remotes) < _REMOTE_ADDRESSES or any(c.host == addr[0] and c.port == addr[1] for c in remotes)


class Wire:
    """The way out of one call: SRTP and the selected ICE pair, without a task or an await."""

    def __init__(self, dtls: RTCDtlsTransport) -> None:
        self._nominated = dtls.transport._connection._nominated
        self._rx = dtls._rx_srtp
        self._tx = dtls._tx_srtp

    def decrypt_rtp(self, data: bytes) -> bytes | None:
        """None when it is not the peer's, was seen before, or is too long to be RTP."""
        try:
            plain: bytes = self._rx.unprotect(data)
        except (pylibsrtp.Error, ValueError):
            return None
        return plain

    def decrypt_rtcp(self, data: bytes) -> bytes | None:
        try:
            plain: bytes = self._rx.unprotect_rtcp(data)
        except (pylibsrtp.Error, ValueError):
            return None
        return plain

    def send_rtp(self, packet: bytes) -> bool:
        """False when there is no way to send now; the packet is dropped then, never queued."""
        return self._send(self._tx.protect, packet)

    def send_rtcp(self, packet: bytes) -> bool:
        return self._send(self._tx.protect_rtcp, packet)

    def _send(self, protect: Callable[[bytes], bytes], packet: bytes) -> bool:
        pair = self._nominated.get(_COMPONENT)
        if pair is None:
            return False
        protocol = pair.protocol
        assert isinstance(protocol, TappedProtocol)
        if protocol.is_blocked or protocol.transport.is_closing():
            return False
        try:
            protocol.transport.sendto(protect(packet), pair.remote_addr)
        except (pylibsrtp.Error, ValueError, OSError):
            return False
        return True


def new_connection(*, max_bundle: bool = False) -> RTCPeerConnection:
    """A peer connection without any STUN or TURN server: aiortc's default is a public one.

    `max_bundle`: one transport from the beginning, for the side that offers.
    """
    rtcsctptransport.USERDATA_MAX_LENGTH = _CHUNK_BYTES
    policy = RTCBundlePolicy.MAX_BUNDLE if max_bundle else RTCBundlePolicy.BALANCED
    return RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=policy))


def track_connecting(connection: RTCPeerConnection) -> set[asyncio.Task[Any]]:
    """The tasks in which `connection` connects, kept up to date: it keeps no reference itself."""
    tasks: set[asyncio.Task[Any]] = set()
    connect: Callable[[], Awaitable[None]] = connection._RTCPeerConnection__connect  # type: ignore[attr-defined]

    async def tracked() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await connect()

    connection._RTCPeerConnection__connect = tracked  # type: ignore[attr-defined]
    return tasks


def silence_tracks(transceiver: RTCRtpTransceiver) -> None:
    """aiortc's sender and receiver of this line never start: no thread, no task, no packet."""

    async def nothing(parameters: object) -> None:
        return None

    transceiver.sender.send = nothing  # type: ignore[method-assign]
    transceiver.receiver.receive = nothing  # type: ignore[method-assign]


def live_audio(connection: RTCPeerConnection) -> RTCRtpTransceiver | None:
    """The offered audio line to talk on: the first that is not inactive, else the first."""
    lines = [transceiver for transceiver in connection.getTransceivers() if transceiver.kind == "audio"]
    live = [line for line in lines if line._offerDirection not in (None, "inactive")]
    return next(iter(live + lines), None)


def keep_codec(transceiver: RTCRtpTransceiver, known: Collection[str]) -> tuple[str, int] | None:
    """Negotiate nothing on this line but the first common codec whose lower-case name is `known`: its name and
    payload type. None when there is none."""
    for codec in transceiver._codecs:
        if codec.name.lower() in known and codec.payloadType is not None:
            transceiver._codecs = [codec]
            return codec.name.lower(), codec.payloadType
    return None


def own_ssrc(transceiver: RTCRtpTransceiver) -> int:
    return transceiver.sender._ssrc


def own_cname(connection: RTCPeerConnection) -> str:
    cname: str = connection._RTCPeerConnection__cname  # type: ignore[attr-defined]
    return cname


def gather_on(transport: RTCIceTransport, open_sockets: Callable[[], list[socket.socket]], tap: Tap) -> None:
    """Host candidates of `transport` will be the sockets that `open_sockets` returns, tapped by `tap`."""
    connection = transport._connection

    async def gather() -> None:
        if connection._local_candidates_start:
            return
        connection._local_candidates_start = True
        loop = asyncio.get_running_loop()
        for rank, sock in enumerate(open_sockets()):
            _, protocol = await loop.create_datagram_endpoint(lambda: TappedProtocol(connection, tap), sock=sock)
            protocol.local_candidate = _host_candidate(sock, rank)
            connection._protocols.append(protocol)
            connection._local_candidates.append(protocol.local_candidate)
        connection._local_candidates_end = True

    connection.gather_candidates = gather  # type: ignore[method-assign]


def gather_nothing(transport: RTCIceTransport) -> None:
    """`transport` belongs to a declined line: it gets no socket and never connects."""

    async def gather() -> None:
        return None

    transport._connection.gather_candidates = gather  # type: ignore[method-assign]


def _host_candidate(sock: socket.socket, rank: int) -> Candidate:
    host, port = sock.getsockname()[:2]
    return Candidate(
        foundation=candidate_foundation("host", "udp", host),
        component=_COMPONENT,
        transport="udp",
        priority=candidate_priority(_COMPONENT, "host", local_pref=65_535 - rank),
        host=host,
        port=port,
        type="host",
    )


def abort_sockets(transport: RTCIceTransport) -> None:
    """Close the sockets at once, without waiting for anything."""
    for protocol in transport._connection._protocols:
        protocol.transport.close()


def release(connection: RTCPeerConnection) -> None:
    """A closed connection lets go of itself: without cycles references alone free it, at once."""
    connection.remove_all_listeners()
    vars(connection).pop("_RTCPeerConnection__connect", None)
    transports: set[RTCDtlsTransport | None] = {line.receiver.transport for line in connection.getTransceivers()}
    if connection.sctp is not None:
        transports.add(connection.sctp.transport)
        connection.sctp.remove_all_listeners()
        vars(connection.sctp).pop("_handle_data", None)
        connection.sctp._data_channel_queue.clear()
    # Lines of a description that was refused half way have none.
    for dtls in filter(None, transports):
        agent = dtls.transport._connection
        for emitter in (dtls, dtls.transport, dtls.transport.iceGatherer):
            emitter.remove_all_listeners()
        vars(agent).pop("gather_candidates", None)
        agent._nominated.clear()
        agent._check_list.clear()


def guard_data(
    sctp: RTCSctpTransport, on_malformed: Callable[[Exception], None], on_hostile: Callable[[], None]
) -> None:
    """A malformed chunk or message is dropped instead of ending the call; hoarding memory ends it."""
    handle = sctp._handle_data

    async def guarded(data: bytes) -> None:
        try:
            await handle(data)
        except ConnectionError:
            raise
        except Exception as error:
            on_malformed(error)
            if sctp._sack_needed:
                await sctp._send_sack()
        if sctp._advertised_rwnd < -_UNREAD_BYTES or len(sctp._sack_misordered) > _MISORDERED_CHUNKS:
            on_hostile()

    sctp._handle_data = guarded  # type: ignore[method-assign]
