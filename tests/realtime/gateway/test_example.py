"""The example settings file loads as it stands and offers what it says."""

from __future__ import annotations

from pathlib import Path

from realtime.adapters.offers import offers
from realtime.adapters.routing import Amount, Wish, plan
from realtime.settings import load

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "gateway.toml"
KEYS = {"OPENAI_API_KEY": "sk-x", "ANTHROPIC_API_KEY": "sk-y"}


def test_the_example_has_no_mistake_and_its_models_can_be_asked_for() -> None:
    settings = load(EXAMPLE, KEYS)
    found = offers(settings)
    own = [model for model in found if model.vendor != "embedded"]
    assert {model.kind for model in own} == {"chat", "embed", "image", "tts", "stt"}
    chat = Wish("chat", amount=Amount(100, 100), prefer="cheapest")
    assert plan(chat, own).models[0].id == "llama3.2"
    assert all(model.prices.cost(Amount(10, 0)) is not None for model in own if model.kind in ("chat", "embed"))


def test_every_setting_of_routing_is_in_the_page_about_it() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
    for word in ("max_cost_multiplier", "timeout_seconds", "Idempotency-Key", "cache_strategy", "batch_mode", "prefer"):
        assert word in page
