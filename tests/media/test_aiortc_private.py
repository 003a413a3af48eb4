"""The one guard of aiortc's private names: a version that lacks one stops the server at start."""

import pytest

from media import aiortc_private
from media.aiortc_private import UnsupportedAiortc, check


def test_the_installed_aiortc_has_every_name_that_is_used():
    check()


@pytest.mark.parametrize("installed", ["1.15.0", "1.17.0", "2.0.0", "1.160.0"])
def test_another_version_is_refused_with_the_needed_one(monkeypatch, installed):
    monkeypatch.setattr(aiortc_private, "version", lambda _: installed)
    with pytest.raises(UnsupportedAiortc, match=rf"1\.16\.x is needed, {installed}"):
        check()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("aiortc.RTCSctpTransport", "_handle_data"),
        ("aiortc.RTCPeerConnection", "_RTCPeerConnection__connect"),
        ("aioice.ice", "StunProtocol"),
        ("aiortc.rtcsctptransport", "USERDATA_MAX_LENGTH"),
    ],
)
def test_a_missing_name_is_named(monkeypatch, owner, name):
    monkeypatch.delattr(f"{owner}.{name}")
    with pytest.raises(UnsupportedAiortc, match=name):
        check()


def test_a_missing_attribute_of_an_instance_is_named(monkeypatch):
    monkeypatch.setattr("aiortc.RTCDtlsTransport.__init__", lambda self: None)
    with pytest.raises(UnsupportedAiortc, match=r"RTCDtlsTransport\._rx_srtp, RTCDtlsTransport\._tx_srtp"):
        check()
