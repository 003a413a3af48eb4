"""What the settings offer for one-shot requests: every model with its prices, as `routing.Model`.

These are `[[models]]`, the engines that live calls use, and the embedded ones. An embedded engine only
shows what a request looks like, so it stands in for nothing: it is offered where nothing else is, or by
its name. No engine is built here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, cast

from realtime.adapters.routing import FREE, Kind, Model, Prices
from realtime.settings import AgentSettings, ModelSettings, Settings

KINDS: tuple[Kind, ...] = ("chat", "embed", "image", "tts", "stt")

ALL_CAPS: dict[Kind, frozenset[str]] = {
    "chat": frozenset({"tools", "json_object", "json_schema", "vision", "temperature"}),
    "embed": frozenset({"dimensions"}),
    "image": frozenset({"size"}),
    "tts": frozenset(),
    "stt": frozenset(),
}
"""What a model is taken to be able to do when the settings do not say; its vendor refuses what it cannot."""

EMBEDDED = (
    Model("embedded", "embedded", "demo", "chat", "embedded", ALL_CAPS["chat"] - {"vision"}, {}, FREE),
    Model("embedded", "embedded", "demo-eyes", "chat", "embedded-eyes", frozenset({"vision", "temperature"}), {}, FREE),
    Model("embedded", "embedded", "hashing", "embed", "embedded", frozenset({"dimensions"}), {}, FREE),
    Model("embedded", "embedded", "placeholder", "image", "embedded", frozenset({"size"}), {}, FREE),
    Model("embedded", "embedded", "voice", "tts", "embedded", frozenset(), {}, FREE),
    Model("embedded", "embedded", "recogniser", "stt", "embedded", frozenset(), {}, FREE),
)

INSTANT = tuple(
    Model("instant", "instant", "instant", kind, "instant", ALL_CAPS[kind] - {"vision"}, {}, FREE)
    for kind in cast(tuple[Kind, ...], ("chat", "tts", "stt"))
)


def offers(settings: Settings, *, override: Literal["instant"] | None = None) -> tuple[Model, ...]:
    """Every model a caller may have, in the order of the settings."""
    if override == "instant":
        kinds = {model.kind for model in INSTANT}
        rest = [model for model in EMBEDDED if model.kind not in kinds or "vision" in model.caps]
        return (*INSTANT, *rest)
    found = {(model.kind, model.ref): model for model in _configured(settings)}
    for kind, ref in (*_of_calls(settings), *_of_routes(settings)):
        vendor, _, name = ref.partition("/")
        if not name and ref in settings.vendors:
            vendor = name = ref  # a class of the user's own
        known = any(m.kind == kind and f"{m.vendor}/{m.name}" == ref for m in found.values())
        if name and vendor in settings.vendors and not known:
            found.setdefault((kind, ref), Model(name, vendor, name, kind, ref, caps_of(settings, vendor, kind)))
    return (*found.values(), *EMBEDDED)


def eligible(
    models: Sequence[Model],
    *,
    kind: Kind,
    pinned: tuple[str | None, str | None] = (None, None),
    needs: frozenset[str] = frozenset(),
    routed: Sequence[str] = (),
) -> list[Model]:
    """`models` without the embedded ones, unless one is pinned (model, vendor), routed to, or all there is."""
    own = [m for m in models if m.kind == kind and m.vendor != "embedded" and needs <= m.caps]
    named = any(m.kind == kind and ((pinned[0] and m.called(pinned[0])) or m.vendor == pinned[1]) for m in EMBEDDED)
    if named or not own:
        return list(models)
    return [m for m in models if m.vendor != "embedded" or m.ref in routed]


def caps_of(settings: Settings, vendor: str, kind: Kind) -> frozenset[str]:
    """What a model of which nothing is said can do. Anthropic has no format for JSON without a schema."""
    found = settings.vendors.get(vendor)
    return ALL_CAPS[kind] - {"json_object"} if found and found.kind == "anthropic" else ALL_CAPS[kind]


def _configured(settings: Settings) -> Iterator[Model]:
    for model in settings.models:
        caps = caps_of(settings, model.vendor, model.kind) if model.caps is None else frozenset(model.caps)
        yield Model(
            model.id,
            model.vendor,
            model.model or model.id,
            model.kind,
            model.id,
            caps,
            {str(task): points for task, points in model.quality.items()},
            _prices(model),
            model.max_context,
        )


def _prices(model: ModelSettings) -> Prices:
    return Prices(
        input_token=model.input_cost_per_token,
        # An embedding has no output, and its price list none for it.
        output_token=model.output_cost_per_token,
        cached_token=model.cache_read_input_token_cost,
        second=model.input_cost_per_second,
        character=model.input_cost_per_character,
        image=model.output_cost_per_image,
        batch_input_token=model.input_cost_per_token_batches,
        batch_output_token=model.output_cost_per_token_batches,
    )


def _of_calls(settings: Settings) -> Iterator[tuple[Kind, str]]:
    agents = [settings.agent("default") or AgentSettings(), *settings.agents.values()]
    for kind in cast(tuple[Kind, ...], ("chat", "tts", "stt")):
        refs: list[str] = list(getattr(settings.live, kind))
        for agent in agents:
            refs += getattr(agent, kind) or []
        for ref in dict.fromkeys(refs):
            yield kind, ref


def _of_routes(settings: Settings) -> Iterator[tuple[Kind, str]]:
    kinds: dict[str, Kind] = {"embed": "embed", "image": "image", "tts": "tts", "asr": "stt"}
    for task, route in settings.routes.items():
        for refs in (route.balanced, route.cheapest, route.smartest):
            for ref in refs or ():
                yield kinds.get(task, "chat"), ref
