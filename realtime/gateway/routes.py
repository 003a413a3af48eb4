"""All one-shot endpoints in one router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from realtime.gateway.asr import asr_routes
from realtime.gateway.batches import Batches, batch_routes
from realtime.gateway.chat import chat_routes
from realtime.gateway.embed import embed_routes
from realtime.gateway.files import Files, LocalFiles, file_routes
from realtime.gateway.image import image_routes
from realtime.gateway.models import model_routes
from realtime.gateway.tts import tts_routes
from realtime.gateway.vision import vision_routes
from realtime.gateway.work import Gateway
from realtime.mistakes import Mistake
from realtime.settings import Settings, SettingsError, data_folder
from realtime.store.base import Store


def open_files(settings: Settings, store: Store) -> Files:
    """Raises `SettingsError` when what the settings want is not installed."""
    limits = settings.limits
    if settings.files is None:
        folder = data_folder(settings) / "files"
        return LocalFiles(folder, store, seconds=limits.file_seconds, max_bytes=limits.files_bytes)
    try:
        from realtime.gateway.s3_files import S3Files
    except ModuleNotFoundError as error:
        message = f"[files] needs {error.name}: pip install 'infrai-realtime[s3]'"
        raise SettingsError([Mistake(None, "files", message)]) from None
    return S3Files(settings.files, seconds=limits.file_seconds)


def gateway_routes(gateway: Gateway) -> APIRouter:
    """They start and stop the gateway with the application that includes them."""

    gateway.batches = batches = Batches(gateway)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        await batches.start()
        try:
            yield
        finally:
            await batches.close()
            await gateway.close()

    router = APIRouter(lifespan=lifespan)
    for routes in (chat_routes, embed_routes, image_routes, vision_routes, tts_routes, asr_routes, model_routes):
        router.include_router(routes(gateway))
    router.include_router(batch_routes(gateway, batches))
    router.include_router(file_routes(gateway.files))
    return router
