"""Which addresses and UDP ports calls use, and what the outside is told about them.

One `Network` serves every call of the process: it chooses the local addresses, binds the sockets
out of the configured port range, and writes the public address into answers when a one-to-one NAT
stands in front. It must never bind anything but the addresses chosen, and never block: a bind
either works at once or is refused at once.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from errno import EADDRINUSE

import ifaddr

_ADDRESSES_KEPT_S = 5.0
"""Seconds for which the list of local addresses is reused: listing them takes 0.3 ms, they change rarely."""

_RECEIVE_BUFFER = 262_144
"""Bytes: as aioice asks for; two seconds of one call's packets survive a stalled process."""

_CANDIDATE = re.compile(r"^(a=candidate:\S+ \d+ \S+ \d+ )(\S+)( \d+ typ \S+.*)$")
_CONNECTION = re.compile(r"^(c=IN IP[46] )(\S+)$")


class NetworkError(Exception):
    """The network settings cannot be used on this machine; the message says which and why."""


class PortsExhausted(NetworkError):
    """Every port of the configured range is taken: the process can take no further call now."""

    def __init__(self, ports: range) -> None:
        super().__init__(f"all UDP ports from {ports.start} to {ports.stop - 1} are in use")


def parse_ports(text: str) -> range:
    """`50000-50199`, or one port. Raises `NetworkError`."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", text)
    if match is None:
        raise NetworkError(f"{text!r} is not a range of UDP ports; write it like 50000-50199")
    first = int(match[1])
    last = int(match[2] or match[1])
    if not 1 <= first <= last <= 65_535:
        raise NetworkError(f"{text!r} is not a range of UDP ports: they go from 1 to 65535, lower one first")
    return range(first, last + 1)


class Network:
    """`interfaces`: names or addresses to use, all others are left alone; none: every address except
    link-local ones, and loopback only with `include_loopback` or when nothing else is there.
    `udp_ports`: `50000-50199`; none: any free port. `public_address`: IPv4 or IPv6 address that stands
    in answers instead of the local ones of its family. Raises `NetworkError`.
    """

    def __init__(
        self,
        *,
        interfaces: Sequence[str] = (),
        udp_ports: str | None = None,
        public_address: str | None = None,
        include_loopback: bool = False,
    ) -> None:
        self._wanted = tuple(interfaces)
        self._ports = parse_ports(udp_ports) if udp_ports is not None else None
        self._cursor = 0
        self._include_loopback = include_loopback
        self._addresses: list[str] = []
        self._addresses_until = float("-inf")
        self._public: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
        if public_address is not None:
            try:
                self._public = ipaddress.ip_address(public_address.strip())
            except ValueError:
                raise NetworkError(f"the public address {public_address!r} is not an IP address") from None
        self.local_addresses()

    def local_addresses(self) -> list[str]:
        """The addresses that calls bind, in order of preference. Raises `NetworkError` when there is none."""
        now = time.monotonic()
        if now >= self._addresses_until:
            self._addresses = self._choose()
            self._addresses_until = now + _ADDRESSES_KEPT_S
        return list(self._addresses)

    def open_sockets(self) -> list[socket.socket]:
        """One bound, non-blocking UDP socket for each local address that can be bound.

        Raises `PortsExhausted` when the range has no port left for one of them, `NetworkError` when
        no address can be bound at all.
        """
        opened: list[socket.socket] = []
        refused: OSError | None = None
        try:
            for address in self.local_addresses():
                try:
                    opened.append(self._bind(address))
                except OSError as error:
                    # An address that went away since it was listed must not cost the others.
                    refused = error
        except PortsExhausted:
            for sock in opened:
                sock.close()
            raise
        if not opened:
            raise NetworkError(f"no UDP socket could be opened: {refused}")
        return opened

    def dress(self, sdp_text: str) -> str:
        """The description with the public address in its `a=candidate` and `c=` lines of that family."""
        if self._public is None:
            return sdp_text
        return "".join(self._dress_line(line) for line in sdp_text.splitlines(keepends=True))

    def _dress_line(self, line: str) -> str:
        assert self._public is not None
        text = line.rstrip("\r\n")
        match = _CANDIDATE.match(text) or _CONNECTION.match(text)
        if match is None:
            return line
        try:
            address = ipaddress.ip_address(match[2])
        except ValueError:
            return line
        if address.version != self._public.version or (address.is_unspecified and match.re is _CONNECTION):
            return line
        rest = match[3] if match.re is _CANDIDATE else ""
        return f"{match[1]}{self._public}{rest}{line[len(text) :]}"

    def _bind(self, address: str) -> socket.socket:
        if self._ports is None:
            return _bound(address, 0)
        for step in range(len(self._ports)):
            # Going round, not always from the start: a port just closed still gets its old caller's packets.
            index = (self._cursor + step) % len(self._ports)
            try:
                sock = _bound(address, self._ports[index])
            except OSError as error:
                if error.errno != EADDRINUSE:
                    raise
                continue
            self._cursor = index + 1
            return sock
        raise PortsExhausted(self._ports)

    def _choose(self) -> list[str]:
        found = list(_adapter_addresses())
        if self._wanted:
            return _unique(address for wanted in self._wanted for address in _matching(wanted, found))
        loopback = [address for _, address in found if ipaddress.ip_address(address).is_loopback]
        others = [address for _, address in found if address not in loopback]
        chosen = others + loopback if self._include_loopback or not others else others
        if not chosen:
            raise NetworkError("this machine has no network address that calls could use")
        return _unique(chosen)


def _adapter_addresses() -> Iterable[tuple[str, str]]:
    """Interface name and address of everything but IPv6 link-local, which needs a zone no peer knows."""
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            if isinstance(ip.ip, str) or not ipaddress.IPv6Address(address.split("%")[0]).is_link_local:
                yield str(adapter.name), address


def _matching(wanted: str, found: list[tuple[str, str]]) -> list[str]:
    try:
        exact = ipaddress.ip_address(wanted)
    except ValueError:
        exact = None
    is_wanted: Callable[[str, str], bool] = lambda name, address: (  # noqa: E731
        name == wanted if exact is None else ipaddress.ip_address(address) == exact
    )
    matching = [address for name, address in found if is_wanted(name, address)]
    if not matching and exact is not None and exact.is_loopback:
        # All of 127.0.0.0/8 can be bound, only 127.0.0.1 is listed.
        return [wanted]
    if not matching:
        known = ", ".join(f"{name} ({address})" for name, address in found)
        raise NetworkError(f"no interface or address {wanted!r} on this machine; there are: {known}")
    return matching


def _unique(addresses: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(addresses))


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock
