"""What a start points out."""

from __future__ import annotations

import pytest

from realtime.noticed import is_loopback, notices
from realtime.settings import IceSettings, ServerSettings, Settings, VendorSettings

OPEN = ServerSettings(host="0.0.0.0")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]"])
def test_loopback_is_for_this_machine_only(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "voice.example", ""])
def test_anything_else_may_be_reached_by_others(host: str) -> None:
    assert not is_loopback(host)


def test_nothing_to_say_about_the_defaults() -> None:
    assert notices(Settings(), {}, tls=False) == []


def test_an_unused_openai_key_comes_with_the_lines_that_use_it() -> None:
    (notice,) = notices(Settings(), {"OPENAI_API_KEY": "sk-secret"}, tls=False)
    assert '[vendors.openai]\n  key = "env:OPENAI_API_KEY"' in notice
    assert "sk-secret" not in notice
    used = Settings(vendors={"any": VendorSettings(base_url="http://h")})
    assert notices(used, {"OPENAI_API_KEY": "sk-secret"}, tls=False) == []


def test_a_server_open_to_others_wants_tls_and_turn() -> None:
    both = notices(Settings(server=OPEN), {}, tls=False)
    assert ["TLS" in both[0], "TURN" in both[1]] == [True, True]
    assert len(notices(Settings(server=OPEN), {}, tls=True)) == 1
    behind_proxy = Settings(
        server=ServerSettings(host="0.0.0.0", public_url="https://voice.example"),
        ice=IceSettings(turn_urls=["turn:h"], turn_secret="s"),
    )
    assert notices(behind_proxy, {}, tls=False) == []
