"""How many files and sockets the process may have open, and how many its calls need.

Systems start programs with a soft limit of 1024 and a hard one far above it: the soft one is what `select` can
take, which nothing here uses. So `serve` raises it, and says when the hard one does not suffice.
"""

from __future__ import annotations

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

from realtime.settings import Settings

OF_THE_SERVER = 128
"""Measured: 29 with the embedded engines and the store; engines of one's own, MCP servers and requests come on top."""
OF_A_CALL = 4
"""Beside one UDP socket for each local address: its WebSocket or sideband, and a connection each to the vendors that
hear, answer and speak. Measured without vendors: 4 for a call over WebRTC on 4 addresses, 1 over a WebSocket."""


def needed(settings: Settings, addresses: int) -> int:
    """Open files with every call there may be. `addresses`: local ones that calls bind."""
    limits = settings.limits
    return OF_THE_SERVER + 2 * limits.address_connections + limits.calls * (addresses + OF_A_CALL)


def allowed() -> int | None:
    """What the process may raise its limit to; None for any number."""
    if resource is None:
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def ensure(wanted: int) -> int | None:
    """Raise the soft limit to `wanted`, as far as the hard one lets it. What is in force then; None for any number."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft >= wanted:
        return soft
    new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
    except (OSError, ValueError):  # macOS has a lower bound of its own beside the hard one
        return soft
    return new


def advice(settings: Settings) -> str:
    return (
        f"raise the hard limit of open files (LimitNOFILE= of the systemd unit, --ulimit nofile= of the container, "
        f"`ulimit -Hn`), or lower calls under [limits] from {settings.limits.calls}"
    )
