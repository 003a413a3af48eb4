"""The keys of a telephone that a caller presses: for whoever collects them, for a hook, or as a turn.

IDLE --somebody collects--> COLLECTING --enough, the last key, time--> IDLE
  |                                                                      ^
  +--a key that belongs to a turn--> TYPING --`#`, or a pause------------+
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PAUSE_S = 2.5
"""After so long without another key, what was typed is complete."""

MAX_KEYS = 64


class _Collecting:
    def __init__(self, count: int | None, until: str) -> None:
        self.keys = ""
        self.count = count
        self.until = until
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def press(self, key: str) -> None:
        if key in self.until:
            self._finish()
            return
        self.keys += key
        if len(self.keys) >= (self.count or MAX_KEYS):
            self._finish()

    def _finish(self) -> None:
        if not self.complete.done():
            self.complete.set_result(None)


class Keys:
    """`on_turn(keys)`: told what was typed, when keys are turns."""

    def __init__(self, on_turn: Callable[[str], None] | None = None) -> None:
        self._on_turn = on_turn
        self._collecting: _Collecting | None = None
        self._typed = ""
        self._timer: asyncio.TimerHandle | None = None

    def press(self, key: str) -> bool:
        """Whether somebody collects it."""
        if self._collecting is not None:
            self._collecting.press(key)
            return True
        if self._on_turn is not None:
            self._type(key)
        return False

    async def collect(self, count: int | None, until: str, seconds: float) -> str:
        """What is pressed from now on, `until` left out; what there is when the time is up.

        Raises `ValueError` when somebody else collects already.
        """
        if self._collecting is not None:
            raise ValueError("the keys of this call are being collected already")
        self._collecting = collecting = _Collecting(count, until)
        try:
            await asyncio.wait([collecting.complete], timeout=seconds)
        finally:
            self._collecting = None
        return collecting.keys

    def close(self) -> None:
        """The call is over."""
        self._on_turn = None
        if self._timer is not None:
            self._timer.cancel()

    def _type(self, key: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if key != "#":
            self._typed += key
        if key == "#" or len(self._typed) >= MAX_KEYS:
            self._tell()
        else:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self._tell)

    def _tell(self) -> None:
        typed, self._typed = self._typed, ""
        if typed and self._on_turn is not None:
            self._on_turn(typed)
