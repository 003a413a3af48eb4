"""What a start-up should point out about the settings, in plain sentences. Pure: looks, never probes.

`realtime serve` shows these under its start screen; `realtime doctor` probes what they only mention.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from realtime.presets import PRESETS
from realtime.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def notices(settings: Settings, environ: Mapping[str, str], *, tls: bool) -> list[str]:
    """What a person starting the server should know, most pressing first."""
    found = []
    if not is_loopback(settings.server.host):
        found += _outside(settings, tls)
    if environ.get("OPENAI_API_KEY") and not settings.vendors:
        lines = "\n".join(f"  {line}" for line in PRESETS["openai"].lines())
        found.append(
            "OPENAI_API_KEY is set and not used. `realtime init --preset openai` writes the lines that use it:\n"
            + lines
        )
    return found


def _outside(settings: Settings, tls: bool) -> list[str]:
    found = []
    encrypted = tls or (settings.server.public_url or "").startswith("https://")
    if not encrypted:
        found.append(
            f"{settings.server.host} is open to other machines without TLS: keys and tokens travel in the clear, and "
            "browsers give pages no microphone. Use --tls-cert and --tls-key, or a proxy and public_url."
        )
    if not has_turn(settings):
        found.append(
            "No TURN server: callers behind firewalls that block UDP will not connect. "
            "Set turn_urls and turn_secret under [ice]."
        )
    return found


def has_turn(settings: Settings) -> bool:
    """Whether callers are given a TURN server."""
    urls = [*settings.ice.turn_urls, *(url for server in settings.ice.servers for url in server.urls)]
    return any(url.startswith("turn") for url in urls)
