"""ICE servers: what browsers take, credentials that TURN servers take, settings that fail at start."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from token_service.ice import IceConfig, IceConfigError, IceServer, ice_servers, turn_credentials

SESSION = "sess_" + "a" * 22


def test_without_settings_there_are_none():
    assert IceConfig().for_session(SESSION, 300, 1_800_000_000.9) == []


def test_credentials_are_the_turn_rest_schemes_and_end_a_minute_after_the_token():
    (entry,) = ice_servers([], ["turn:turn.example:3478"], "s3cr3t", SESSION, 300, 1_800_000_000.9)
    assert entry["username"] == f"1800000360:{SESSION}"
    password = hmac.new(b"s3cr3t", entry["username"].encode(), hashlib.sha1).digest()
    assert entry["credential"] == base64.b64encode(password).decode()


def test_a_known_credential():
    # echo -n "1433895918:alice" | openssl dgst -sha1 -hmac north -binary | base64
    assert turn_credentials("north", "alice", 1433895918) == ("1433895918:alice", "RqMvcGPYTJMGThVLSi4amT4zFtI=")


def test_udp_comes_before_tcp_before_tls_and_stun_stays_plain():
    urls = [
        "turns:t.example:443?transport=tcp",
        "turn:t.example:3478?transport=tcp",
        "turn:t.example:3478?transport=udp",
        "turn:[2001:db8::1]",
    ]
    entries = IceConfig([IceServer(["stun:s.example:3478"])], urls, "secret").for_session(SESSION, 60, 0)
    assert [entry["urls"] for entry in entries] == [
        ["stun:s.example:3478"],
        ["turn:t.example:3478?transport=udp", "turn:[2001:db8::1]", urls[1], urls[0]],
    ]
    assert set(entries[0]) == {"urls"}


def test_own_credentials_stay_and_missing_ones_are_made():
    servers = [
        IceServer(["turn:own.example"], "user", "password"),
        IceServer(["turn:shared.example", "stun:shared.example"]),
        IceServer(["stuns:s.example"]),
    ]
    own, made, stun = IceConfig(servers, (), "secret").for_session(SESSION, 60, 1000)
    assert (own["username"], own["credential"]) == ("user", "password")
    assert made["username"] == f"1120:{SESSION}"
    assert made["urls"] == ["stun:shared.example", "turn:shared.example"]
    assert stun == {"urls": ["stuns:s.example"]}


@pytest.mark.parametrize(
    ("servers", "turn_urls", "secret", "says"),
    [
        ([IceServer(["stun:s.example?transport=udp"])], [], None, "no 'transport'"),
        ([IceServer(["stuns:s.example?transport=tcp"])], [], None, "no 'transport'"),
        ([IceServer(["http://s.example"])], [], None, "not an ICE server URL"),
        ([IceServer(["stun://s.example"])], [], None, "not an ICE server URL"),
        ([IceServer(["stun:"])], [], None, "not an ICE server URL"),
        ([IceServer(["stun:s.example:0"])], [], None, "not an ICE server URL"),
        ([IceServer(["stun:s.example:65536"])], [], None, "not an ICE server URL"),
        ([IceServer(["stun:s.example\n"])], [], None, "not an ICE server URL"),
        ([IceServer(["turn:t.example?transport=sctp"], "u", "p")], [], None, "not an ICE server URL"),
        ([IceServer([])], [], None, "no urls"),
        ([IceServer(["turn:t.example"])], [], None, "needs username and credential"),
        ([IceServer(["turn:t.example"], "u")], [], None, "both username and credential"),
        ([], ["turn:t.example"], None, "need a turn_secret"),
        ([], ["stun:t.example"], "secret", "turn: and turns: only"),
        ([], ["turn:t.example"], "", "empty"),
        ([IceServer([f"stun:{n}.example" for n in range(17)])], [], None, "more than 16"),
    ],
)
def test_a_mistake_in_the_settings_is_named_at_start(servers, turn_urls, secret, says):
    with pytest.raises(IceConfigError, match=says):
        IceConfig(servers, turn_urls, secret)
