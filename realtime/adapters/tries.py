"""One request over several engines within one deadline: the retry loop of the one-shot endpoints.

Each round tries every engine once, at once one after the other; a second and last round follows after
a short wait, because a vendor that is busy now may not be in a second. `work` runs until the result
may be given to the caller (for a stream: its first output); what fails later is the caller's to see.
An error that is the request's own fault ends it. It must never outlast the deadline, try an engine
more than twice, nor repeat what may have been done when doing it twice matters.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from realtime.adapters.base import EngineError
from realtime.adapters.breaker import Breaker

ROUNDS = 2

WAIT_S = (0.25, 4.0)
"""Seconds between the rounds, at random in between: callers who failed together must not return together."""

LAST_S = 0.05
"""Seconds: with less than this left there is no use in trying."""

CandidateT = TypeVar("CandidateT")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Try:
    """`status`: `ok`, or the error's code."""

    vendor: str
    model: str
    status: str
    ms: float


@dataclass(frozen=True, slots=True)
class Candidate(Generic[CandidateT]):
    vendor: str
    model: str
    engine: CandidateT
    breaker: Breaker


@dataclass(slots=True)
class Tries(Generic[CandidateT]):
    """`until`: monotonic seconds. `repeatable`: doing the work twice does no harm but its price."""

    candidates: Sequence[Candidate[CandidateT]]
    until: float
    repeatable: bool = True
    clock: Callable[[], float] = time.monotonic
    random: Callable[[float, float], float] = random.uniform
    log: list[Try] = field(default_factory=list)
    """What was tried, in order."""

    async def first(self, work: Callable[[CandidateT], Awaitable[Result]]) -> tuple[Candidate[CandidateT], Result]:
        """The first result. Raises the last `EngineError`; one with code `deadline` when time ran out first."""
        last: EngineError | None = None
        waits: dict[int, float] = {}
        given_up: set[int] = set()
        for round_ in range(ROUNDS):
            for index in self._allowed(round_, given_up):
                candidate = self.candidates[index]
                if round_ and not await self._wait(waits.get(index)):
                    continue
                began = self.clock()
                left = self.until - began
                if left < LAST_S:
                    raise last or self._too_late()
                is_last = round_ == ROUNDS - 1 and index == len(self.candidates) - 1
                try:
                    return candidate, await self._attempt(candidate, work, left if is_last else left / 2)
                except EngineError as error:
                    last = error
                    if not self._note(candidate, error, began):
                        raise
                    if error.retry_after is not None:
                        waits[index] = began + error.retry_after
                    if not error.retryable:
                        given_up.add(index)
        raise last or self._too_late()

    def _allowed(self, round_: int, given_up: set[int]) -> list[int]:
        """Whom to try in this round: those not given up whose breaker agrees; in the first one, at least someone."""
        indices = [index for index in range(len(self.candidates)) if index not in given_up]
        now = self.clock()
        if round_:
            # A breaker that only rests for its Retry-After is waited for.
            return indices
        return [index for index in indices if self.candidates[index].breaker.healthy(now)] or indices

    async def _wait(self, not_before: float | None) -> bool:
        """Between two tries of one engine. False when the deadline would come first."""
        now = self.clock()
        pause = self.random(*WAIT_S) if not_before is None else max(0.0, not_before - now) + self.random(0.0, 0.1)
        if now + pause >= self.until - LAST_S:
            if not_before is not None:
                return False
            pause = min(pause, max(0.0, (self.until - now) / 4))
        await asyncio.sleep(pause)
        return True

    async def _attempt(
        self, candidate: Candidate[CandidateT], work: Callable[[CandidateT], Awaitable[Result]], seconds: float
    ) -> Result:
        candidate.breaker.allows(self.clock())
        began = self.clock()
        try:
            async with asyncio.timeout(seconds):
                result = await work(candidate.engine)
        except TimeoutError:
            text = f"{candidate.vendor}/{candidate.model}: no answer within {seconds:.1f} s"
            raise EngineError(text, code="timeout", engine=candidate.vendor) from None
        except EngineError:
            raise
        except BaseException:
            candidate.breaker.undecided()
            raise
        now = self.clock()
        candidate.breaker.succeeded(now)
        self._log(candidate, "ok", began, now)
        return result

    def _note(self, candidate: Candidate[CandidateT], error: EngineError, began: float) -> bool:
        """Keeps the books; whether another try is allowed."""
        now = self.clock()
        self._log(candidate, error.code, began, now)
        if error.code == "rate_limited":
            candidate.breaker.rest(now + (error.retry_after or 0.0))
        elif error.retryable or error.code in ("auth_failed", "not_found"):
            candidate.breaker.failed(now)
        else:
            candidate.breaker.undecided()
        if error.code == "timeout" and not self.repeatable:
            return False
        return error.retryable or error.code in ("auth_failed", "not_found")

    def note(self, vendor: str, model: str, status: str, began: float) -> None:
        """Writes down a try that was made elsewhere."""
        self.log.append(Try(vendor, model, status, round(1000 * (self.clock() - began), 1)))

    def _log(self, candidate: Candidate[CandidateT], status: str, began: float, now: float) -> None:
        self.log.append(Try(candidate.vendor, candidate.model, status, round(1000 * (now - began), 1)))

    @staticmethod
    def _too_late() -> EngineError:
        return EngineError("the time for this request is over", code="deadline")
