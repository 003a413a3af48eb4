"""A certificate that browsers of the same network can be made to take, kept until it no longer fits."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from realtime import self_signed

NOW = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)


def names_of(path: Path) -> list[object]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return [name.value for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_it_names_this_machine_and_its_addresses(tmp_path: Path) -> None:
    certificate, key = self_signed.ensure(tmp_path, ["192.168.1.5", "fe80::1%eth0", "voice.example"])
    names = names_of(certificate)
    assert {"localhost", "voice.example"} <= set(names)
    assert {ipaddress.ip_address(text) for text in ("127.0.0.1", "::1", "192.168.1.5", "fe80::1")} <= set(names)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_client_that_trusts_it_connects(tmp_path: Path) -> None:
    certificate, key = self_signed.ensure(tmp_path, [])
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    client_side = ssl.create_default_context(cafile=str(certificate))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with server_side.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listener.getsockname(), timeout=10) as plain,
            client_side.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            assert wrapped.recv(5) == b"hello"
        thread.join(10)


@pytest.mark.parametrize(
    ("later", "addresses", "kept"),
    [
        (datetime.timedelta(days=300), ["10.0.0.1"], True),
        (datetime.timedelta(days=300), [], True),
        (datetime.timedelta(days=390), ["10.0.0.1"], False),
        (datetime.timedelta(days=1), ["10.0.0.1", "10.0.0.2"], False),
    ],
)
def test_it_is_kept_while_it_fits(tmp_path: Path, later: datetime.timedelta, addresses: list[str], kept: bool) -> None:
    certificate, _ = self_signed.ensure(tmp_path, ["10.0.0.1"], now=NOW)
    before = certificate.read_bytes()
    self_signed.ensure(tmp_path, addresses, now=NOW + later)
    assert (certificate.read_bytes() == before) is kept


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    certificate, key = self_signed.ensure(tmp_path, [])
    for path in (certificate, key):
        path.write_bytes(b"-----BEGIN NOTHING-----")
    self_signed.ensure(tmp_path, [])
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
