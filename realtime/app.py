"""`create_app(settings)`: routes, start-up, shutdown. Composes; decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

from fastapi import FastAPI

from media import aiortc_private
from media.network import Network
from media.pacer import Pacer
from media.peer import NegotiationError, Peer
from media.vad import Vad
from realtime import problems
from realtime.adapters.base import EngineError
from realtime.adapters.catalogue import Catalogue
from realtime.agents.agent import Agent
from realtime.agents.house import Agents
from realtime.agents.usercode import OwnThread
from realtime.connections import ConnectionLimit, Connections
from realtime.gateway.files import Files
from realtime.gateway.routes import gateway_routes, open_files
from realtime.gateway.work import Gateway
from realtime.live import hooks
from realtime.live.client_secrets import client_secret_routes
from realtime.live.policy import Policy
from realtime.live.routes import session_routes
from realtime.live.sessions import Sessions
from realtime.live.websocket import WebSocketRoutes, websocket_routes
from realtime.local import open_store
from realtime.noticed import is_loopback
from realtime.observe.metrics import Metrics
from realtime.observe.routes import health_routes
from realtime.observe.watchdog import Watchdog
from realtime.observe.webhooks import Webhooks
from realtime.proxies import TrustedProxies
from realtime.recording.recordings import Recordings
from realtime.recording.routes import recording_routes
from realtime.settings import Settings, data_folder
from realtime.store.base import Store
from realtime.store.writable import Writable
from realtime.telephone import lines, rest
from realtime.web import access
from realtime.web.access import PageAccess, trust
from realtime.web.routes import web_routes
from signaling.calls import CallRoutes, calls_routes
from signaling.telephony.expected import Expected
from signaling.telephony.routes import TelephonyRoutes, telephony_routes
from token_service.api_keys import ApiKeys
from token_service.auth import Authenticator
from token_service.ice import IceConfig
from token_service.keys import SigningKeys
from token_service.minting import Minter, MintLimits, load_session
from token_service.routes import token_routes
from token_service.tokens import Claims, Tokens
from token_service.used_tokens import UsedTokens

VERSION = version("infrai-realtime")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What the application is made of, as `app.state.services`."""

    settings: Settings
    store: Store
    api_keys: ApiKeys
    used_tokens: UsedTokens
    authenticator: Authenticator
    minter: Minter
    ice: IceConfig
    catalogue: Catalogue
    policy: Policy
    vad: Vad
    metrics: Metrics
    webhooks: Webhooks
    agents: Agents
    files: Files
    recordings: Recordings
    sessions: Sessions
    pacer: Pacer
    network: Network
    watchdog: Watchdog
    connections: Connections

    def new_peer(self) -> Peer:
        limits = self.settings.limits
        return Peer(
            network=self.network,
            pacer=self.pacer,
            connect_seconds=limits.connect_seconds,
            inactivity_seconds=limits.inactivity_seconds,
        )

    def send_what_is_due(self) -> None:
        self.pacer.catch_up(time.monotonic())

    def ice_for(self, claims: Claims) -> Sequence[Mapping[str, Any]]:
        return self.ice.for_session(claims.session_id, self.settings.token.ttl_seconds, claims.issued_at)


def create_app(
    settings: Settings, *, engines: Literal["instant"] | None = None, agents: Sequence[Agent] = ()
) -> FastAPI:
    """The whole server as an ASGI application.

    `engines="instant"` replaces every engine by one that answers at once, for measuring. `agents` are the
    developer's own, over those of the settings. Raises `BotError` for agents that cannot be used,
    `media.aiortc_private.UnsupportedAiortc` when the installed aiortc is not the one we know, and
    `StoreError` or `KeyFileError` when the data folder cannot be used.
    """
    aiortc_private.check()
    services = _services(settings, engines)
    services.agents.adopt(agents)
    # FastAPI's own pages of documentation load their scripts from elsewhere; `realtime.web` has one that does not.
    app = FastAPI(
        title="infrai-realtime", version=VERSION, lifespan=partial(_lifespan, services), docs_url=None, redoc_url=None
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(ConnectionLimit, connections=services.connections, first=services.send_what_is_due)
    app.add_middleware(TrustedProxies, trusted=settings.server.trusted_proxies)
    handlers = CallRoutes(
        calls=services.sessions,
        callers=services.authenticator,
        used_tokens=services.used_tokens,
        new_peer=services.new_peer,
        load_session=partial(load_session, services.store),
        ice_servers=services.ice_for,
        allow_loopback=is_loopback(settings.server.host),
        known_model=services.policy.known_model,
    )
    app.include_router(token_routes(services.authenticator, services.minter))
    app.include_router(calls_routes(handlers))
    app.include_router(calls_routes(handlers, prefix="/v1/realtime"))
    app.include_router(client_secret_routes(services.authenticator, services.minter, services.policy))
    sockets = WebSocketRoutes(
        services.sessions,
        services.authenticator,
        services.used_tokens,
        partial(load_session, services.store),
        audio_ahead_s=settings.limits.audio_ahead_seconds,
    )
    app.include_router(websocket_routes(sockets))
    telephone = TelephonyRoutes(
        lines=lines(settings),
        calls=services.sessions,
        expected=Expected(services.store),
        pacer=services.pacer,
        public_url=settings.server.public_url,
        rest=rest,
    )
    app.include_router(telephony_routes(telephone))
    app.include_router(session_routes(services.sessions, services.authenticator, services.used_tokens))
    app.include_router(recording_routes(services.recordings, services.authenticator))
    app.state.gateway = Gateway(settings, services.catalogue, services.store, services.authenticator, services.files)
    app.include_router(gateway_routes(app.state.gateway))
    services.metrics.watch(
        limit=services.sessions.limit,
        accepts=lambda: services.sessions.accepts,
        lags=services.watchdog.late,
        packets=services.pacer.late,
    )
    health = health_routes(
        services.sessions,
        services.catalogue,
        services.pacer,
        services.watchdog,
        services.metrics,
        Writable(services.store),
        VERSION,
    )
    app.include_router(health)
    page = PageAccess(services.store, trust(settings, services.api_keys))
    app.include_router(web_routes(page, services.minter, settings, services.catalogue))
    return app


def _services(settings: Settings, engines: Literal["instant"] | None) -> Services:
    folder = data_folder(settings)
    store = open_store(folder)
    catalogue = Catalogue(settings, override=engines)
    policy = Policy(settings, catalogue)
    webhooks = Webhooks(store, partial(hooks.endpoint, settings))
    agents = Agents(settings, catalogue, OwnThread())
    vad, metrics, watchdog = Vad(), Metrics(), Watchdog()
    files = open_files(settings, store)
    address = partial(_address, settings, store)
    recordings = Recordings(folder / "recordings", files, store, metrics, address)
    tokens = Tokens(SigningKeys.load_or_create(folder), settings.token.issuer, settings.token.audience)
    api_keys, used_tokens, ice = ApiKeys(store), UsedTokens(store), settings.ice.config()
    return Services(
        settings=settings,
        store=store,
        api_keys=api_keys,
        used_tokens=used_tokens,
        authenticator=Authenticator(tokens, api_keys, used_tokens),
        minter=Minter(
            tokens,
            store,
            policy,
            ice=ice,
            limits=MintLimits(per_key=settings.limits.tokens_per_minute),
            default_ttl_seconds=settings.token.ttl_seconds,
        ),
        ice=ice,
        catalogue=catalogue,
        policy=policy,
        vad=vad,
        metrics=metrics,
        webhooks=webhooks,
        agents=agents,
        files=files,
        recordings=recordings,
        sessions=Sessions(
            settings,
            catalogue,
            policy,
            vad,
            metrics,
            store,
            webhooks,
            agents,
            recordings,
            lambda: watchdog.lag_ms,
        ),
        pacer=Pacer(),
        network=Network(
            interfaces=settings.network.interfaces,
            udp_ports=settings.network.udp_ports,
            public_address=settings.network.public_address,
            include_loopback=is_loopback(settings.server.host),
        ),
        watchdog=watchdog,
        connections=Connections(
            settings.limits.address_connections, settings.server.trusted_proxies, metrics.connection_refused
        ),
    )


@asynccontextmanager
async def _lifespan(services: Services, app: FastAPI) -> AsyncIterator[None]:
    if services.settings.server.api_key is not None:
        services.api_keys.add_fixed(services.settings.server.api_key.get_secret_value())
    services.pacer.start()
    starting = asyncio.create_task(services.catalogue.start())
    await _warm_up(services)  # meanwhile the engines' processes come up
    services.vad.load()
    try:
        await starting
    except EngineError as error:
        app.state.unable = str(error)  # so that whoever started us can say it in a line
        raise
    await services.files.start()
    await services.recordings.start(wanted=any(agent.recording for agent in services.settings.agents.values()))
    await services.webhooks.start()
    services.watchdog.start()
    await services.agents.start()
    try:
        yield
    finally:
        services.watchdog.stop()
        await services.sessions.drain()
        await services.recordings.close()
        await services.files.close()
        await services.agents.close()
        await services.webhooks.close()
        await services.catalogue.close()
        services.pacer.stop()
        await services.store.close()


async def _address(settings: Settings, store: Store) -> str:
    """How others reach this server: what the settings say, else where the page was last served."""
    return settings.server.public_url or await access.address(store) or ""


async def _warm_up(services: Services) -> None:
    """What the first peer of a process costs once (imports, OpenSSL) is not left to the first caller.

    A machine that is too busy for it now may take calls later.
    """
    peer = services.new_peer()
    try:
        await peer.offer()
    except NegotiationError as error:
        logger.warning("the first call will take a moment longer: %s", error)
    await peer.close("warm_up")
