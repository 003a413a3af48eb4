"""The whole application over its own data folder, without its engines started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from realtime import development_key
from realtime.app import create_app
from realtime.local import open_store
from realtime.settings import ServerSettings, Settings
from token_service.api_keys import ApiKeys

Browser = Callable[..., TestClient]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a development key in it."""
    folder = tmp_path / "data"
    folder.mkdir()

    async def make() -> None:
        store = open_store(folder)
        assert await development_key.ensure(ApiKeys(store), folder)
        await store.close()

    asyncio.run(make())
    return folder


@pytest.fixture
def app(folder: Path) -> FastAPI:
    return create_app(Settings(server=ServerSettings(data=folder)), engines="instant")


@pytest.fixture
def browser(app: FastAPI) -> Browser:
    """A browser at `address` that has opened the page at `url`."""

    def open_at(address: str = "127.0.0.1", url: str = "http://127.0.0.1:8080", **headers: str) -> TestClient:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return TestClient(app, base_url=url, client=(address, 50_000), headers=named)

    return open_at
