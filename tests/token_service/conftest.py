"""A token service over the memory store and a clock that tests turn by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime.store.memory import MemoryStore
from token_service.api_keys import ApiKeys
from token_service.keys import SigningKeys
from token_service.tokens import Tokens
from token_service.used_tokens import UsedTokens


class WallClock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def store(clock: WallClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def keys(tmp_path: Path, clock: WallClock) -> SigningKeys:
    return SigningKeys.load_or_create(tmp_path / "data", clock=clock)


@pytest.fixture
def tokens(keys: SigningKeys, clock: WallClock) -> Tokens:
    return Tokens(keys, "us", "us-live", clock=clock)


@pytest.fixture
def api_keys(store: MemoryStore, clock: WallClock) -> ApiKeys:
    return ApiKeys(store, clock=clock)


@pytest.fixture
def used(store: MemoryStore, clock: WallClock) -> UsedTokens:
    return UsedTokens(store, clock=clock)
