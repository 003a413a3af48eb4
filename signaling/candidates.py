"""Which of a caller's ICE candidates we are willing to send packets to.

A candidate is an address that the other side chooses and that our ICE agent then probes, so it must
never lead to this host's own services, to link-local or cloud metadata addresses, or to groups of
hosts. Private addresses are allowed: callers on the same network are the common case. A candidate
that fails is dropped, never a reason to refuse a call: the caller's own checks reach us and teach us
its address. Sans-I/O; nothing is resolved.
"""

from __future__ import annotations

import re
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

MAX_CANDIDATES = 20
"""Candidates taken per call, offer and trickle together; a browser with three networks sends about ten."""

_FOUNDATION = re.compile(r"[!-~]{1,64}")
_COMPONENT = "1"  # rtcp-mux is required, so only the RTP component exists
_MAX_PRIORITY = 2**31 - 1  # RFC 8445 section 5.1.2.1
_TYPES = frozenset({"host", "srflx", "prflx", "relay"})

_LOOPBACK_V6 = IPv6Address("::1")
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host, unspecified
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "192.0.0.192/32",  # metadata service (Oracle)
        "100.100.100.200/32",  # metadata service (Alibaba)
        "168.63.129.16/32",  # platform service (Azure)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and limited broadcast
    )
)
_REFUSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "::/128",  # unspecified
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated
        "ff00::/8",  # multicast
        "100::/64",  # discard only
        "fd00:ec2::/32",  # metadata service (AWS)
        "fd20:ce::254/128",  # metadata service (Google)
    )
)
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_V4_COMPATIBLE = IPv6Network("::/96")


class Dropped(Enum):
    """Why a candidate is not used."""

    MDNS = "mDNS name"
    TCP = "not UDP"
    COMPONENT = "RTCP component"
    ADDRESS = "address in a special range"
    UNREADABLE = "unreadable"
    DUPLICATE = "duplicate"
    TOO_MANY = "too many"


def _embedded_v4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to `address` would end up at, where the form says so."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _V4_COMPATIBLE or any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def address_allowed(text: str, *, allow_loopback: bool = False) -> bool:
    """Whether packets may be sent to this literal address."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address == _LOOPBACK_V6:
            return allow_loopback
        if any(address in network for network in _REFUSED_V6):
            return False
        embedded = _embedded_v4(address)
        if embedded is None:
            return True
        address = embedded
    if address.is_loopback:
        return allow_loopback
    return not any(address in network for network in _REFUSED_V4)


def guard_candidate(value: str, *, allow_loopback: bool = False) -> str | Dropped:
    """One candidate (what follows `a=candidate:`), rewritten to what we use of it, or why it is dropped.

    The result is `FOUNDATION 1 udp PRIORITY ADDRESS PORT typ TYPE` (RFC 8839 section 5.1) without extensions.
    """
    parts = value.split()
    if len(parts) < 8 or not value.isascii():
        return Dropped.UNREADABLE
    foundation, component, transport, priority, address, port, typ, kind = parts[:8]
    if transport.lower() != "udp":
        return Dropped.TCP
    if address.lower().rstrip(".").endswith(".local"):
        return Dropped.MDNS
    if typ.lower() != "typ" or kind.lower() not in _TYPES or not _FOUNDATION.fullmatch(foundation):
        return Dropped.UNREADABLE
    if not (_decimal(priority, 1, _MAX_PRIORITY) and _decimal(port, 1, 65535)):
        return Dropped.UNREADABLE
    if component != _COMPONENT:
        return Dropped.COMPONENT
    if not address_allowed(address, allow_loopback=allow_loopback):
        return Dropped.ADDRESS
    return f"{foundation} 1 udp {int(priority)} {address} {int(port)} typ {kind.lower()}"


def _decimal(text: str, low: int, high: int) -> bool:
    return text.isdecimal() and len(text) <= 10 and low <= int(text) <= high


class CandidateSieve:
    """Takes candidates one by one: guards each, drops repeats, stops at a number."""

    def __init__(self, *, room: int = MAX_CANDIDATES, allow_loopback: bool = False) -> None:
        self._room = room
        self._allow_loopback = allow_loopback
        self._seen: set[tuple[str, str]] = set()
        self.kept: list[str] = []
        self.dropped: dict[Dropped, int] = {}

    @property
    def empty(self) -> bool:
        """Whether no candidate has been seen, good or bad."""
        return not self.kept and not self.dropped

    def offer(self, value: str) -> None:
        outcome = guard_candidate(value, allow_loopback=self._allow_loopback)
        if isinstance(outcome, str):
            _, _, _, _, address, port, *_ = outcome.split()
            if (address, port) in self._seen:
                outcome = Dropped.DUPLICATE
            elif len(self.kept) >= self._room:
                outcome = Dropped.TOO_MANY
            else:
                self._seen.add((address, port))
                self.kept.append(outcome)
                return
        self.dropped[outcome] = self.dropped.get(outcome, 0) + 1

    def note(self) -> str | None:
        """One line for the log, when anything was dropped."""
        if not self.dropped:
            return None
        reasons = ", ".join(f"{count} {reason.value}" for reason, count in self.dropped.items())
        return f"{sum(self.dropped.values())} candidates dropped ({reasons})"
