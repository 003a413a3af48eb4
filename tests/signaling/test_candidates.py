"""Which addresses a caller may send us to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.candidates import MAX_CANDIDATES, CandidateSieve, Dropped, address_allowed, guard_candidate

ALLOWED = [
    "192.168.1.20",
    "10.1.2.3",
    "172.31.255.254",
    "203.0.113.7",
    "100.64.0.9",
    "8.8.8.8",
    "2001:db8::7",
    "fd12:3456:789a::1",
    "::ffff:192.168.1.20",
]
REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.10.10",
    "192.0.0.192",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "2001:db8::1%1",
    "fec0::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "",
    "localhost",
    "0x7f000001",
    "2130706433",
    "010.0.0.1",
    "1.2.3",
    "1.2.3.4.5",
    "１９２.168.1.1",
]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"]


@pytest.mark.parametrize("address", ALLOWED)
def test_ordinary_and_private_addresses_are_allowed(address: str) -> None:
    assert address_allowed(address)


@pytest.mark.parametrize("address", REFUSED)
def test_special_addresses_are_refused_even_where_loopback_is_allowed(address: str) -> None:
    assert not address_allowed(address)
    assert not address_allowed(address, allow_loopback=True)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_allowed_only_on_request(address: str) -> None:
    assert not address_allowed(address)
    assert address_allowed(address, allow_loopback=True)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("1 1 udp 2122260223 10.0.0.5 4000 typ host", "1 1 udp 2122260223 10.0.0.5 4000 typ host"),
        (
            "1 1 UDP 2122260223 10.0.0.5 4000 typ srflx raddr 1.2.3.4 rport 9 generation 0 ufrag abcd",
            "1 1 udp 2122260223 10.0.0.5 4000 typ srflx",
        ),
        ("1 1 udp 2122260223 10.0.0.5 0004000 typ host", "1 1 udp 2122260223 10.0.0.5 4000 typ host"),
        ("1 1 tcp 2122260223 10.0.0.5 9 typ host tcptype active", Dropped.TCP),
        ("1 1 udp 2122260223 a-b-c.local 4000 typ host", Dropped.MDNS),
        ("1 1 udp 2122260223 A-B-C.LOCAL. 4000 typ host", Dropped.MDNS),
        ("1 1 udp 2122260223 example.com 4000 typ host", Dropped.ADDRESS),
        ("1 1 udp 2122260223 169.254.169.254 80 typ host", Dropped.ADDRESS),
        ("1 2 udp 2122260222 10.0.0.5 4001 typ host", Dropped.COMPONENT),
        ("1 1 udp 2122260223 10.0.0.5 0 typ host", Dropped.UNREADABLE),
        ("1 1 udp 2122260223 10.0.0.5 65536 typ host", Dropped.UNREADABLE),
        ("1 1 udp -1 10.0.0.5 4000 typ host", Dropped.UNREADABLE),
        ("1 1 udp 99999999999999999999 10.0.0.5 4000 typ host", Dropped.UNREADABLE),
        ("1 1 udp 2122260223 10.0.0.5 4000 typ other", Dropped.UNREADABLE),
        ("1 1 udp 2122260223 10.0.0.5 4000 host", Dropped.UNREADABLE),
        ("1 1 udp ² 10.0.0.5 4000 typ host", Dropped.UNREADABLE),
        ("", Dropped.UNREADABLE),
    ],
)
def test_a_candidate_is_rewritten_or_dropped_with_its_reason(value: str, outcome: str | Dropped) -> None:
    assert guard_candidate(value) == outcome


@given(st.text(max_size=200))
def test_any_text_is_judged_without_an_exception(value: str) -> None:
    assert isinstance(guard_candidate(value, allow_loopback=True), str | Dropped)


@given(st.ip_addresses().map(str))
def test_what_is_let_through_is_never_special(address: str) -> None:
    """Judged a second way: by the standard library's own properties."""
    if address_allowed(address):
        parsed = ip_address(address)
        special = parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified
        assert not special


def test_the_sieve_stops_at_its_number_and_counts_what_it_dropped() -> None:
    sieve = CandidateSieve()
    for number in range(30):
        sieve.offer(f"1 1 udp 100 10.0.0.{number + 1} 4000 typ host")
    sieve.offer("1 1 udp 100 10.0.0.1 4000 typ host")
    sieve.offer("1 1 udp 100 x.local 4000 typ host")
    assert len(sieve.kept) == MAX_CANDIDATES
    assert sieve.dropped == {Dropped.TOO_MANY: 10, Dropped.DUPLICATE: 1, Dropped.MDNS: 1}
    assert sieve.note() == "12 candidates dropped (10 too many, 1 duplicate, 1 mDNS name)"
