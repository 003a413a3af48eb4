"""A register of calls and a peer with the interfaces of the real ones, and no conversation or network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from media.leg import Abilities, LegListener
from media.peer import NegotiationError
from media.playout import Playout
from signaling.caller import OVER_WEBRTC, Caller
from signaling.errors import Full
from token_service.tokens import Claims, call_id


class FakePeer:
    """Answers the accepted m-lines of an offer; `error` is raised instead, `gate` holds the answer back."""

    def __init__(self, *, error: Exception | None = None, gate: asyncio.Event | None = None) -> None:
        self.abilities = Abilities(text=True)
        self.playout = Playout()
        self.candidates: list[str | None] = []
        self.closed: str | None = None
        self.listener: LegListener | None = None
        self.offer: str | None = None
        self._error = error
        self._gate = gate

    def attach(self, listener: LegListener) -> None:
        self.listener = listener

    async def answer(self, offer_sdp: str) -> str:
        assert self.listener is not None, "a peer is answered after somebody attached"
        self.offer = offer_sdp
        if self._gate is not None:
            await self._gate.wait()
        if self._error is not None:
            await self.close("failed")
            raise self._error
        lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0"]
        for line in offer_sdp.splitlines():
            if line.startswith("m="):
                lines += [line, "c=IN IP4 0.0.0.0"]
            elif line.startswith(("a=mid:", "a=rtpmap:")):
                lines.append(line)
        return "\r\n".join([*lines, ""])

    async def add_candidate(self, candidate: str | None) -> None:
        self.candidates.append(candidate)

    def send_text(self, text: str) -> None: ...

    def wake(self) -> None: ...

    def stats(self) -> Mapping[str, float]:
        return {}

    async def close(self, reason: str = "hangup") -> None:
        if self.closed is None:
            self.closed = reason
            if self.listener is not None:
                self.listener.on_closed(reason)


class FakeListener:
    """Takes the call off the register when its leg is gone, as a session does; `opened` when audio can flow."""

    def __init__(self, calls: FakeCalls, id_: str) -> None:
        self._calls = calls
        self._id = id_
        self.opened = asyncio.Event()

    def on_open(self) -> None:
        self.opened.set()

    def on_closed(self, reason: str) -> None:
        self._calls.calls.pop(self._id, None)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@dataclass
class FakeCall:
    id: str
    session_id: str
    leg: FakePeer
    claims: Claims
    session: Mapping[str, Any]
    listener: FakeListener


class FakeCalls:
    """`error` is raised by `open` after it attached."""

    def __init__(self, *, limit: int = 10) -> None:
        self.limit = limit
        self.error: Exception | None = None
        self.calls: dict[str, FakeCall] = {}
        self.opened: list[FakeCall] = []
        self.callers: list[Caller] = []
        self.reserved = 0

    def reserve(self) -> ExitStack:
        if self.reserved + len(self.calls) >= self.limit:
            raise Full(4.2)
        self.reserved += 1
        place = ExitStack()
        place.callback(self._release)
        return place

    def _release(self) -> None:
        self.reserved -= 1

    async def open(
        self,
        leg: FakePeer,
        claims: Claims,
        session: Mapping[str, Any],
        caller: Caller = OVER_WEBRTC,
        *,
        place: ExitStack,
    ) -> FakeCall:
        id_ = call_id(claims.session_id)
        call = FakeCall(id_, claims.session_id, leg, claims, session, FakeListener(self, id_))
        leg.attach(call.listener)
        if self.error is not None:
            raise self.error
        self.callers.append(caller)
        self.calls[call.id] = call
        place.close()
        self.opened.append(call)
        return call

    def find(self, id_: str) -> FakeCall | None:
        return self.calls.get(call_id(id_))

    async def close(self, id_: str, reason: str) -> bool:
        call = self.find(id_)
        if call is None:
            return False
        await call.leg.close(reason)
        return True


def negotiation_error() -> NegotiationError:
    return NegotiationError("aiortc says: secret detail")
