"""Runs the application under uvicorn and shows the start screen once it really listens.

The socket is bound first, so that a taken port is said in one line and port 0 is known by its real
number; the screen comes after start-up, when calls are accepted.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import shlex
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import ifaddr
import uvicorn
from fastapi import FastAPI
from rich.console import Console

from media.network import Network
from realtime import development_key, open_files, self_signed
from realtime.adapters.base import EngineInfo
from realtime.agents.loading import Bot
from realtime.agents.reloading import reload
from realtime.app import Services, create_app
from realtime.http_protocol import HttpProtocol
from realtime.local import command_name, local_url, open_store
from realtime.logs import configure_logging
from realtime.noticed import is_loopback, notices
from realtime.observe.garbage import Garbage
from realtime.screen import Facts, show
from realtime.settings import Settings, data_folder
from realtime.web import access
from realtime.web_socket_protocol import WebSocketProtocol
from token_service.api_keys import ApiKeys

GRACE_SECONDS = 5
"""How long requests may go on once the server was told to stop."""

HANDSHAKE_SECONDS = 10.0
"""For TLS, where the server does that itself; as long as for the head of a request after it."""

MAX_WEBSOCKET_MESSAGE = 21 << 20
"""Bytes: one event may append 15 MiB of audio, which is 20 MiB in base64."""

EXAMPLE = Path("tests/audio/synth_flite_rms_weather_london.wav")
"""A question to try with, in a checkout."""

logger = logging.getLogger(__name__)


class CannotServe(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line adds to the settings."""

    config: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    self_signed: bool = False
    """TLS with a certificate of our own instead of those two."""
    engines: Literal["instant"] | None = None
    log_level: str = "info"
    bot: Bot | None = None
    """The developer's own agents."""
    reload: bool = False
    """Take up changes of their files."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.is_ssl:
            # uvicorn leaves the loops' minute; a connection is not counted for its address before its handshake.
            loop = asyncio.get_running_loop()
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=HANDSHAKE_SECONDS)  # type: ignore[method-assign]
        await super().startup(sockets=sockets)
        if self.started:
            self._on_listening()


def run(settings: Settings, options: Options, environ: Mapping[str, str], console: Console) -> None:
    """Serve until told to stop. Raises `CannotServe`, `SettingsError`, `BotError`, or what `create_app` raises."""
    configure_logging(options.log_level, settings)
    if options.self_signed:
        options = _with_certificate(settings, options)
    listener = listen(settings.server.host, settings.server.port)
    with listener:
        port = listener.getsockname()[1]
        prepared = asyncio.run(_prepare(settings, page_url(settings, port, tls=options.tls_cert is not None)))
        app = create_app(settings, engines=options.engines, agents=options.bot.agents if options.bot else ())

        def say() -> None:
            show(_facts(settings, options, environ, port, app.state.services.catalogue.infos(), prepared), console)

        garbage = Garbage(lambda: len(app.state.services.sessions))

        def listening() -> None:
            garbage.start()
            say()
            if options.bot is not None and options.reload:
                services: Services = app.state.services
                work = reload(options.bot, services.agents, services.catalogue)
                app.state.reloading = asyncio.get_running_loop().create_task(work)

        _allow_open_files(settings, app.state.services.network)
        server = _Server(_uvicorn_config(app, options), listening)
        logging.getLogger("uvicorn.error").addFilter(lambda record: not hasattr(app.state, "unable"))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            return  # uvicorn has stopped in order and only repeats the signal
        if not server.started:
            raise CannotServe(getattr(app.state, "unable", "the server did not start; the log above says why"))


def _allow_open_files(settings: Settings, network: Network) -> None:
    wanted = open_files.needed(settings, len(network.local_addresses()))
    allowed = open_files.ensure(wanted)
    if allowed is not None and allowed < wanted:
        what = "%d open files are allowed, and %d calls may need %d: %s"
        logger.warning(what, allowed, settings.limits.calls, wanted, open_files.advice(settings))


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises `CannotServe`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise CannotServe(f"{host} is no address of this machine: {error.strerror}") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # On Windows this option would let two servers share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            hint = "stop what listens there, or use --port 0 for any free port"
            raise CannotServe(f"port {port} on {host} is taken; {hint}") from None
        raise CannotServe(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def _uvicorn_config(app: FastAPI, options: Options) -> uvicorn.Config:
    services: Services = app.state.services
    config = uvicorn.Config(
        app,
        loop="auto",
        http=partial(HttpProtocol, connections=services.connections),  # type: ignore[arg-type]  # called like a class
        ws=WebSocketProtocol,
        ws_max_size=MAX_WEBSOCKET_MESSAGE,
        ws_per_message_deflate=False,  # audio does not get smaller, and inflating 20 MiB would hold up the loop
        lifespan="on",
        access_log=False,
        proxy_headers=False,  # realtime.proxies does this, with the proxies of the settings
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise CannotServe(f"the TLS certificate or key cannot be used: {error}") from None
    return config


@dataclass(frozen=True, slots=True)
class _Prepared:
    """`made_key`: the development key, when this start made one. `link`: opens the page once, where that is needed."""

    made_key: str | None
    link: str | None


async def _prepare(settings: Settings, url: str) -> _Prepared:
    folder = data_folder(settings)
    store = open_store(folder)
    try:
        keys = ApiKeys(store)
        made_key = None if settings.server.api_key else await development_key.ensure(keys, folder)
        await access.remember_address(store, url)
        here_alone = is_loopback(settings.server.host) and await access.trust(settings, keys)()
        return _Prepared(made_key, None if here_alone else await access.new_link(store, url))
    finally:
        await store.close()


def page_url(settings: Settings, port: int, *, tls: bool) -> str:
    """Where others open the page: the public address, else the first address of this machine that listens."""
    server = settings.server
    if server.public_url is not None:
        return server.public_url
    host = server.host
    if host in ("", "0.0.0.0", "::"):
        own = [address for address in machine_addresses() if not is_loopback(address)]
        host = next((address for address in own if (":" in address) == (host == "::")), host)
    return local_url(host, port, tls=tls)


def machine_addresses() -> list[str]:
    """Addresses of this machine's interfaces, link-local ones left out."""
    found = [str(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for a in ifaddr.get_adapters() for ip in a.ips]
    return [address for address in found if not ipaddress.ip_address(address).is_link_local]


def _with_certificate(settings: Settings, options: Options) -> Options:
    public = settings.network.public_address
    names = [*machine_addresses(), *([public] if public else [])]
    try:
        certificate, key = self_signed.ensure(data_folder(settings), names)
    except OSError as error:
        raise CannotServe(f"the self-signed certificate cannot be kept: {error}") from None
    return replace(options, tls_cert=certificate, tls_key=key)


def _facts(
    settings: Settings,
    options: Options,
    environ: Mapping[str, str],
    port: int,
    engines: Sequence[EngineInfo],
    prepared: _Prepared,
) -> Facts:
    folder = data_folder(settings)
    tls = options.tls_cert is not None
    found = notices(settings, environ, tls=tls)
    if prepared.made_key is not None and not is_loopback(settings.server.host):
        found.append("The development key opens everything. Revoke it before others can reach this server.")
    return Facts(
        version=version("infrai-realtime"),
        url=local_url(settings.server.host, port, tls=tls),
        public_url=settings.server.public_url,
        config=options.config,
        data=folder,
        bot=None if options.bot is None else f"{options.bot.spec}: {', '.join(a.name for a in options.bot.agents)}",
        engines=engines,
        command=command_name(),
        question=str(EXAMPLE) if EXAMPLE.exists() else "question.wav",
        made_key=prepared.made_key,
        link=prepared.link,
        key=_key_in_shell(settings, folder, environ),
        notices=found,
    )


def _key_in_shell(settings: Settings, folder: Path, environ: Mapping[str, str]) -> str | None:
    """What a line for the shell says where the key stands, without showing it."""
    for variable in ("REALTIME_API_KEY", "INFRAI_API_KEY"):
        if environ.get(variable):
            return f"${variable}"
    if settings.server.api_key is None and development_key.read(folder) is not None:
        return f"$(cat {shlex.quote(str(folder / development_key.FILE))})"
    return None
