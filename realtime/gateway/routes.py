"""All one-shot endpoints in one router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from realtime.gateway.chat import chat_routes
from realtime.gateway.work import Gateway


def gateway_routes(gateway: Gateway) -> APIRouter:
    """They start and stop the gateway with the application that includes them."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.close()

    router = APIRouter(lifespan=lifespan)
    for routes in (chat_routes,):
        router.include_router(routes(gateway))
    return router
