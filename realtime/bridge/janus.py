"""`realtime bridge janus`: answers the SIP calls that Janus receives, and carries each to a server over WebRTC.

Janus is the SIP side: it registers the account, and turns a call into a WebRTC offer. The bridge takes that offer to
the server's signaling endpoint and the answer back; audio flows between Janus and the server, never through here. While
a call is up the bridge is a sideband of it, which ends when the server hangs up.

    FREE --incomingcall--> OFFERED --the server answers--> UP --BYE, or the server hangs up--> FREE
                              +-----CANCEL, or the server refuses (503 becomes SIP 486)---------^

A line holds one call at a time. The first one is registered; the others are its helpers (Janus's word), which take
the calls that come while it is busy. Whoever ends a call, the other side is told at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import quote, urljoin

import httpx2
import orjson
import websockets

from realtime.bridge.janus_api import Janus, JanusError, Message, connect

log = logging.getLogger("realtime.bridge")

PLUGIN = "janus.plugin.sip"
CALLS = "/v1/ai/realtime/calls"
SIDEBAND = "/v1/realtime"
SERVER_S = 10.0
MAX_EVENT = 4 << 20
RETRY_S = (1.0, 30.0)
"""Seconds between attempts to reach Janus, or to register: the first, and the longest."""
_BUSY, _UNAVAILABLE = 486, 503


@dataclass(frozen=True, slots=True)
class Account:
    """Whom Janus is at the SIP server. Without a `secret` it is a guest: it registers nowhere and can only be dialled
    directly. `identity`: `sip:user@domain`. `proxy`: the registrar, where it is not the domain."""

    identity: str
    secret: str | None = None
    proxy: str | None = None
    auth_user: str | None = None
    display_name: str | None = None

    def register(self) -> dict[str, Any]:
        body: dict[str, Any] = {"request": "register", "username": self.identity}
        if self.secret is None:
            return body | {"type": "guest"}
        named = {"secret": self.secret, "proxy": self.proxy, "authuser": self.auth_user}
        named["display_name"] = self.display_name
        return body | {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Destination:
    """The server. `key`: an API key with the scope `calls`. `numbers`: the agent by the user that was dialled."""

    url: str
    key: str
    agent: str | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)

    def agent_for(self, dialled: str) -> str | None:
        return self.numbers.get(dialled, self.agent)


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """The server does not take the call; `status` is what SIP is told."""

    status: int
    reason: str


class Server:
    """The signaling endpoint, as any WebRTC client uses it."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._client = httpx2.AsyncClient(
            base_url=destination.url, timeout=SERVER_S, headers={"Authorization": f"Bearer {destination.key}"}
        )

    async def open(self, offer: str, caller: str, dialled: str) -> tuple[str, str]:
        """The answer and where the call is. Raises `Refusal`."""
        agent = self._destination.agent_for(dialled)
        form: dict[str, tuple[None, bytes, str]] = {
            "sdp": (None, offer.encode(), "application/sdp"),
            "caller": (None, _caller(caller, dialled), "application/json"),
        }
        path = f"{CALLS}?agent={quote(agent)}" if agent else CALLS
        try:
            answer = await self._client.post(path, files=form)
        except httpx2.HTTPError as error:
            raise Refusal(_UNAVAILABLE, f"the server is not there: {error or type(error).__name__}") from error
        if answer.status_code != 201:
            status = _BUSY if answer.status_code in (429, 503) else _UNAVAILABLE
            raise Refusal(status, f"the server refuses: HTTP {answer.status_code} {answer.text[:300]}")
        return answer.text, urljoin(path, answer.headers["location"])

    async def until_over(self, location: str) -> None:
        """Returns when the server has ended the call, or if it cannot be followed."""
        url = f"{self._destination.url.rstrip('/').replace('http', 'ws', 1)}{SIDEBAND}?call_id={_last(location)}"
        key = {"Authorization": f"Bearer {self._destination.key}"}
        async with websockets.connect(
            url, additional_headers=key, compression=None, max_size=MAX_EVENT, open_timeout=SERVER_S
        ) as sideband:
            async for _ in sideband:
                pass

    async def hang_up(self, location: str) -> None:
        with suppress(httpx2.HTTPError):
            await self._client.delete(location)

    async def close(self) -> None:
        await self._client.aclose()


class LineState(Enum):
    FREE = "free"
    OFFERED = "offered"
    UP = "up"


class Line:
    """One handle of Janus: at most one call. `retry_s`: until a lost registration is tried again."""

    def __init__(self, janus: Janus, server: Server, *, retry_s: float = RETRY_S[1]) -> None:
        self._janus = janus
        self._server = server
        self._retry_s = retry_s
        self._register: Message = {}
        self._handle = 0
        self._state = LineState.FREE
        self._location: str | None = None
        self._call = ""
        self._work: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._registering: asyncio.Task[None] | None = None
        self.registered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        """What Janus answered to `register`; JanusError when it refused."""

    @property
    def state(self) -> LineState:
        return self._state

    async def open(self, register: Message) -> Message:
        """Raises `JanusError`."""
        self._register = register
        self._handle = await self._janus.attach(PLUGIN, self._told)
        await self._janus.message(self._handle, register)
        try:
            async with asyncio.timeout(SERVER_S):
                return await self.registered
        except TimeoutError:
            raise JanusError("the SIP server does not answer") from None

    async def close(self) -> None:
        """End the call, if there is one."""
        self._ended("the bridge stops")
        if self._registering is not None:
            self._registering.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    # --- what Janus says ----------------------------------------------------------------------

    def _told(self, message: Message) -> None:
        if message.get("janus") in ("hangup", "detached"):
            self._ended(str(message.get("reason", "the WebRTC side is gone")))
        data = _member(_member(message, "plugindata"), "data")
        result = _member(data, "result")
        match result.get("event"):
            case "registered" | "registration_failed":
                self._registered(result)
            case "incomingcall":
                self._incoming(result, str(data.get("call_id", "")), _member(message, "jsep").get("sdp"))
            case "hangup":
                self._ended(f"{result.get('code', '')} {result.get('reason', '')}".strip())
            case _:
                if "error" in data:
                    log.warning("the SIP plugin says: %s", data["error"])
                    if not self.registered.done():
                        self.registered.set_exception(JanusError(f"the account is not registered: {data['error']}"))

    def _registered(self, result: Message) -> None:
        if result["event"] == "registered":
            if not self.registered.done():
                self.registered.set_result(result)
            return
        reason = f"{result.get('code', '')} {result.get('reason', 'refused')}".strip()
        if not self.registered.done():
            self.registered.set_exception(JanusError(f"the SIP server does not register the account: {reason}"))
        else:
            log.warning("the registration was lost: %s", reason)
            if self._registering is None or self._registering.done():
                self._registering = self._start(self._register_again())

    async def _register_again(self) -> None:
        await asyncio.sleep(self._retry_s)
        await self._janus.message(self._handle, self._register)

    def _incoming(self, result: Message, call: str, offer: object) -> None:
        if self._state is not LineState.FREE or not isinstance(offer, str):
            self._start(self._janus.message(self._handle, {"request": "decline", "code": _BUSY}))
            return
        self._state, self._call = LineState.OFFERED, call
        self._start(self._answer(offer, call, _user(result.get("username")), _user(result.get("callee"))))

    def _ended(self, reason: str) -> None:
        if self._state is LineState.FREE:
            return
        log.info("call=%s ended: %s", self._call, reason)
        location, self._location = self._location, None
        self._state, self._call = LineState.FREE, ""
        if self._following is not None:
            self._following.cancel()
        if location is not None:
            self._start(self._server.hang_up(location))

    # --- what is done about it ----------------------------------------------------------------

    async def _answer(self, offer: str, call: str, caller: str, dialled: str) -> None:
        try:
            answer, location = await self._server.open(offer, caller, dialled)
        except Refusal as refusal:
            log.warning("call=%s was refused: %s", call, refusal.reason)
            if self._call == call:
                self._state, self._call = LineState.FREE, ""
                await self._janus.message(self._handle, {"request": "decline", "code": refusal.status})
            return
        if self._call != call:
            # Who called has given up meanwhile.
            await self._server.hang_up(location)
            return
        self._state, self._location = LineState.UP, location
        log.info("call=%s from=%s is up at %s", call, _redacted(caller), _last(location))
        self._following = self._start(self._follow(location, call))
        await self._janus.message(self._handle, {"request": "accept"}, {"type": "answer", "sdp": answer})

    async def _follow(self, location: str, call: str) -> None:
        try:
            await self._server.until_over(location)
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            log.warning("call=%s: its end cannot be followed: %s", call, error or type(error).__name__)
            return
        if self._call == call:
            self._location = None
            await self._janus.message(self._handle, {"request": "hangup"})
            # Where WebRTC never came up nothing else ends it, and the line would stay busy.
            await self._janus.request({"janus": "hangup", "handle_id": self._handle})

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, JanusError):
            log.warning("%s", error)
        elif error is not None:
            log.error("the bridge failed in a call", exc_info=error)


async def run(janus_url: str, secret: str | None, account: Account, destination: Destination, lines: int) -> None:
    """Bridge calls for ever: after trouble with Janus or the registrar it tries again."""
    pause, longest = RETRY_S
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await bridge(janus_url, secret, account, destination, lines)
            log.warning("Janus is gone")
        except JanusError as error:
            log.warning("%s", error)
        if asyncio.get_running_loop().time() - began > longest:
            pause = RETRY_S[0]
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


async def bridge(janus_url: str, secret: str | None, account: Account, destination: Destination, lines: int) -> None:
    """Bridge calls until Janus is gone. Raises `JanusError` when it cannot begin."""
    janus, server = await connect(janus_url, secret), Server(destination)
    reading = asyncio.create_task(janus.run())
    open_lines: list[Line] = []
    try:
        await janus.start()
        first = Line(janus, server)
        open_lines.append(first)
        master = (await first.open(account.register())).get("master_id")
        for _ in range(lines - 1):
            helper = Line(janus, server)
            open_lines.append(helper)
            body = {"request": "register", "type": "helper", "username": account.identity, "master_id": master}
            await helper.open(body)
        log.info("%s answers %d calls at once through %s", account.identity, lines, janus_url)
        await asyncio.shield(reading)
    finally:
        await asyncio.gather(*(line.close() for line in open_lines), return_exceptions=True)
        await janus.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await server.close()


def _caller(number: str, dialled: str) -> bytes:
    return orjson.dumps({"number": number or None, "dialled": dialled or None})


def _member(data: Message, name: str) -> Message:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _user(uri: object) -> str:
    """The user of `sip:user@host`, which with most providers is a number."""
    text = uri if isinstance(uri, str) else ""
    return text.partition(":")[2].partition("@")[0] if ":" in text else text.partition("@")[0]


def _last(location: str) -> str:
    return location.rpartition("/")[2]


def _redacted(number: str) -> str:
    return f"…{number[-2:]}" if len(number) > 4 else "…"
