"""The doctor's probes against real answers on loopback, and against none."""

from __future__ import annotations

import asyncio
import base64
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from realtime import open_files
from realtime.check import Check
from realtime.doctor import answers_stun, examine, parse_ice_url, worst
from realtime.settings import (
    IceSettings,
    LimitSettings,
    ModelSettings,
    NetworkSettings,
    ServerSettings,
    Settings,
    TelephonySettings,
    VendorSettings,
)


def settings_in(folder: Path, **parts: object) -> Settings:
    server = ServerSettings(port=0, data=folder / "data")
    return Settings(**{"server": server, **parts})  # type: ignore[arg-type]


async def found(settings: Settings, name: str, **environ: str) -> Check:
    (check,) = [check for check in await examine(settings, environ) if check.name == name]
    return check


@asynccontextmanager
async def http_server(status: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", requests


@asynccontextmanager
async def stun_server(*, truthful: bool) -> AsyncIterator[int]:
    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            transaction = data[8:20] if truthful else bytes(12)
            self.transport.sendto(b"\x01\x01\x00\x00\x21\x12\xa4\x42" + transaction, address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, ("127.0.0.1", 0))
    yield transport.get_extra_info("sockname")[1]
    transport.close()


async def test_nothing_fails_by_default(tmp_path: Path) -> None:
    checks = await examine(settings_in(tmp_path), {})
    assert worst(checks) != "fail", checks


@pytest.mark.parametrize(("status", "state"), [(200, "ok"), (401, "fail"), (403, "fail"), (404, "warn"), (500, "warn")])
async def test_a_vendor_is_asked_for_its_models(tmp_path: Path, status: int, state: str) -> None:
    async with http_server(status) as (url, requests):
        vendor = VendorSettings(base_url=url, key="the-key")  # type: ignore[arg-type]
        check = await found(settings_in(tmp_path, vendors={"local": vendor}), "vendor local")
    assert check.state == state
    assert (check.advice is None) == (state == "ok")
    assert b"GET /v1/models" in requests[0]
    assert b"Bearer the-key" in requests[0]
    assert "the-key" not in check.detail


async def test_a_vendor_that_is_not_there_fails(tmp_path: Path) -> None:
    vendor = VendorSettings(base_url="http://127.0.0.1:1/v1")
    assert (await found(settings_in(tmp_path, vendors={"local": vendor}), "vendor local")).state == "fail"


async def test_models_without_a_price_are_named(tmp_path: Path) -> None:
    vendor = VendorSettings(base_url="http://127.0.0.1:9/v1")
    own = {"vendors": {"v": vendor}}
    chat = ModelSettings(id="priced", vendor="v", kind="chat", input_cost_per_token=0, output_cost_per_token=0)
    half = ModelSettings(id="half", vendor="v", kind="chat", input_cost_per_token=1e-6)
    speech = ModelSettings(id="speech", vendor="v", kind="tts")
    assert (await found(settings_in(tmp_path, models=[chat], **own), "prices")).state == "ok"
    check = await found(settings_in(tmp_path, models=[chat, half, speech], **own), "prices")
    assert (check.state, check.detail) == ("warn", "not known: v/half, v/speech")
    assert check.advice is not None
    assert [check for check in await examine(settings_in(tmp_path), {}) if check.name == "prices"] == []


async def test_a_taken_port_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ServerSettings(port=taken.getsockname()[1], data=tmp_path)
        assert (await found(Settings(server=server), "port")).state == "fail"


async def test_too_few_udp_ports_are_noticed(tmp_path: Path) -> None:
    network = NetworkSettings(udp_ports="25300-25309", interfaces=["127.0.0.1"])
    check = await found(settings_in(tmp_path, network=network, limits=LimitSettings(calls=11)), "UDP")
    assert (check.state, "10 ports for up to 11 calls" in check.detail) == ("warn", True)


async def test_a_server_open_to_others_needs_turn_and_an_address(tmp_path: Path) -> None:
    server = ServerSettings(host="0.0.0.0", port=0, data=tmp_path)
    settings = Settings(server=server, network=NetworkSettings(public_address="10.0.0.1"))
    assert (await found(settings, "TURN")).state == "warn"
    assert (await found(settings, "public address")).state == "warn"
    settings = Settings(server=server, network=NetworkSettings(public_address="8.8.8.8"))
    assert (await found(settings, "public address")).state == "ok"


async def test_an_ice_server_is_asked_with_stun(tmp_path: Path) -> None:
    async with stun_server(truthful=True) as port:
        url = f"turn:127.0.0.1:{port}?transport=udp"
        ice = IceSettings(turn_urls=[url], turn_secret="s")  # type: ignore[arg-type]
        assert (await found(settings_in(tmp_path, ice=ice), url)).state == "ok"
    async with stun_server(truthful=False) as port:
        assert not await answers_stun(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("stun:h", ("stun", "h", 3478, False)),
        ("turn:h:99?transport=tcp", ("turn", "h", 99, True)),
        ("turns:h", ("turns", "h", 5349, True)),
        ("turn:[2001:db8::1]:5", ("turn", "2001:db8::1", 5, False)),
    ],
)
def test_ice_addresses_have_their_default_ports(url: str, parsed: tuple[str, str, int, bool]) -> None:
    assert parse_ice_url(url) == parsed


async def test_telephone_lines_say_their_webhook_or_what_is_wrong(tmp_path: Path) -> None:
    def line(secret: str, **more: str) -> TelephonySettings:
        return TelephonySettings(secret=secret, **more)  # type: ignore[arg-type]

    key = base64.b64encode(bytes(range(32))).decode()
    telephony = {"telnyx": line(key), "desk": line("x", carrier="telnyx"), "asterisk": line("x")}
    settings = settings_in(tmp_path, telephony=telephony)
    public = settings.server.model_copy(update={"public_url": "https://voice.example/"})
    known = await found(settings.model_copy(update={"server": public}), "telephony telnyx")
    assert (known.state, known.detail) == (
        "ok",
        "its webhook: https://voice.example/v1/ai/realtime/telephony/telnyx/answer",
    )
    unknown = await found(settings, "telephony telnyx")
    assert unknown.state == "warn"
    assert "REALTIME_PUBLIC_URL" in (unknown.advice or "")
    assert (await found(settings, "telephony desk")).state == "fail"
    assert (await found(settings, "telephony asterisk")).state == "ok"


async def test_a_function_that_answers_is_loaded(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, agents={"default": {"chat": "python:no_such_module:answer"}})
    check = await found(settings, "agents.default.chat")
    assert (check.state, "no_such_module" in check.detail) == ("fail", True)


async def test_open_files_are_compared_with_what_the_calls_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "allowed", lambda: 4096)
    enough = await found(settings_in(tmp_path), "open files")
    assert enough.state == "ok"
    few = await found(settings_in(tmp_path, limits=LimitSettings(calls=1000)), "open files")
    assert few.state == "warn"
    assert "4096 are allowed, and 1000 calls may need" in few.detail
    assert "LimitNOFILE" in (few.advice or "")


async def test_mcp_servers_are_started_and_asked_for_their_tools(tmp_path: Path) -> None:
    python, server = sys.executable, str(Path(__file__).parent / "agents/mcp_server.py")
    mcp: dict[str, object] = {
        "gone": {"command": ["no-such-program", "--stdio"]},
        "dumb": {"command": [python, "-c", "raise SystemExit('no licence')"]},
        "tables": {"command": [python, server, "stdio"], "tools": ["free_tables"]},
        "misnamed": {"command": [python, server, "stdio"], "tools": ["free_table"]},
        "away": {"url": "http://127.0.0.1:1/mcp"},
    }
    checks = await examine(settings_in(tmp_path, agents={"front": {"mcp": mcp}}), {})
    told = {check.name.removeprefix("agents.front.mcp."): check for check in checks if ".mcp." in check.name}
    assert {name: check.state for name, check in told.items()} == {
        "gone": "fail",
        "dumb": "fail",
        "tables": "ok",
        "misnamed": "warn",
        "away": "fail",
    }
    assert told["gone"].detail == "there is no program no-such-program"
    assert "free_tables" in told["tables"].detail
    assert "free_tables" in (told["misnamed"].advice or "")
    assert "127.0.0.1:1" in told["away"].detail


async def test_a_voice_that_the_engine_does_not_have_is_warned_of(tmp_path: Path) -> None:
    vendor = VendorSettings(base_url="http://127.0.0.1:1/v1")
    agents = {
        "known": {"voice": "alloy"},
        "unknown": {"voice": "aloy"},
        "named": {"voice": "anna"},
        "elsewhere": {"voice": "anna", "tts": "local/kokoro"},
        "free": {"voice": "af_heart", "tts": "local/kokoro"},
    }
    voices = {"anna": {"engine": "embedded", "voice": "sage"}}
    checks = await examine(settings_in(tmp_path, agents=agents, voices=voices, vendors={"local": vendor}), {})
    told = {check.name.split(".")[1]: check for check in checks if check.name.endswith(".voice")}
    states = {name: check.state for name, check in told.items()}
    assert states == {"known": "ok", "unknown": "warn", "named": "ok", "elsewhere": "warn", "free": "ok"}
    assert "has no voice aloy" in told["unknown"].detail
    assert "alloy" in (told["unknown"].advice or "")
    assert "another engine" in (told["elsewhere"].advice or "")
    assert "takes any name" in told["free"].detail


async def test_a_public_page_without_tls_is_warned_of(tmp_path: Path) -> None:
    server = ServerSettings(port=0, data=tmp_path / "data", public_url="http://voice.example")
    settings = Settings(server=server)
    assert (await found(settings, "public_url")).state == "warn"
