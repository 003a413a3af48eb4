"""Python's search for reference cycles, kept out of the way of calls.

The interpreter looks through everything alive whenever enough has been added, and holds the event loop
meanwhile: 140 ms once a hundred calls are open, which all of them hear. So what is there before the first
call is taken out of the search (50 ms are left), and the rest is searched when no call is open: what ended
is freed by references alone, and cycles are made by other people's code at most. Should that make many,
the search comes while calls are open. The young are searched as ever, in smaller portions.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Final

_LOOK_S: Final = 1.0
_YOUNG: Final = 700
"""Objects more than before after which the young are searched, as Python has it."""
_MIDDLE: Final = 2
"""Such searches after which those that survived them are searched too: Python's ten hold the loop for 10 ms."""
_NEVER: Final = 1 << 30
MOST: Final = 400
"""Searches of the middle, of 2,100 objects each at most, that may pass before everything is searched although calls are
open. Some 1,500 calls that come and go bring that about though they leave nothing; memory is bounded by it."""


class Garbage:
    """Of the process. `calls`: how many are open."""

    def __init__(self, calls: Callable[[], int]) -> None:
        self._calls = calls

    def start(self) -> None:
        """Everything that is there now stays: called once, when the server is ready, on its event loop."""
        gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
        gc.collect()
        gc.freeze()
        asyncio.get_running_loop().call_later(_LOOK_S, self._beat)

    def _beat(self) -> None:
        self.look()
        asyncio.get_running_loop().call_later(_LOOK_S, self._beat)

    def look(self) -> None:
        """Search everything when it is time."""
        added = gc.get_count()[2]
        if added and not self._calls():
            gc.collect()
            gc.freeze()
        elif added >= MOST:
            gc.collect()
