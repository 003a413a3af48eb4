"""Every call of this process: open, find, drain, close. The only register of calls.

Implements `signaling.calls.Calls`. Calls under way and offers being answered together never exceed
`limits.calls`, and while there are some and the event loop lags more than `limits.loop_lag_ms` none is added: the
next one is refused, the running ones do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import orjson

from media.echo import guarded
from media.leg import Leg
from media.vad import Vad
from realtime.adapters.catalogue import Catalogue
from realtime.agents.house import Agents
from realtime.live import hooks, wire
from realtime.live.policy import Policy
from realtime.live.session import Session
from realtime.observe.metrics import Metrics
from realtime.observe.webhooks import Webhooks
from realtime.recording.recordings import Recording, Recordings, Wish
from realtime.settings import AgentSettings, Settings
from realtime.store.base import Store, StoreError
from signaling.caller import OVER_WEBRTC, Caller
from signaling.calls import OF_KEY, Full
from token_service.errors import TooManyRequests
from token_service.tokens import Claims, call_id, session_id

log = logging.getLogger("realtime.live")

RETRY_AFTER_S = 5.0
"""A caller refused for lack of room is told to come back then."""


DRAIN_S = 5.0
"""Seconds at shutdown for the records and recordings of calls to be written."""


@dataclass(slots=True)
class Call:
    """A call under way; `signaling.calls.CallHandle`."""

    id: str
    session_id: str
    leg: Leg
    claims: Claims
    session: Session
    caller: Caller
    unwatch: Callable[[], None]
    """Nobody wants to know any more what its engines take."""
    opened_at: float = field(default_factory=time.time)
    variables: Mapping[str, str] = field(default_factory=dict)
    limit: asyncio.TimerHandle | None = None

    def facts(self) -> dict[str, Any]:
        """Which call this is, as webhooks tell it."""
        return {
            "session_id": self.session_id,
            "call_id": self.id,
            "agent": self.claims.agent,
            "subject": self.claims.subject,
            "caller": asdict(self.caller),
            "variables": dict(self.variables),
            "opened_at": round(self.opened_at, 3),
        }


class Sessions:
    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        policy: Policy,
        vad: Vad,
        metrics: Metrics,
        store: Store,
        webhooks: Webhooks,
        agents: Agents,
        recordings: Recordings | None = None,
        lag_ms: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._settings = settings
        self._agents = agents
        self._recordings = recordings
        self._catalogue = catalogue
        self._policy = policy
        self._vad = vad
        self._metrics = metrics
        self._store = store
        self._webhooks = webhooks
        self._lag_ms = lag_ms
        self._calls: dict[str, Call] = {}
        self._ending: dict[str, Call] = {}
        """Calls that are over and whose records are not written yet."""
        self._reserved = 0
        self._draining = False
        self._writing: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls.values()))

    @property
    def limit(self) -> int:
        return self._settings.limits.calls

    @property
    def accepts(self) -> bool:
        """Whether the next call would be admitted."""
        return self.refusal is None

    @property
    def refusal(self) -> str | None:
        """Why the next call would not be admitted: `draining`, `full` or `overloaded`.

        The lag of the event loop counts while there is a call that another one could spoil: what is slow
        without any is the machine, and a refusal would help nobody.
        """
        taken = len(self._calls) + self._reserved
        if self._draining:
            return "draining"
        if taken >= self.limit:
            return "full"
        return "overloaded" if taken and self._lag_ms() > self._settings.limits.loop_lag_ms else None

    def reserve(self) -> ExitStack:
        """Hold a place until it is closed: by `open`, whose call takes it over, else by who holds it. Raises `Full`."""
        if (refusal := self.refusal) is not None:
            self._metrics.call_refused(refusal)
            raise Full(RETRY_AFTER_S, self._reason(refusal))
        self._reserved += 1
        place = ExitStack()
        place.callback(self._release)
        return place

    def _reason(self, refusal: str) -> str:
        """The same for the log, with the numbers that decided it."""
        if refusal == "overloaded":
            most = self._settings.limits.loop_lag_ms
            return f"overloaded: the event loop lags {self._lag_ms():.1f} ms, limits.loop_lag_ms is {most:g}"
        return "draining" if refusal == "draining" else f"full: limits.calls is {self.limit}"

    def _release(self) -> None:
        self._reserved -= 1

    async def open(
        self,
        leg: Leg,
        claims: Claims,
        session: Mapping[str, Any],
        caller: Caller = OVER_WEBRTC,
        *,
        place: ExitStack | None = None,
        greeting: str | None = None,
    ) -> Call:
        """Begin a conversation on `leg`. The leg has not been answered yet: `on_open` is still to come.

        `place`: from `reserve`.

        Raises `TooManyRequests` when the secret has too many calls already, `InvalidRequest` when `session` is not
        valid for the agent.
        """
        claims, variables = await self._decide(claims, session, caller)
        self._policy.agent(claims.agent)  # it may have gone since the token was made
        answering = self._agents.for_call(
            claims.agent, session_id=claims.session_id, caller=caller, variables=variables, greeting=greeting
        )
        await answering.start()
        if self._draining:
            self._metrics.call_refused("draining")
            raise Full(RETRY_AFTER_S, self._reason("draining"))
        self._check_secret(claims)
        model = self._policy.known_model(claims.model or session.get("model"))
        config = self._policy.config(claims.session_id, claims.agent, model=model, voice=claims.voice, session=session)
        answering.dress(config)
        agent = answering.settings
        number = call_id(claims.session_id)
        guard = guarded(leg.playout) if agent.echo_guard and caller.kind == "webrtc" else None
        live = Session(
            leg,
            config,
            self._catalogue.engines(agent, model=model),
            partial(self._vad.detector, guard=guard),
            self._metrics,
            greeting=_announced(agent, answering.greeting),
            agent=answering,
            recording=self._record(claims.session_id, agent, leg),
            hang_up=lambda reason: self._hang_up_soon(number, reason),
            on_end=lambda session, reason: self._ended(number, reason),
        )
        answering.begin(live)
        unwatch = self._catalogue.watch(claims.session_id, live.bill.add)
        call = Call(number, claims.session_id, leg, claims, live, caller, unwatch, variables=variables)
        self._calls[number] = call
        if place is not None:
            place.close()
        self._metrics.call_opened()
        if agent.max_call_seconds is not None:
            config.expires_at = int(time.time() + agent.max_call_seconds)
            call.limit = asyncio.get_running_loop().call_later(agent.max_call_seconds, self._expire, call)
        live.begin()
        log.info(
            "call started %s agent=%s model=%s voice=%s subject=%s",
            live.log_ids,
            config.agent,
            config.data["model"],
            config.voice,
            claims.subject,
        )
        self._webhooks.tell(claims.agent, number, "call.started", call.facts())
        return call

    def _check_secret(self, claims: Claims) -> None:
        """A secret that opens many calls stands in a web page or an app: it must not take every place."""
        if not claims.reusable or claims.jti.startswith(OF_KEY):
            return
        most = self._settings.limits.calls_per_secret
        if sum(call.claims.jti == claims.jti for call in self._calls.values()) >= most:
            self._metrics.call_refused("secret")
            message = f"This secret has {most} calls under way; end one, or use another secret."
            reason = f"limits.calls_per_secret is {most}"
            raise TooManyRequests(RETRY_AFTER_S, message, reason=reason, code="too_many_calls")

    def _record(self, session: str, agent: AgentSettings, leg: Leg) -> Recording | None:
        wanted = agent.recording
        if wanted is None or self._recordings is None:
            return None
        return self._recordings.begin(session, Wish(wanted.retain_seconds, wanted.by_caller), leg.playout)

    async def _decide(
        self, claims: Claims, session: Mapping[str, Any], caller: Caller
    ) -> tuple[Claims, Mapping[str, str]]:
        """Which agent answers. Where the caller's credential leaves that open, the developer's server is asked."""
        # OpenAI's clients choose one as their model. A token minted for no agent in particular names the default.
        named = self._policy.named_agent(session.get("model"))
        claims = replace(claims, agent=claims.agent or named or "default")
        if caller.kind != "phone" and (claims.agent != "default" or named):
            return claims, {}
        decided = await hooks.decide(
            self._webhooks,
            self._settings,
            agent=claims.agent,
            session_id=claims.session_id,
            subject=claims.subject,
            caller=caller,
        )
        if decided.agent != claims.agent:
            claims = self._moved(claims, decided.agent)
        return claims, decided.variables

    def _moved(self, claims: Claims, agent: str) -> Claims:
        """To another agent. Model and voice that came only from the first one do not go with it."""
        before = self._policy.effective(agent=claims.agent, model=None, voice=None, session=None)
        return replace(
            claims,
            agent=agent,
            model=None if claims.model == before.model else claims.model,
            voice=None if claims.voice == before.voice else claims.voice,
        )

    def find(self, id_: str) -> Call | None:
        """By call id or session id."""
        return self._calls.get(call_id(id_))

    async def close(self, id_: str, reason: str) -> bool:
        call = self.find(id_)
        if call is None:
            return False
        await _hang_up(call, reason)
        return True

    def _expire(self, call: Call) -> None:
        call.session.obey(wire.WireError("The call has reached its longest duration.", code="session_expired"))
        self._hang_up_soon(call.id, "max_duration")

    def _hang_up_soon(self, number: str, reason: str) -> None:
        self._in_background(self.close(number, reason))

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _ended(self, number: str, reason: str) -> None:
        call = self._calls.pop(number, None)
        if call is None:
            return
        if call.limit is not None:
            call.limit.cancel()
        self._metrics.call_ended(reason)
        stats = call.leg.stats()
        log.info(
            "call ended %s reason=%s seconds=%.1f items=%d %s",
            call.session.log_ids,
            reason,
            time.monotonic() - call.session.started_at,
            len(call.session.conversation.history),
            " ".join(f"{name}={value:g}" for name, value in stats.items()),
        )
        self._ending[number] = call
        self._in_background(self._conclude(call, reason, time.time()))

    async def _conclude(self, call: Call, reason: str, ended_at: float) -> None:
        """The record of a call that is over, once its last costs are known, to all who want it."""
        try:
            await call.session.settled()
            call.unwatch()
            recording = call.session.recording
            kept = await self._recordings.finish(recording) if self._recordings and recording else None
            cost = call.session.bill.record()
            self._metrics.spent(cost["usd"])
            record = {
                **call.facts(),
                "ended_at": round(ended_at, 3),
                "reason": reason,
                "transcript": call.session.transcript(),
                "turns": list(call.session.turns),
                "cost": cost,
                "recording": kept,
            }
            if self._settings.limits.retain_transcript_seconds > 0:
                await self._retain(call, record)  # first: who is told of the end may fetch it
            self._webhooks.tell(call.claims.agent, call.id, "call.ended", record)
            if call.session.agent is not None:
                call.session.agent.end(record)  # last: its hook may do with the record what it likes
        finally:
            del self._ending[call.id]

    async def _retain(self, call: Call, record: Mapping[str, Any]) -> None:
        try:
            await self._store.put(
                f"transcript:{call.session_id}",
                orjson.dumps(record),
                ttl=self._settings.limits.retain_transcript_seconds,
            )
        except StoreError:
            log.exception("%s transcript was not kept", call.session.log_ids)

    async def transcript(self, id_: str) -> dict[str, Any] | None:
        """Of a call under way or one that ended not too long ago."""
        call = self.find(id_) or self._ending.get(call_id(id_))
        if call is not None:
            return {"session_id": call.session_id, "transcript": call.session.transcript()}
        kept = await self._store.get(f"transcript:{session_id(id_)}")
        return None if kept is None else dict(orjson.loads(kept))

    async def forget(self, id_: str) -> None:
        """Delete what is kept of what was said in a call that is over. Idempotent."""
        await self._store.delete(f"transcript:{session_id(id_)}")

    async def drain(self, reason: str = "server_shutdown") -> None:
        """Refuse new calls and end those under way."""
        self._draining = True
        await asyncio.gather(*(_hang_up(call, reason) for call in self), return_exceptions=True)
        if self._writing:
            await asyncio.wait(self._writing, timeout=DRAIN_S)


def _announced(agent: AgentSettings, greeting: str | None) -> str | None:
    """What is said first: that the call is recorded, where that is to be said, and the greeting."""
    announcement = agent.recording.announcement if agent.recording is not None else None
    return " ".join(text for text in (announcement, greeting) if text) or None


async def _hang_up(call: Call, reason: str) -> None:
    """End a call from our side, telling the caller why where that was asked for."""
    if call.session.config.includes("realtime.call.ending"):
        call.leg.send_text(wire.CallEnding(reason=reason).serialise())
    await call.leg.close(reason)
