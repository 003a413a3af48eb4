"""Addresses, ports and the public address: what is bound and what is told."""

import socket

import pytest

from media.network import Network, NetworkError, PortsExhausted, parse_ports


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("50000-50199", range(50000, 50200)),
        (" 1 - 2 ", range(1, 3)),
        ("7000", range(7000, 7001)),
        ("65535", range(65535, 65536)),
    ],
)
def test_port_ranges_are_read(text, ports):
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["", "x", "0", "0-10", "10-9", "1-65536", "-5", "1-2-3", "99999999999"])
def test_other_port_ranges_are_refused_by_name(text):
    with pytest.raises(NetworkError, match="UDP ports"):
        parse_ports(text)


def test_by_default_loopback_is_left_out_unless_asked_for_or_alone():
    everything = Network(include_loopback=True).local_addresses()
    default = Network().local_addresses()
    assert "127.0.0.1" in everything
    assert ("127.0.0.1" in default) == (set(everything) <= {"127.0.0.1", "::1"})
    assert not any(address.startswith("fe80") for address in everything)


@pytest.mark.parametrize("name", ["127.0.0.1", "lo"])
def test_an_interface_is_chosen_by_name_or_address(name):
    if name == "lo" and "lo" not in [name for _, name in socket.if_nameindex()]:
        pytest.skip("no interface is called lo here")
    addresses = Network(interfaces=[name]).local_addresses()
    assert addresses[0] == "127.0.0.1"
    assert set(addresses) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("name", ["nonsense0", "203.0.113.1", "2001:db8::1"])
def test_an_unknown_interface_is_an_error_that_names_the_known(name):
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1"):
        Network(interfaces=[name])


def test_sockets_are_bound_where_asked_and_do_not_block():
    (sock,) = Network(interfaces=["127.0.0.1"]).open_sockets()
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.getsockname()[1] != 0
        assert not sock.getblocking()


def test_ports_come_from_the_range_until_it_is_exhausted_and_come_back():
    network = Network(interfaces=["127.0.0.1"], udp_ports="28200-28203")
    sockets = [sock for _ in range(4) for sock in network.open_sockets()]
    assert sorted(sock.getsockname()[1] for sock in sockets) == [28200, 28201, 28202, 28203]
    with pytest.raises(PortsExhausted, match="28200 to 28203"):
        network.open_sockets()
    sockets.pop(2).close()
    (again,) = network.open_sockets()
    assert again.getsockname()[1] == 28202
    for sock in [*sockets, again]:
        sock.close()


def test_a_port_that_was_just_given_back_is_not_the_next_one_taken():
    network = Network(interfaces=["127.0.0.1"], udp_ports="28210-28213")
    taken = []
    for _ in range(4):
        (sock,) = network.open_sockets()
        taken.append(sock.getsockname()[1])
        sock.close()
    assert sorted(taken) == [28210, 28211, 28212, 28213]


def test_ports_taken_by_others_are_stepped_over():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 28220))
        (sock,) = Network(interfaces=["127.0.0.1"], udp_ports="28220-28221").open_sockets()
        assert sock.getsockname()[1] == 28221
        sock.close()


def test_exhaustion_on_one_address_closes_the_sockets_of_the_others():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 28230))
        network = Network(interfaces=["127.0.0.1", "127.0.0.2"], udp_ports="28230")
        with pytest.raises(PortsExhausted):
            network.open_sockets()
        (sock,) = Network(interfaces=["127.0.0.1"], udp_ports="28230").open_sockets()
        sock.close()


SDP = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nc=IN IP4 10.0.0.5\r\n"
    "m=audio 5 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n"
    "a=candidate:1 1 udp 2130706431 10.0.0.5 50001 typ host\r\n"
    "a=candidate:2 1 udp 2130706175 2001:db8::5 50002 typ host generation 0\r\n"
    "a=candidate:3 1 udp 2130706175 name.local 50003 typ host\r\n"
    "c=IN IP6 2001:db8::5\r\n"
)


def test_the_public_address_stands_in_for_its_family():
    dressed = Network(interfaces=["127.0.0.1"], public_address="203.0.113.9").dress(SDP)
    assert dressed == SDP.replace("10.0.0.5", "203.0.113.9")
    dressed = Network(interfaces=["127.0.0.1"], public_address="2001:db8::ffff").dress(SDP)
    assert dressed == SDP.replace("2001:db8::5", "2001:db8::ffff")


def test_without_a_public_address_nothing_is_changed():
    assert Network(interfaces=["127.0.0.1"]).dress(SDP) == SDP


def test_a_public_address_must_be_one():
    with pytest.raises(NetworkError, match=r"example\.org"):
        Network(interfaces=["127.0.0.1"], public_address="example.org")
