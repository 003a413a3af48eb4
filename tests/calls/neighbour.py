"""A call that runs beside others and must not notice them: it is answered all the time and counts every packet.

It lives in a thread with an event loop of its own, so that what the tests do does not look like the
server's doing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left, bisect_right
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Self

from tests.calls.caller import Caller, dial
from tests.calls.server import Server
from tests.media.webrtc import Packet

ANSWER_PACKETS = 250
"""Five seconds of tone from the instant engines, 20 ms each."""
LONGEST_GAP_S = 0.3
"""Between two packets of one answer: they come every 20 ms, and a listener's buffer rides out 100 ms; three
times that, because machines that run tests stumble too. What the machine gave to others does not count."""
WAIT_S = 15.0
LOOK_S = 0.05


class Neighbour:
    """`check` after anything that might have disturbed it; leaving the block checks all that was heard."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="neighbour", daemon=True)
        self._up = threading.Event()
        self._stop = threading.Event()
        self._caller: Caller | None = None
        self._failure: BaseException | None = None
        self._starved: list[tuple[float, float]] = []
        """When, and how long server and neighbour had by then been ready to run without a core to run on."""
        self.answers = 0
        self.stats: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(WAIT_S), "the neighbour's call did not come up"
        self._raise()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def session_id(self) -> str:
        assert self._caller is not None
        return self._caller.session_id

    @property
    def packets(self) -> list[Packet]:
        assert self._caller is not None
        assert self._caller.cable is not None
        return list(self._caller.cable.packets)

    def check(self, more: int = 5) -> None:
        """Every packet so far came, in time, and at least `more` are still coming."""
        wanted, end = len(self.packets) + more, time.monotonic() + WAIT_S
        while len(self.packets) < wanted:
            self._raise()
            assert time.monotonic() < end, "the neighbour hears nothing any more"
            time.sleep(0.01)
        self._all_came()

    def end(self) -> None:
        """Hang up after the answer that is sounding. Idempotent."""
        if not self._thread.is_alive():
            return
        self._stop.set()
        self._thread.join(3 * WAIT_S)
        assert not self._thread.is_alive()
        self._raise()
        packets = self._all_came()
        # Two answers may follow each other without a pause, so that only their sum is known.
        assert len(packets) == self.answers * ANSWER_PACKETS, f"{len(packets)} in {self.answers}"
        assert self.stats["packets_sent"] == len(packets)
        assert self.stats["packets_dropped"] == 0

    def _all_came(self) -> list[Packet]:
        packets = self.packets
        for before, packet in pairwise(packets):
            assert packet.sequence == (before.sequence + 1) & 0xFFFF, "a packet of the neighbour's was lost"
            gap = packet.at - before.at
            if gap > LONGEST_GAP_S:
                gap -= self._starved_between(before.at, packet.at)
            assert packet.marker or gap < LONGEST_GAP_S, f"the neighbour heard nothing for {gap:.3f} s"
        return packets

    def _starved_between(self, began: float, ended: float) -> float:
        looks = self._starved
        before = bisect_right(looks, began, key=itemgetter(0)) - 1
        after = bisect_left(looks, ended, key=itemgetter(0))
        return looks[min(after, len(looks) - 1)][1] - looks[max(before, 0)][1] if looks else 0.0

    async def _watch_machine(self) -> None:
        threads = [Path(f"/proc/{self._server.pid}/schedstat"), Path("/proc/thread-self/schedstat")]
        while all(thread.exists() for thread in threads):
            waited = sum(int(thread.read_text().split()[1]) for thread in threads)
            self._starved.append((time.monotonic(), waited / 1e9))
            await asyncio.sleep(LOOK_S)

    def _raise(self) -> None:
        if self._failure is not None:
            raise AssertionError("the neighbour's call failed") from self._failure

    async def _run(self) -> None:
        watching = asyncio.create_task(self._watch_machine())
        try:
            async with dial(self._server, cable=True) as caller:
                self._caller = caller
                while not self._stop.is_set():
                    caller.ask("Go on.")
                    await caller.wait_for("output_audio_buffer.started")
                    self._up.set()
                    await caller.wait_for("output_audio_buffer.stopped")
                    self.answers += 1
                self.stats = await caller.stats()
                orders = caller.orders()
                orders.finish()
                assert not orders.errors
        except BaseException as error:
            self._failure = error
        finally:
            watching.cancel()
            self._up.set()
