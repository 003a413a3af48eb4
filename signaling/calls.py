"""WebRTC calls over HTTP: POST an offer, PATCH candidates, DELETE to hang up (the shape of WHIP, RFC 9725).

Who may call is settled before any of the body is read, and nothing is allocated before that. Whatever
goes wrong once a peer exists, that peer, its place and its token are given back before the error leaves
here. Errors are typed (`OfferError`, `CallError`, `Full`, and those of token_service); somebody else
renders them. This room knows nothing of what is said on a call: `Calls` is the register that does.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect, HTTPConnection

from media.leg import Leg
from media.network import NetworkError
from media.peer import NegotiationError
from signaling.bodies import FRAGMENT, SDP, Posted, read_fragment, read_offer
from signaling.caller import OVER_WEBRTC, Caller
from signaling.candidates import MAX_CANDIDATES
from signaling.errors import CallError, Full
from signaling.sdp import Offer, dress_answer, guard_offer, parse_fragment
from token_service.api_keys import ApiKey, normalise_origin
from token_service.errors import Forbidden, Unauthorized
from token_service.tokens import Claims, call_id, new_session_id
from token_service.used_tokens import ClaimState

__all__ = ["CallError", "CallHandle", "CallPeer", "CallRoutes", "Calls", "Full", "calls_routes"]

logger = logging.getLogger(__name__)

DEFAULT_PREFIX = "/v1/ai/realtime"
PREFLIGHT_SECONDS = 7200
"""How long a browser may remember a preflight; Chromium remembers two hours at most."""
OF_KEY = "key:"
"""Before the id of a key in the claims that stand for it, where a token has its own id."""
KEY_OFFER_SECONDS = 600
"""How long the same offer with the same API key gets the same answer again."""
WAIT_SECONDS = 5.0
"""How long a repeated offer waits for the first one's answer; answering takes milliseconds."""
RETRY_SECONDS = 1.0
MERGE_DEPTH = 8
"""Objects within objects of a session; `audio.input.turn_detection` is the deepest that means anything."""
_ALLOWED_HEADERS = "Authorization, Content-Type, X-OpenAI-Agents-SDK, OpenAI-Beta, X-Request-Id"
_EXPOSED_HEADERS = "Location, Link, Retry-After, X-Request-Id"


class CallHandle(Protocol):
    """A call under way."""

    @property
    def id(self) -> str:
        """`rtc_X`."""

    @property
    def session_id(self) -> str:
        """`sess_X`, with the same X."""

    @property
    def leg(self) -> Leg: ...

    @property
    def claims(self) -> Claims: ...


class Calls(Protocol):
    """The register of calls, which a higher room implements."""

    def reserve(self) -> ExitStack:
        """Hold one place while an offer is answered. Raises `Full`."""

    async def open(
        self,
        leg: Leg,
        claims: Claims,
        session: Mapping[str, Any],
        caller: Caller = ...,
        *,
        place: ExitStack | None = ...,
        greeting: str | None = None,
    ) -> CallHandle:
        """Begin a conversation on a leg that is about to be answered; attaches to it.

        `place`: the reserved one, which the call takes over. `greeting`: for the agent's.
        """

    def find(self, id_: str) -> CallHandle | None:
        """By the id of the call or of its session."""

    async def close(self, id_: str, reason: str) -> bool:
        """Hang up; False when there is no such call."""


class CallPeer(Leg, Protocol):
    """The leg of a WebRTC call (`media.peer.Peer`)."""

    async def answer(self, offer_sdp: str) -> str:
        """The answer to a guarded offer; the leg has a listener by then. `NegotiationError`, `NetworkError`."""

    async def add_candidate(self, candidate: str | None) -> None: ...


class Callers(Protocol):
    """Who is calling (`token_service.auth.Authenticator`)."""

    async def caller(self, authorization: str | None, *, allow_expired: bool = False) -> ApiKey | Claims: ...


class TokenUse(Protocol):
    """Which tokens are used up (`token_service.used_tokens.UsedTokens`)."""

    async def claim(self, jti: str, offer_digest: str, expires_at: int) -> ClaimState | bytes: ...

    async def wait(self, jti: str, offer_digest: str, *, timeout_seconds: float = ...) -> bytes | None: ...

    async def record(self, jti: str, offer_digest: str, answer: bytes) -> None: ...

    async def release(self, jti: str) -> None: ...


@dataclass(slots=True)
class _Negotiated:
    """What PATCH needs to know of a call."""

    peer: CallPeer
    offer: Offer
    candidates: int


@dataclass(frozen=True, slots=True)
class _Answered:
    """What a POST is answered, now and when the same offer comes again."""

    id: str
    sdp: str

    def serialize(self) -> bytes:
        return orjson.dumps({"id": self.id, "sdp": self.sdp})

    @classmethod
    def parse(cls, data: bytes) -> _Answered:
        fields = orjson.loads(data)
        return cls(fields["id"], fields["sdp"])


class CallRoutes:
    """The handlers, and what they remember of the calls they opened. One for all prefixes.

    `new_peer` makes a leg that nobody has attached to yet; `load_session` gives what was stored with a token
    when it was minted ({} when nothing was); `known_model` says which model a caller means that no token bound
    to one (None: the agent's); `ice_servers` lists `{urls, username?, credential?}` for a caller.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        callers: Callers,
        used_tokens: TokenUse,
        new_peer: Callable[[], CallPeer],
        load_session: Callable[[str], Awaitable[Mapping[str, Any]]],
        ice_servers: Callable[[Claims], Sequence[Mapping[str, Any]]],
        allow_loopback: bool = False,
        codecs: Sequence[str] = ("opus", "pcmu", "pcma"),
        known_model: Callable[[object], str | None] = lambda _: None,
    ) -> None:
        self._calls = calls
        self._callers = callers
        self._used = used_tokens
        self._new_peer = new_peer
        self._load_session = load_session
        self._ice_servers = ice_servers
        self._allow_loopback = allow_loopback
        self._codecs = tuple(codecs)
        self._known_model = known_model
        self._negotiated: dict[str, _Negotiated] = {}

    # -- POST ------------------------------------------------------------------------------------

    async def post(self, request: Request, prefix: str) -> Response:
        caller = await self._callers.caller(request.headers.get("authorization"))
        claims = claims_of(caller, request)
        check_origin(claims, request)
        posted = await read_offer(request)
        if posted.caller is not None and isinstance(caller, Claims):
            raise Forbidden("Only an API key may say who calls.", code="caller_not_allowed")
        body = posted.sdp
        offer = guard_offer(body, allow_loopback=self._allow_loopback, codecs=self._codecs)
        digest = hashlib.sha256(body.encode() if isinstance(body, str) else body).hexdigest()
        answered = await self._answer_once(request, claims, offer, digest, posted)
        headers = {
            **_cors(request),
            "Location": f"{request.scope.get('root_path', '')}{prefix}/calls/{answered.id}",
            "Cache-Control": "no-store",
        }
        response = Response(answered.sdp, 201, headers, SDP)
        for link in _links(self._ice_servers(claims)):
            response.headers.append("Link", link)
        return response

    async def _answer_once(
        self, request: Request, claims: Claims, offer: Offer, digest: str, posted: Posted
    ) -> _Answered:
        """Open a call, or repeat what the same offer was answered. A reusable token counts each offer by itself."""
        use = f"{claims.jti}:{digest}" if claims.reusable else claims.jti
        for _ in range(2):
            state = await self._used.claim(use, digest, claims.expires_at)
            if state is ClaimState.FRESH:
                try:
                    return await self._open(request, claims, offer, (use, digest), posted)
                except BaseException:
                    await _finish(self._used.release(use))
                    raise
            data = (
                state if isinstance(state, bytes) else await self._used.wait(use, digest, timeout_seconds=WAIT_SECONDS)
            )
            if data is not None:
                answered = _Answered.parse(data)
                if self._calls.find(answered.id) is None:
                    raise _ended(claims)
                return answered
        raise CallError(
            503, "offer_in_progress", "The same offer is being answered; try again.", retry_after=RETRY_SECONDS
        )

    async def _open(
        self, request: Request, claims: Claims, offer: Offer, use: tuple[str, str], posted: Posted
    ) -> _Answered:
        stored = await self._load_session(claims.session_id)
        model = request.query_params.get("model")
        session = merge(merge({"model": model} if model else {}, stored), posted.session)
        if claims.model is None:
            claims = replace(claims, model=self._known_model(session.get("model")))
        if claims.reusable:
            claims = replace(claims, session_id=new_session_id())
        with self._calls.reserve() as place:
            peer = self._new_peer()
            try:
                handle = await self._calls.open(peer, claims, session, posted.caller or OVER_WEBRTC, place=place)
                answer = dress_answer(await self._negotiate(peer, offer), offer)
                answered = _Answered(handle.id, answer)
                if await request.is_disconnected():
                    raise ClientDisconnect
                await self._used.record(*use, answered.serialize())
            except BaseException:
                await _finish(peer.close("failed"))
                raise
        self._negotiated = {id_: known for id_, known in self._negotiated.items() if self._calls.find(id_)}
        self._negotiated[handle.id] = _Negotiated(peer, offer, offer.candidates)
        if offer.notes:
            logger.info("offer session=%s %s", handle.session_id, "; ".join(offer.notes))
        return answered

    async def _negotiate(self, peer: CallPeer, offer: Offer) -> str:
        try:
            return await peer.answer(offer.text)
        except NegotiationError as error:
            raise CallError(
                422, "negotiation_failed", "The offer cannot be answered.", param="sdp", reason=error.message
            ) from error
        except NetworkError as error:
            raise CallError(
                503,
                "no_network",
                "There is no UDP port for another call.",
                retry_after=RETRY_SECONDS,
                reason=str(error),
            ) from error

    # -- PATCH, DELETE -----------------------------------------------------------------------------

    async def patch(self, request: Request, id_: str) -> Response:
        handle = await self._authorised(request, id_)
        known = self._negotiated.get(handle.id)
        if known is None:
            raise _unknown()
        fragment = parse_fragment(
            await read_fragment(request),
            known.offer,
            room=MAX_CANDIDATES - known.candidates,
            allow_loopback=self._allow_loopback,
        )
        known.candidates += len(fragment.candidates)
        if fragment.notes:
            logger.info("fragment session=%s %s", handle.session_id, "; ".join(fragment.notes))
        for candidate in fragment.candidates:
            await known.peer.add_candidate(candidate)
        # The end of candidates is not passed on: ICE would give up before it has seen where checks come from.
        return Response(status_code=204, headers=_cors(request))

    async def delete(self, request: Request, id_: str) -> Response:
        handle = await self._authorised(request, id_)
        self._negotiated.pop(handle.id, None)
        if not await self._calls.close(handle.id, "hangup"):
            raise _unknown()
        return Response(status_code=200, headers=_cors(request))

    async def _authorised(self, request: Request, id_: str) -> CallHandle:
        """The call, for the token that opened it or a key with the scope; to anybody else it does not exist."""
        caller = await self._callers.caller(request.headers.get("authorization"), allow_expired=True)
        if isinstance(caller, ApiKey):
            check_scope(caller)
        else:
            check_origin(caller, request)
        handle = self._calls.find(call_id(id_))
        if handle is None or not (
            isinstance(caller, ApiKey) or caller.session_id == handle.session_id or caller.jti == handle.claims.jti
        ):
            raise _unknown()
        return handle


def calls_routes(handlers: CallRoutes, *, prefix: str = DEFAULT_PREFIX) -> APIRouter:
    """The routes under `prefix`; the same handlers may be mounted under several."""
    router = APIRouter(tags=["realtime"])
    one, many = f"{prefix}/calls/{{call_id}}", f"{prefix}/calls"
    schema = {"requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}}}}}

    async def create_call(request: Request) -> Response:
        """Open a call: the body is a WebRTC offer, the answer comes back. Bearer token, or a key with `calls`."""
        return await handlers.post(request, prefix)

    async def trickle(request: Request, call_id: str) -> Response:
        """More ICE candidates of the caller, as a trickle fragment (RFC 8840)."""
        return await handlers.patch(request, call_id)

    async def hang_up(request: Request, call_id: str) -> Response:
        """Hang up."""
        return await handlers.delete(request, call_id)

    async def options_many(request: Request) -> Response:
        return _options(request, "POST, OPTIONS", {"Accept-Post": SDP})

    async def options_one(request: Request, call_id: str) -> Response:
        return _options(request, "PATCH, DELETE, OPTIONS", {"Accept-Patch": FRAGMENT})

    name = prefix.strip("/").replace("/", "_")
    route = router.add_api_route
    route(many, create_call, methods=["POST"], status_code=201, operation_id=f"{name}_create", openapi_extra=schema)
    route(one, trickle, methods=["PATCH"], status_code=204, operation_id=f"{name}_trickle")
    route(one, hang_up, methods=["DELETE"], operation_id=f"{name}_delete")
    route(f"{one}/hangup", hang_up, methods=["POST"], operation_id=f"{name}_hangup")
    route(many, options_many, methods=["OPTIONS"], include_in_schema=False)
    route(one, options_one, methods=["OPTIONS"], include_in_schema=False)
    return router


# -- who ----------------------------------------------------------------------------------------------


def claims_of(caller: ApiKey | Claims, request: HTTPConnection) -> Claims:
    """What the caller may do; an API key with the scope stands for a reusable token of its own making."""
    agent = request.query_params.get("agent")
    if isinstance(caller, Claims):
        if agent is not None and agent != caller.agent:
            raise Forbidden("This token is for another agent.", code="agent_not_allowed")
        return caller
    check_scope(caller)
    if caller.agent is not None and agent not in (None, caller.agent):
        raise Forbidden("This key is for another agent.", code="agent_not_allowed")
    now = int(time.time())
    return Claims(
        session_id=new_session_id(),
        jti=f"{OF_KEY}{caller.id}",
        subject=caller.id,
        agent=caller.agent or agent or "",  # none chosen: a model of the session may name one
        issued_at=now,
        expires_at=now + KEY_OFFER_SECONDS,
        origins=caller.origins,
        reusable=True,
    )


def check_scope(key: ApiKey) -> None:
    if not key.allows("calls"):
        raise Forbidden("This needs a key with the scope 'calls'.", code="missing_scope")


def check_origin(claims: Claims, request: HTTPConnection) -> None:
    """A token for pages works from those pages only, and not without an Origin, which browsers send here."""
    if not claims.origins:
        return
    origin = request.headers.get("origin")
    if origin is None or normalise_origin(origin) not in claims.origins:
        raise Forbidden(
            "This token does not work from this origin.", code="origin_not_allowed", reason=f"origin {origin!r}"
        )


def _unknown() -> CallError:
    return CallError(404, "call_not_found", "There is no such call.")


def _ended(claims: Claims) -> Exception:
    if claims.reusable:
        return CallError(409, "call_ended", "The call that this offer opened has ended; make a new offer.")
    return Unauthorized("The token has been used; its call has ended.", code="token_used")


# -- answers ------------------------------------------------------------------------------------------


def merge(below: Mapping[str, Any], above: Mapping[str, Any], depth: int = MERGE_DEPTH) -> dict[str, Any]:
    """`above` over `below`, objects within objects too down to `depth`; anything else is replaced."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if depth > 1 and isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = merge(old, value, depth - 1)
        else:
            merged[name] = value
    return merged


async def _finish(cleanup: Awaitable[object]) -> None:
    """Clean up to the end even when this request is being cancelled; what fails is logged, the first error counts."""
    try:
        await asyncio.shield(asyncio.ensure_future(cleanup))
    except Exception:
        logger.exception("cleaning up after a failed call failed")


def _cors(request: Request) -> dict[str, str]:
    """What lets the page that asked read the answer; its origin was checked before."""
    origin = request.headers.get("origin")
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
        "Vary": "Origin",
    }


def _options(request: Request, methods: str, accepts: Mapping[str, str]) -> Response:
    """A preflight carries no credentials, so it answers any origin; the request itself is checked."""
    headers = {"Access-Control-Allow-Origin": request.headers.get("origin", "*"), "Vary": "Origin", "Allow": methods}
    if "access-control-request-method" not in request.headers:
        return Response(status_code=200, headers={**headers, **accepts})
    headers["Access-Control-Allow-Methods"] = methods
    headers["Access-Control-Allow-Headers"] = _ALLOWED_HEADERS
    headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    return Response(status_code=204, headers=headers)


def _links(servers: Sequence[Mapping[str, Any]]) -> list[str]:
    """One Link header per URL (RFC 9725 section 4.6)."""
    links: list[str] = []
    for server in servers:
        for url in server["urls"]:
            link = f'<{url}>; rel="ice-server"'
            if server.get("username") is not None and server.get("credential") is not None:
                username, credential = _quoted(server["username"]), _quoted(server["credential"])
                link += f'; username="{username}"; credential="{credential}"; credential-type="password"'
            links.append(link)
    return links


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
