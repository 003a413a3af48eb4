"""Which models answer, in what order, and which are cut: tables for `plan`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.routing import Amount, Model, NoModel, Plan, Prices, Wish, plan


def model(name: str, vendor: str, price: float | None, quality: float = 50, **values: Any) -> Model:
    prices = Prices() if price is None else Prices(price, price)
    caps = frozenset(values.pop("caps", {"tools"}))
    return Model(
        name, vendor, name, "chat", name, caps, {"general": quality, **values.pop("tasks", {})}, prices, **values
    )


CHEAP = model("cheap", "a", 1e-6, 40)
GOOD = model("good", "b", 1.4e-6, 80, tasks={"coding": 60})
BEST = model("best", "c", 1e-4, 95, caps={"tools", "vision"}, max_context=200_000)
SMALL = model("small", "d", 1e-6, 60, max_context=1000, caps={"tools"}, tasks={"coding": 90})
UNKNOWN = model("unknown", "e", None, 70)
TWIN = model("cheap", "f", 1.1e-6, 40)
ALL = [CHEAP, GOOD, BEST, SMALL, UNKNOWN]
SOME = Amount(100, 100)


def names(wish: Wish, catalogue: list[Model] = ALL, **arguments: Any) -> list[str]:
    return [f"{one.vendor}/{one.name}" for one in plan(wish, catalogue, **arguments).models]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish("chat", prefer="cheapest", amount=SOME), ["d/small", "a/cheap", "b/good"]),
        (Wish("chat", prefer="cheapest", amount=SOME, max_cost_multiplier=1.0), ["d/small", "a/cheap"]),
        (Wish("chat", prefer="cheapest", amount=SOME, max_cost_multiplier=0), ["d/small"]),
        (Wish("chat", prefer="smartest", amount=SOME), ["c/best", "b/good", "d/small", "a/cheap"]),
        (Wish("chat", prefer="balanced", amount=SOME), ["b/good", "d/small", "a/cheap"]),
        (Wish("chat", task="coding", prefer="smartest", amount=SOME), ["c/best", "d/small", "b/good", "a/cheap"]),
        (Wish("chat", task="coding", amount=SOME), ["d/small", "b/good", "a/cheap"]),
        (Wish("chat", model="good", amount=SOME), ["b/good"]),
        (Wish("chat", model="b/good", amount=SOME), ["b/good"]),
        (Wish("chat", vendor="c", amount=SOME), ["c/best"]),
        (Wish("chat", model="unknown", vendor="e", amount=SOME), ["e/unknown"]),
        (Wish("chat", needs=frozenset({"vision"}), amount=SOME), ["c/best"]),
        (Wish("chat", prefer="cheapest", amount=Amount(2000, 10)), ["a/cheap", "b/good"]),
        (Wish("chat", amount=SOME, routes={"balanced": ["unknown", "best"]}), ["e/unknown"]),
        (Wish("chat", amount=SOME, routes={"balanced": ["best", "cheap"]}), ["c/best", "a/cheap"]),
        (Wish("chat", prefer="cheapest", amount=SOME, routes={"balanced": ["best"]}), ["d/small", "a/cheap", "b/good"]),
        (Wish("chat", model="good", amount=SOME, routes={"balanced": ["best"]}), ["b/good"]),
        (Wish("chat", amount=SOME, routes={"balanced": ["gone"]}), ["b/good", "d/small", "a/cheap"]),
    ],
)  # fmt: skip
def test_the_plan_for(wish: Wish, expected: list[str]) -> None:
    assert names(wish) == expected


def test_a_pinned_model_fails_over_to_other_vendors_that_serve_it() -> None:
    assert names(Wish("chat", model="cheap", amount=SOME), [*ALL, TWIN]) == ["a/cheap", "f/cheap"]


@pytest.mark.parametrize(
    ("wish", "code", "param"),
    [
        (Wish("chat", model="gone"), "model_not_found", "model"),
        (Wish("chat", vendor="gone"), "unknown_vendor", "vendor"),
        (Wish("chat", model="good", vendor="a"), "model_vendor_mismatch", "model"),
        (Wish("chat", needs=frozenset({"dance"})), "unsupported", "dance"),
        (Wish("chat", model="good", needs=frozenset({"vision"})), "unsupported", "vision"),
        (Wish("chat", model="small", amount=Amount(2000)), "context_length_exceeded", None),
        (Wish("image"), "model_not_found", None),
    ],
)
def test_no_plan_for(wish: Wish, code: str, param: str | None) -> None:
    with pytest.raises(NoModel) as caught:
        plan(wish, ALL)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_the_cap_is_exact() -> None:
    first, exact, above = model("first", "a", 2e-6), model("exact", "b", 3e-6), model("above", "c", 3.02e-6)
    wish = Wish("chat", prefer="cheapest", amount=SOME, max_cost_multiplier=1.5)
    assert names(wish, [first, exact, above]) == ["a/first", "b/exact"]


def test_a_price_nobody_knows_is_no_replacement_and_that_is_said() -> None:
    found = plan(Wish("chat", prefer="smartest", amount=SOME, max_cost_multiplier=1000), ALL)
    assert "failover_price_unknown:e/unknown" in found.warnings
    assert UNKNOWN not in found.models


def test_what_costs_nothing_may_always_replace() -> None:
    free = model("free", "x", 0.0)
    assert names(Wish("chat", prefer="smartest", amount=SOME), [UNKNOWN, free]) == ["e/unknown", "x/free"]


def test_the_sick_are_left_out_but_do_not_change_the_price_and_all_sick_is_all_tried() -> None:
    wish = Wish("chat", prefer="cheapest", amount=SOME)
    assert names(wish, healthy=lambda one: one is not SMALL) == ["a/cheap", "b/good"]
    assert names(wish, healthy=lambda one: one is BEST) == ["d/small", "a/cheap", "b/good"]


@pytest.mark.parametrize(
    ("prices", "amount", "expected"),
    [
        (Prices(1.0, 2.0), Amount(10, 5), 20.0),
        (Prices(1.0, 2.0, 0.1), Amount(10, 5, 4), 6 + 0.4 + 10),
        (Prices(1.0, 2.0), Amount(10, 5, 4), 20.0),
        (Prices(1.0), Amount(10), 10.0),
        (Prices(1.0), Amount(10, 1), None),
        (Prices(), Amount(), 0.0),
        (Prices(second=0.5), Amount(audio_seconds=3.0), 1.5),
        (Prices(character=0.5), Amount(characters=4), 2.0),
        (Prices(image=0.04), Amount(images=2), 0.08),
    ],
)
def test_cost(prices: Prices, amount: Amount, expected: float | None) -> None:
    assert prices.cost(amount) == (None if expected is None else pytest.approx(expected))


MODELS = st.builds(
    model,
    st.sampled_from(["m1", "m2", "m3"]),
    st.sampled_from(["a", "b", "c"]),
    st.one_of(st.none(), st.floats(0, 1e-3)),
    st.floats(0, 100),
    caps=st.sets(st.sampled_from(["tools", "vision"])),
    max_context=st.one_of(st.none(), st.integers(1, 100_000)),
)
WISHES = st.builds(
    Wish,
    st.just("chat"),
    task=st.sampled_from(["general", "long_context"]),
    prefer=st.sampled_from(["balanced", "cheapest", "smartest"]),
    model=st.sampled_from([None, "m1"]),
    vendor=st.sampled_from([None, "a"]),
    needs=st.sets(st.sampled_from(["tools", "vision"])).map(frozenset),
    amount=st.builds(Amount, st.integers(0, 10_000), st.integers(0, 1000)),
    max_cost_multiplier=st.floats(0, 10),
)


@given(WISHES, st.lists(MODELS, max_size=8))
def test_every_plan_keeps_what_was_pinned_needed_and_affordable(wish: Wish, catalogue: list[Model]) -> None:
    try:
        found = plan(wish, catalogue)
    except NoModel:
        return
    assert isinstance(found, Plan)
    first = found.models[0].prices.cost(wish.amount)
    for one in found.models:
        assert one in catalogue
        assert wish.model in (None, one.name)
        assert wish.vendor in (None, one.vendor)
        assert wish.needs <= one.caps
        cost = one.prices.cost(wish.amount)
        if one is not found.models[0]:
            assert cost is not None
            assert cost == 0 or (first is not None and cost <= first * wish.max_cost_multiplier * (1 + 1e-9) + 1e-15)
