"""A certificate that this server signs itself, so that a phone on the same network may use its microphone.

Browsers warn about it once and then treat the page as secure. It is kept in the data folder and made anew
when it runs out or when this machine has an address that it does not name. It proves nothing to anybody: for
a name that others know, a proxy with a real certificate is right (deploy/Caddyfile).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FOLDER = "tls"
CERTIFICATE, KEY = "self-signed.pem", "self-signed.key"
VALID = datetime.timedelta(days=397)
"""The longest that browsers accept of a certificate."""
RENEW_BEFORE = datetime.timedelta(days=14)
MAX_NAME_CHARS = 253


def ensure(folder: Path, addresses: Iterable[str], *, now: datetime.datetime | None = None) -> tuple[Path, Path]:
    """Paths of a certificate and its key for this machine under `addresses` (names or IP addresses). `OSError`."""
    now = now or datetime.datetime.now(datetime.UTC)
    place = folder / FOLDER
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = place / CERTIFICATE, place / KEY
    names = _names(addresses)
    if not (key.exists() and _still_good(certificate, names, now)):
        made, secret = _make(names, now)
        _write(key, secret)
        _write(certificate, made)
    return certificate, key


def _names(addresses: Iterable[str]) -> list[x509.GeneralName]:
    host = socket.gethostname()
    wanted = ["localhost", "127.0.0.1", "::1", host, f"{host.partition('.')[0]}.local", *addresses]
    return [_name(text) for text in dict.fromkeys(wanted) if text.isascii() and 0 < len(text) <= MAX_NAME_CHARS]


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return x509.DNSName(text)


def _still_good(path: Path, names: Sequence[x509.GeneralName], now: datetime.datetime) -> bool:
    with suppress(OSError, ValueError, x509.ExtensionNotFound):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return set(names) <= set(known) and certificate.not_valid_after_utc - RENEW_BEFORE > now
    return False


def _make(names: Sequence[x509.GeneralName], now: datetime.datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "infrai-realtime, self-signed")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back, for devices whose clocks are a little behind.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + VALID - datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others, not for a moment."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
