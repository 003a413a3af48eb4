"""Runs the application under uvicorn and shows the start screen once it really listens.

The socket is bound first, so that a taken port is said in one line and port 0 is known by its real
number; the screen comes after start-up, when calls are accepted.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shlex
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI
from rich.console import Console

from realtime import development_key
from realtime.adapters.base import EngineInfo
from realtime.app import create_app
from realtime.local import command_name, local_url, open_store
from realtime.noticed import is_loopback, notices
from realtime.screen import Facts, show
from realtime.settings import Settings, data_folder
from token_service.api_keys import ApiKeys

GRACE_SECONDS = 5
"""How long requests may go on once the server was told to stop."""

MAX_WEBSOCKET_MESSAGE = 16 << 20
"""Bytes: OpenAI's clients may append 15 MiB of audio in one event."""

EXAMPLE = Path("tests/audio/synth_flite_rms_weather_london.wav")
"""A question to try with, in a checkout."""

QUIET_LOGGERS = ("aioice", "aiortc", "httpx2", "httpcore2", "uvicorn.error")
"""They say in INFO what only their own developers want to know."""


class CannotServe(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line adds to the settings."""

    config: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    engines: Literal["instant"] | None = None
    log_level: str = "info"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_listening()


def run(settings: Settings, options: Options, environ: Mapping[str, str], console: Console) -> None:
    """Serve until told to stop. Raises `CannotServe`, `SettingsError`, or what `create_app` raises."""
    configure_logging(options.log_level)
    listener = listen(settings.server.host, settings.server.port)
    with listener:
        made_key = None if settings.server.api_key else asyncio.run(_development_key(data_folder(settings)))
        app = create_app(settings, engines=options.engines)
        port = listener.getsockname()[1]

        def say() -> None:
            show(_facts(settings, options, environ, port, app.state.services.catalogue.infos(), made_key), console)

        server = _Server(_uvicorn_config(app, options), say)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            return  # uvicorn has stopped in order and only repeats the signal
        if not server.started:
            raise CannotServe("the server did not start; the log above says why")


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


def configure_logging(level: str) -> None:
    """One plain line an entry on stderr."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    if level != "debug":
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)


def _uvicorn_config(app: FastAPI, options: Options) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="auto",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_WEBSOCKET_MESSAGE,
        lifespan="on",
        access_log=False,
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


async def _development_key(folder: Path) -> str | None:
    store = open_store(folder)
    try:
        return await development_key.ensure(ApiKeys(store), folder)
    finally:
        await store.close()


def _facts(
    settings: Settings,
    options: Options,
    environ: Mapping[str, str],
    port: int,
    engines: Sequence[EngineInfo],
    made_key: str | None,
) -> Facts:
    folder = data_folder(settings)
    tls = options.tls_cert is not None
    found = notices(settings, environ, tls=tls)
    if made_key is not None and not is_loopback(settings.server.host):
        found.append("The development key opens everything. Revoke it before others can reach this server.")
    return Facts(
        version=version("infrai-realtime"),
        url=local_url(settings.server.host, port, tls=tls),
        public_url=settings.server.public_url,
        config=options.config,
        data=folder,
        engines=engines,
        command=command_name(),
        question=str(EXAMPLE) if EXAMPLE.exists() else "question.wav",
        made_key=made_key,
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
