"""Callbacks of a part to the object that owns it, by which the part does not keep its owner alive.

What ended is then freed by references alone. Else it waits for Python's search for cycles, which holds the event
loop, and every call hears that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast
from weakref import WeakMethod

P = ParamSpec("P")
R = TypeVar("R")


def weakly(method: Callable[P, R]) -> Callable[P, R]:
    """`method`, of an object that outlives the calls whose result counts; without the object, nothing and None."""
    reference = WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = reference()
        return bound(*args, **kwargs) if bound is not None else cast(R, None)

    return call
