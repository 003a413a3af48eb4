"""Servers for the endpoint tests: one on the embedded engines, one over two stub vendors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from realtime.adapters.openai import OpenAIChat, OpenAISpeechToText
from realtime.adapters.openai_media import OpenAIImages
from realtime.settings import LimitSettings
from tests.realtime.gateway.server import INSTANT, Running, model, running, settings, vendor
from tests.vendors.openai_stub import OpenAIStub


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(settings(tmp_path_factory.mktemp("embedded"))) as server:
        yield server


@dataclass
class Vendors:
    """`server` routes to `first`, and to `second` when that fails; `dear` costs ten times as much."""

    server: Running
    first: OpenAIStub
    second: OpenAIStub
    dear: OpenAIStub

    @property
    def stubs(self) -> tuple[OpenAIStub, OpenAIStub, OpenAIStub]:
        return self.first, self.second, self.dear


@pytest.fixture(scope="session")
def all_vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendors]:
    with OpenAIStub().serve() as first, OpenAIStub().serve() as second, OpenAIStub().serve() as dear:
        stubs = {"first": first, "second": second, "dear": dear}
        dear_prices = {"input_cost_per_token": 1e-5, "output_cost_per_token": 2e-5}
        models = [
            model("gpt-one", "first", quality={"general": 70}, max_context=100_000),
            model("gpt-two", "second", quality={"general": 60, "coding": 90}, input_cost_per_token=1.2e-6,
                  output_cost_per_token=2.4e-6),
            model("gpt-dear", "dear", quality={"general": 75}, **dear_prices),
            model("embed-one", "first", "embed"),
            model("embed-two", "second", "embed", caps=[]),
            model("draw-one", "first", "image", output_cost_per_image=0.04),
            model("say-one", "first", "tts", input_cost_per_character=1e-5),
            model("say-two", "second", "tts", input_cost_per_character=1e-5),
            model("hear-one", "first", "stt", input_cost_per_second=1e-4),
            model("hear-two", "second", "stt", input_cost_per_second=1e-4),
        ]  # fmt: skip
        configured = settings(
            tmp_path_factory.mktemp("vendors"),
            vendors={name: vendor(stub.base_url) for name, stub in stubs.items()},
            models=models,
            live=INSTANT,
            limits=LimitSettings(requests_per_minute=60_000),
        )
        with running(configured) as server:
            server.gateway.jitter = lambda least, most: least / 10
            yield Vendors(server, first, second, dear)


@pytest.fixture
def vendors(all_vendors: Vendors) -> Vendors:
    """Fresh stubs, closed breakers, an empty cache, engines that have learnt nothing of their vendors."""
    for stub in all_vendors.stubs:
        url, changed = stub.base_url, stub._changed
        vars(stub).update(vars(OpenAIStub()))
        stub.base_url, stub._changed = url, changed
    catalogue = all_vendors.server.gateway.catalogue
    for offer in catalogue.offers:
        breaker = catalogue.breaker(offer)
        breaker.__init__()  # type: ignore[misc]
    for engine in catalogue._built.values():
        if isinstance(engine, OpenAIChat):
            engine._dialect.clear()
        elif isinstance(engine, OpenAISpeechToText):
            engine._tells_times = True
        elif isinstance(engine, OpenAIImages):
            engine._says_format = True
    return all_vendors
