"""`create_app(settings)`: routes, start-up, shutdown. Composes; decides nothing."""

from __future__ import annotations

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
from media.peer import Peer
from media.vad import Vad
from realtime import problems
from realtime.adapters.catalogue import Catalogue
from realtime.live.policy import Policy
from realtime.live.routes import session_routes
from realtime.live.sessions import Sessions
from realtime.local import open_store
from realtime.noticed import is_loopback
from realtime.observe.metrics import Metrics
from realtime.observe.routes import health_routes
from realtime.settings import IceServer as IceServerSettings
from realtime.settings import Settings, data_folder
from realtime.store.base import Store
from signaling.calls import CallRoutes, calls_routes
from token_service.api_keys import ApiKeys
from token_service.auth import Authenticator
from token_service.ice import IceConfig, IceServer
from token_service.keys import SigningKeys
from token_service.minting import Minter, MintLimits, load_session
from token_service.routes import token_routes
from token_service.tokens import Claims, Tokens
from token_service.used_tokens import UsedTokens

VERSION = version("infrai-realtime")


@dataclass(frozen=True, slots=True)
class Services:
    """What the application is made of, as `app.state.services`."""

    settings: Settings
    store: Store
    api_keys: ApiKeys
    catalogue: Catalogue
    vad: Vad
    metrics: Metrics
    sessions: Sessions
    pacer: Pacer


def create_app(settings: Settings, *, engines: Literal["instant"] | None = None) -> FastAPI:
    """The whole server as an ASGI application.

    `engines="instant"` replaces every engine by one that answers at once, for measuring. Raises
    `media.aiortc_private.UnsupportedAiortc` when the installed aiortc is not the one we know, and
    `StoreError` or `KeyFileError` when the data folder cannot be used.
    """
    aiortc_private.check()
    folder = data_folder(settings)
    store = open_store(folder)
    catalogue = Catalogue(settings, override=engines)
    policy = Policy(settings, catalogue)
    metrics = Metrics()
    vad = Vad()
    sessions = Sessions(settings, catalogue, policy, vad, metrics, store)
    pacer = Pacer()
    api_keys = ApiKeys(store)
    services = Services(settings, store, api_keys, catalogue, vad, metrics, sessions, pacer)

    app = FastAPI(title="infrai-realtime", version=VERSION, lifespan=partial(_lifespan, services))
    app.state.services = services
    problems.install(app)

    tokens = Tokens(SigningKeys.load_or_create(folder), settings.token.issuer, settings.token.audience)
    used_tokens = UsedTokens(store)
    authenticator = Authenticator(tokens, api_keys, used_tokens)
    ice = IceConfig(
        servers=[_ice_server(server) for server in settings.ice.servers],
        turn_urls=settings.ice.turn_urls,
        turn_secret=settings.ice.turn_secret.get_secret_value() if settings.ice.turn_secret else None,
    )
    minter = Minter(
        tokens,
        store,
        policy,
        ice=ice,
        limits=MintLimits(per_key=settings.limits.tokens_per_minute),
        default_ttl_seconds=settings.token.ttl_seconds,
    )
    local = is_loopback(settings.server.host)
    network = Network(
        interfaces=settings.network.interfaces,
        udp_ports=settings.network.udp_ports,
        public_address=settings.network.public_address,
        include_loopback=local,
    )

    def new_peer() -> Peer:
        return Peer(
            network=network,
            pacer=pacer,
            connect_seconds=settings.limits.connect_seconds,
            inactivity_seconds=settings.limits.inactivity_seconds,
        )

    def ice_for(claims: Claims) -> Sequence[Mapping[str, Any]]:
        return ice.for_session(claims.session_id, settings.token.ttl_seconds, claims.issued_at)

    handlers = CallRoutes(
        calls=sessions,
        callers=authenticator,
        used_tokens=used_tokens,
        new_peer=new_peer,
        load_session=partial(load_session, store),
        ice_servers=ice_for,
        allow_loopback=local,
        known_model=policy.known_model,
    )
    app.include_router(token_routes(authenticator, minter))
    app.include_router(calls_routes(handlers))
    app.include_router(session_routes(sessions, authenticator, used_tokens))
    app.include_router(health_routes(sessions, catalogue, pacer, metrics, VERSION))
    return app


@asynccontextmanager
async def _lifespan(services: Services, _: FastAPI) -> AsyncIterator[None]:
    if services.settings.server.api_key is not None:
        services.api_keys.add_fixed(services.settings.server.api_key.get_secret_value())
    services.vad.load()
    services.pacer.start()
    await services.catalogue.start()
    try:
        yield
    finally:
        await services.sessions.drain()
        await services.catalogue.close()
        services.pacer.stop()
        await services.store.close()


def _ice_server(server: IceServerSettings) -> IceServer:
    credential = server.credential.get_secret_value() if server.credential else None
    return IceServer(server.urls, server.username, credential)
