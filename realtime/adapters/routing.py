"""Which models may answer a request, and in what order: `plan`, a pure function.

A request pins a model or a vendor, or says what it is for (`task`) and what matters (`prefer`). Models
that cannot do it are left out, the others ordered, and those cut that would cost more than the caller
allows relative to the first. It must never choose a model that was not asked for in place of a pinned
one, nor one whose price nobody knows as a replacement. No I/O, no clock: health is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["chat", "embed", "image", "tts", "stt"]
Prefer: TypeAlias = Literal["balanced", "cheapest", "smartest"]

DEFAULT_QUALITY = 50.0
"""Of 100, for a model of which the settings say nothing."""

PRICE_WEIGHT = 12.0
"""`balanced`: points of quality that a tenfold price must bring."""

UNIT = 1e-9
"""Dollars: below this two costs are the same, and none divides by zero."""

CHARACTERS_PER_TOKEN = 4.0
"""English and code, roughly; used before a vendor has counted."""

EXPECTED_OUTPUT = 500
"""Tokens of an answer whose length the caller left open."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What a request uses, or used."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    audio_seconds: float = 0.0
    characters: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for one of each; None: not known."""

    input_token: float | None = None
    output_token: float | None = None
    cached_token: float | None = None
    """An input token that the vendor had in its cache; default: as any other."""
    second: float | None = None
    character: float | None = None
    image: float | None = None
    batch_input_token: float | None = None
    batch_output_token: float | None = None

    def of_batch(self) -> Prices:
        """Of requests done by the vendor's batch interface."""
        return Prices(input_token=self.batch_input_token, output_token=self.batch_output_token)

    def cost(self, amount: Amount) -> float | None:
        """None when a price is needed that is not known."""
        cached = min(amount.cached_tokens, amount.input_tokens)
        parts: list[tuple[float, float | None]] = [
            (amount.input_tokens - cached, self.input_token),
            (cached, self.input_token if self.cached_token is None else self.cached_token),
            (amount.output_tokens, self.output_token),
            (amount.audio_seconds, self.second),
            (amount.characters, self.character),
            (amount.images, self.image),
        ]
        total = 0.0
        for count, price in parts:
            if count and price is None:
                return None
            total += count * (price or 0.0)
        return total


FREE = Prices(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Model:
    """One model of one vendor. `id`: what callers call it; `name`: what the vendor does; `ref`: the engine."""

    id: str
    vendor: str
    name: str
    kind: Kind
    ref: str
    caps: frozenset[str]
    quality: Mapping[str, float] = field(default_factory=dict)
    prices: Prices = Prices()
    max_context: int | None = None

    def called(self, name: str) -> bool:
        return name in (self.id, self.name, self.ref, f"{self.vendor}/{self.name}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for. `amount`: an estimate; `routes`: explicit orders of references, by `prefer`."""

    kind: Kind
    task: str = "general"
    prefer: Prefer = "balanced"
    model: str | None = None
    vendor: str | None = None
    needs: frozenset[str] = frozenset()
    amount: Amount = Amount()
    max_cost_multiplier: float = 1.5
    routes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """`models`: at least one, the first is tried first. `warnings`: short names of what the caller should know."""

    models: tuple[Model, ...]
    warnings: tuple[str, ...] = ()


class NoModel(Exception):
    """No model can answer. `code`: `unknown_vendor`, `model_not_found`, `model_vendor_mismatch`,
    `unsupported`, `context_length_exceeded`; `known`: names that would have been possible."""

    def __init__(self, code: str, message: str, *, param: str | None = None, known: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.known = tuple(known)


def estimate_tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def plan(wish: Wish, catalogue: Sequence[Model], healthy: Callable[[Model], bool] = lambda model: True) -> Plan:
    """The models for `wish` in the order they are to be tried. Raises `NoModel`."""
    able = _able(wish, _pinned(wish, [model for model in catalogue if model.kind == wish.kind]))
    ordered = _ordered(wish, able)
    affordable, warnings = _affordable(wish, ordered)
    # Only now: a sick primary must not let a dearer one set the price.
    well = tuple(model for model in affordable if healthy(model))
    return Plan(well or affordable, warnings)


def _pinned(wish: Wish, models: list[Model]) -> list[Model]:
    if wish.vendor is not None and all(model.vendor != wish.vendor for model in models):
        vendors = sorted({model.vendor for model in models})
        message = f"no vendor {wish.vendor[:80]!r} for this; known: {', '.join(vendors)}"
        raise NoModel("unknown_vendor", message, param="vendor", known=vendors)
    if wish.model is None:
        return [model for model in models if wish.vendor in (None, model.vendor)]
    named = [model for model in models if model.called(wish.model)]
    if not named:
        known = list(dict.fromkeys(model.id for model in models))
        message = f"no model {wish.model[:80]!r} for this; known: {', '.join(known[:50])}"
        raise NoModel("model_not_found", message, param="model", known=known)
    fits = [model for model in named if wish.vendor in (None, model.vendor)]
    if not fits:
        message = f"{wish.model!r} is at {', '.join(sorted({m.vendor for m in named}))}, not at {wish.vendor!r}"
        raise NoModel("model_vendor_mismatch", message, param="model")
    return fits


def _able(wish: Wish, models: list[Model]) -> list[Model]:
    if not models:
        raise NoModel("model_not_found", f"no model is configured for {wish.kind}")
    able = [model for model in models if wish.needs <= model.caps]
    if not able:
        missing = sorted(wish.needs - frozenset().union(*(model.caps for model in models)) or wish.needs)
        message = f"none of these models can do that ({', '.join(missing)}): {', '.join(m.id for m in models[:20])}"
        raise NoModel("unsupported", message, param=missing[0])
    tokens = wish.amount.input_tokens + wish.amount.output_tokens
    long_enough = [model for model in able if model.max_context is None or tokens <= model.max_context]
    if not long_enough:
        longest = max(model.max_context or 0 for model in able)
        raise NoModel(
            "context_length_exceeded", f"about {tokens} tokens are asked for; the longest context has {longest}"
        )
    return long_enough


def _ordered(wish: Wish, models: list[Model]) -> list[Model]:
    explicit = wish.routes.get(wish.prefer)
    if explicit and wish.model is None:
        place = {ref: index for index, ref in reversed(list(enumerate(explicit)))}
        listed = [model for model in models if model.ref in place or model.id in place]
        if listed:
            last = len(place)
            return sorted(listed, key=lambda m: min(place.get(m.ref, last), place.get(m.id, last)))
    costs = {id(model): model.prices.cost(wish.amount) for model in models}
    known = [cost for cost in costs.values() if cost is not None]
    cheapest = max(UNIT, min(known, default=UNIT))

    def cost(model: Model) -> float:
        found = costs[id(model)]
        return math.inf if found is None else found

    def quality(model: Model) -> float:
        return model.quality.get(wish.task, model.quality.get("general", DEFAULT_QUALITY))

    def context(model: Model) -> float:
        return -(model.max_context or 0) if wish.task == "long_context" else 0

    def value(model: Model) -> float:
        price = cost(model)
        # A price nobody knows counts as ten times the cheapest: possible, but not preferred.
        relative = 10.0 if price == math.inf else max(price, cheapest) / cheapest
        return quality(model) - PRICE_WEIGHT * math.log10(relative)

    match wish.prefer:
        case "cheapest":
            return sorted(models, key=lambda m: (cost(m), -quality(m)))
        case "smartest":
            return sorted(models, key=lambda m: (-quality(m), context(m), cost(m)))
        case "balanced":
            return sorted(models, key=lambda m: (-value(m), context(m), cost(m)))


def _affordable(wish: Wish, ordered: list[Model]) -> tuple[tuple[Model, ...], tuple[str, ...]]:
    """The first, and those that may stand in for it."""
    primary, *others = ordered
    if wish.max_cost_multiplier == 0:
        return (primary,), ()
    first_cost = primary.prices.cost(wish.amount)
    kept, warnings = [primary], []
    for model in others:
        cost = model.prices.cost(wish.amount)
        if cost is None:
            warnings.append(f"failover_price_unknown:{model.vendor}/{model.name}")
        elif cost == 0 or (first_cost is not None and cost <= wish.max_cost_multiplier * first_cost + UNIT * UNIT):
            kept.append(model)
        elif first_cost is None:
            warnings.append(f"failover_price_unknown:{primary.vendor}/{primary.name}")
    return tuple(kept), tuple(dict.fromkeys(warnings))
