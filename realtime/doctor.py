"""`realtime doctor`: looks at everything a call needs and says what to do about what is wrong.

Each check is a small function that returns `Check`s and raises nothing. Only addresses that the
settings name are contacted, each with one small request and a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx2

from media import aiortc_private
from media.network import Network, NetworkError
from realtime import development_key, open_files
from realtime.adapters.base import EngineError
from realtime.adapters.catalogue import Catalogue, UnknownEngine
from realtime.adapters.offers import offers
from realtime.adapters.routing import Amount, Kind
from realtime.check import Check
from realtime.doctor_agents import check_agents
from realtime.local import STORE_FILE, local_url, open_store
from realtime.noticed import has_turn, is_loopback
from realtime.settings import Settings, SettingsError, VendorSettings, data_folder
from realtime.store.base import StoreError
from realtime.telephone import lines
from signaling.telephony.routes import PREFIX, Line
from token_service.api_keys import ApiKeys

VENDOR_SECONDS = 5.0
HEALTH_SECONDS = 1.0
STUN_SECONDS = 2.0
"""A STUN server answers within a round trip; the request is sent twice in this time."""
OPENAI_URL = "https://api.openai.com/v1"
PLAIN: Mapping[Kind, Amount] = {
    "chat": Amount(1, 1),
    "embed": Amount(1),
    "image": Amount(images=1),
    "tts": Amount(characters=1),
    "stt": Amount(audio_seconds=1.0),
}
"""What a plain request of each kind uses."""


async def examine(settings: Settings, environ: Mapping[str, str]) -> list[Check]:
    """Every check, in the order a call would meet them."""
    checks = [_check_aiortc(), _check_data_folder(settings)]
    if checks[-1].state == "ok":
        checks.append(await _check_keys(settings))
    checks += [await _check_port(settings), *_check_engines(settings), *await check_agents(settings)]
    checks += _check_public_url(settings)
    for name, vendor in settings.vendors.items():
        if not vendor.is_custom:
            checks.append(await _check_vendor(name, vendor))
    checks += _check_prices(settings)
    checks.append(_check_open_files(settings))
    checks += [*_check_network(settings), _check_public_address(settings), *await _check_ice(settings)]
    checks += [_check_line(line, settings) for line in lines(settings).values()]
    if environ.get("OPENAI_API_KEY") and not settings.vendors:
        advice = "`realtime init --preset openai` writes the lines that use it"
        checks.append(Check("environment", "warn", "OPENAI_API_KEY is set and not used", advice))
    return checks


def _check_aiortc() -> Check:
    try:
        aiortc_private.check()
    except aiortc_private.UnsupportedAiortc as error:
        return Check("aiortc", "fail", str(error), "install this server with the constraints.txt of its checkout")
    return Check("aiortc", "ok", "a version this server knows")


def _check_data_folder(settings: Settings) -> Check:
    try:
        folder = data_folder(settings)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except SettingsError as error:
        return Check("data folder", "fail", error.mistakes[0].message, error.mistakes[0].proposal)
    except OSError as error:
        advice = "make it writable, or choose another with REALTIME_DATA"
        return Check("data folder", "fail", f"{folder} cannot be written: {error.strerror}", advice)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        return Check("data folder", "warn", f"{folder} can be entered by other users", f"chmod 700 {folder}")
    return Check("data folder", "ok", str(folder))


async def _check_keys(settings: Settings) -> Check:
    folder = data_folder(settings)
    fixed = " and the one of the settings" if settings.server.api_key else ""
    if not (folder / STORE_FILE).exists():
        return Check("API keys", "ok", f"none yet{fixed}; `realtime serve` makes one for development")
    try:
        store = open_store(folder)
    except StoreError as error:
        return Check("API keys", "fail", str(error), f"restore {STORE_FILE} from a backup, or move it away")
    try:
        keys = [key for key in await ApiKeys(store).list() if key.revoked_at is None]
    except StoreError as error:
        return Check("API keys", "fail", str(error), f"restore {STORE_FILE} from a backup, or move it away")
    finally:
        await store.close()
    if not keys and not fixed:
        return Check("API keys", "warn", "every key is revoked", "`realtime keys create`")
    if any(key.name == development_key.NAME for key in keys) and not is_loopback(settings.server.host):
        advice = "`realtime keys create` one with fewer scopes, then `realtime keys revoke` the other"
        return Check("API keys", "warn", "the development key is valid on a server open to others", advice)
    return Check("API keys", "ok", f"{len(keys)} in the store{fixed}")


async def _check_port(settings: Settings) -> Check:
    host, port = settings.server.host, settings.server.port
    try:
        with socket.create_server((host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Check("port", "ok", f"{port} on {host} is free")
    except OSError as error:
        reason = error.strerror
    url = local_url(host, port)
    with contextlib.suppress(httpx2.HTTPError):
        async with httpx2.AsyncClient(timeout=HEALTH_SECONDS, trust_env=False) as client:
            if (await client.get(f"{url}/healthz")).status_code == 200:
                return Check("port", "ok", f"a server is running at {url}")
    advice = "stop what listens there, or choose another port under [server]"
    return Check("port", "fail", f"cannot listen on {host} port {port}: {reason}", advice)


def _check_engines(settings: Settings) -> list[Check]:
    try:
        infos = Catalogue(settings).infos()
    except (EngineError, UnknownEngine) as error:
        return [Check("engines", "fail", str(error), "check [live], [[models]] and [vendors]")]
    checks = []
    for info in infos:
        words = f"{info.vendor}/{info.model}" + (f": {info.quality}" if info.quality else "")
        checks.append(Check(info.kind, "ok", words))
    uses_embedded = any("embedded" in refs for refs in (settings.live.stt, settings.live.tts))
    missing = [name for name in ("pocketsphinx", "espeakng_loader") if importlib.util.find_spec(name) is None]
    if uses_embedded and missing:
        advice = 'pip install "infrai-realtime[local]"'
        checks.append(Check("embedded engines", "warn", f"not installed: {', '.join(missing)}", advice))
    return checks


def _check_public_url(settings: Settings) -> list[Check]:
    url = settings.server.public_url
    if url is None or url.startswith("https:") or is_loopback(httpx2.URL(url).host):
        return []
    advice = "browsers give the microphone to https pages only: put a certificate in front (docs/deploy.md)"
    return [Check("public_url", "warn", f"{url} is not https", advice)]


def _check_prices(settings: Settings) -> list[Check]:
    """Models of vendors whose price for a plain request is not known."""
    models = [model for model in offers(settings) if model.vendor in settings.vendors]
    unknown = [f"{model.vendor}/{model.name}" for model in models if model.prices.cost(PLAIN[model.kind]) is None]
    if not models or not unknown:
        return [Check("prices", "ok", "every model has its price")] if models else []
    shown = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    advice = (
        "give the prices in [[models]] (input_cost_per_token, ...; 0 for your own server): without one a request's "
        "cost is unknown, [limits] spend_usd_per_day does not count it, and the model stands in for no other"
    )
    return [Check("prices", "warn", f"not known: {shown}", advice)]


async def _check_vendor(name: str, vendor: VendorSettings) -> Check:
    url = f"{vendor.base_url or OPENAI_URL}/models"
    headers = {"Authorization": f"Bearer {vendor.key.get_secret_value()}"} if vendor.key else {}
    title = f"vendor {name}"
    try:
        async with httpx2.AsyncClient(timeout=VENDOR_SECONDS) as client:
            status = (await client.get(url, headers=headers)).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        reason = str(error) or type(error).__name__
        return Check(title, "fail", f"{url} cannot be reached: {reason}", "is it running, and is base_url right?")
    if status in (401, 403):
        return Check(title, "fail", f"{url} refuses the key ({status})", f"check `key` of [vendors.{name}]")
    if status == 404:
        return Check(
            title, "warn", f"{url} answers 404", "base_url usually ends in /v1; some servers have no model list"
        )
    if status >= 400:
        return Check(title, "warn", f"{url} answers {status}", "the server is reached, but not well")
    return Check(title, "ok", f"{url} answers")


def _network(settings: Settings) -> Network:
    return Network(
        interfaces=settings.network.interfaces,
        udp_ports=settings.network.udp_ports,
        public_address=settings.network.public_address,
        include_loopback=is_loopback(settings.server.host),
    )


def _check_network(settings: Settings) -> list[Check]:
    try:
        network = _network(settings)
        addresses = network.local_addresses()
        sockets = network.open_sockets()
    except NetworkError as error:
        return [Check("UDP", "fail", str(error), "check interfaces and udp_ports under [network]")]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    checks = [Check("interfaces", "ok", ", ".join(addresses))]
    wanted = settings.network.udp_ports
    if wanted is None:
        return [*checks, Check("UDP", "ok", f"any free port can be bound (tried {ports[0]})")]
    low, _, high = wanted.partition("-")
    room = int(high) - int(low) + 1
    if room < settings.limits.calls:
        advice = "a call takes one port on each address: widen udp_ports or lower calls under [limits]"
        return [*checks, Check("UDP", "warn", f"{room} ports for up to {settings.limits.calls} calls", advice)]
    return [*checks, Check("UDP", "ok", f"{wanted} can be bound (tried {ports[0]}); the firewall must let it in")]


def _check_open_files(settings: Settings) -> Check:
    try:
        addresses = len(_network(settings).local_addresses())
    except NetworkError:
        addresses = 1  # told elsewhere
    wanted, most = open_files.needed(settings, addresses), open_files.allowed()
    calls = settings.limits.calls
    if most is not None and most < wanted:
        detail = f"{most} are allowed, and {calls} calls may need {wanted}"
        return Check("open files", "warn", detail, open_files.advice(settings))
    limit = "any number" if most is None else f"{most}"
    return Check("open files", "ok", f"{calls} calls may need {wanted}, allowed are up to {limit}")


def _check_public_address(settings: Settings) -> Check:
    name = "public address"
    if is_loopback(settings.server.host):
        return Check(name, "ok", "not needed: only this machine can call")
    public = settings.network.public_address
    if public is not None:
        if ipaddress.ip_address(public).is_global:
            return Check(name, "ok", public)
        return Check(name, "warn", f"{public} is not reachable from the internet", "fine inside your own network only")
    try:
        addresses = _network(settings).local_addresses()
    except NetworkError:
        addresses = []
    if any(ipaddress.ip_address(address.partition("%")[0]).is_global for address in addresses):
        return Check(name, "ok", "this machine has one of its own")
    advice = "set public_address under [network] to what callers see, and forward udp_ports"
    return Check(name, "warn", "only private addresses: callers from elsewhere will not connect", advice)


def _check_line(line: Line, settings: Settings) -> Check:
    name = f"telephony {line.name}"
    flaw = None if line.secrets is None else line.carrier.flaw(line.secrets)
    if flaw is not None:
        return Check(name, "fail", flaw, f"docs/telephony says which secrets {line.carrier.name} has")
    if not line.carrier.announces:
        return Check(name, "ok", f"its socket: {PREFIX}/{line.name}")
    public = settings.server.public_url
    if public is None and line.carrier.name == "audiosocket":
        return Check(name, "ok", f"its dial plan's address: {PREFIX}/{line.name}/answer")
    if public is None:
        advice = "set REALTIME_PUBLIC_URL to the address that the carrier asks, unless a trusted proxy passes it on"
        return Check(name, "warn", "its signatures hold the public address, which is not known", advice)
    return Check(name, "ok", f"its webhook: {public.rstrip('/')}{PREFIX}/{line.name}/answer")


async def _check_ice(settings: Settings) -> list[Check]:
    checks = []
    urls = [*settings.ice.turn_urls, *(url for server in settings.ice.servers for url in server.urls)]
    for url in urls:
        checks.append(await _check_ice_url(url))
    if not has_turn(settings):
        if is_loopback(settings.server.host):
            checks.append(Check("TURN", "ok", "none, and none needed on this machine"))
        else:
            advice = "set turn_urls and turn_secret under [ice] (coturn: use-auth-secret, static-auth-secret)"
            checks.append(Check("TURN", "warn", "none: callers behind firewalls that block UDP cannot connect", advice))
    return checks


async def _check_ice_url(url: str) -> Check:
    scheme, host, port, over_tcp = parse_ice_url(url)
    loop = asyncio.get_running_loop()
    try:
        kind = socket.SOCK_STREAM if over_tcp else socket.SOCK_DGRAM
        address = (await asyncio.wait_for(loop.getaddrinfo(host, port, type=kind), VENDOR_SECONDS))[0]
    except (OSError, TimeoutError):
        return Check(url, "fail", f"the name {host} is not found", "check [ice]")
    probe: Callable[[tuple[str, int]], Awaitable[bool]] = _accepts_tcp if over_tcp else answers_stun
    target = (str(address[4][0]), port)
    if await probe(target):
        return Check(url, "ok", "answers")
    what = "a TCP connection" if over_tcp else "a STUN request"
    advice = f"is the {scheme.rstrip('s').upper()} server running, and does a firewall let this through?"
    return Check(url, "warn", f"does not answer {what}", advice)


def parse_ice_url(url: str) -> tuple[str, str, int, bool]:
    """Scheme, host, port and whether it is over TCP, of an address that the settings have accepted."""
    match = re.fullmatch(r"(\w+):(\[[^]]+\]|[^?:]+)(?::(\d+))?(?:\?transport=(\w+))?", url)
    assert match is not None
    secure = match[1].endswith("s")
    return match[1], match[2].strip("[]"), int(match[3] or (5349 if secure else 3478)), secure or match[4] == "tcp"


async def answers_stun(address: tuple[str, int]) -> bool:
    """Whether a STUN Binding request (RFC 8489) to `address` gets its answer; TURN servers give one too."""
    loop = asyncio.get_running_loop()
    transaction = secrets.token_bytes(12)
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + transaction
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        for _ in range(2):
            try:
                await loop.sock_connect(sock, address)
                await loop.sock_sendall(sock, request)
                answer = await asyncio.wait_for(loop.sock_recv(sock, 2048), STUN_SECONDS / 2)
            except (OSError, TimeoutError):
                continue
            if answer[8:20] == transaction:
                return True
    return False


async def _accepts_tcp(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*address), STUN_SECONDS)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def worst(checks: Sequence[Check]) -> str:
    """`ok`, `warn` or `fail`."""
    return max((check.state for check in checks), key=("ok", "warn", "fail").index, default="ok")
