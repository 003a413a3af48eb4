"""What a call tells the developer's own server, and what that may decide: the data of webhooks.

`call.incoming` is a question, put before a call begins that nothing has bound to an agent: its answer
may name the agent, and values that are put into the agent's words wherever these have `{{name}}`. No
answer, or one that makes no sense, leaves the call as it would have been. The other messages are told
and not waited for.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from realtime.live.wire import field_path
from realtime.observe.webhooks import Endpoint, Webhooks
from realtime.settings import Settings
from signaling.caller import Caller

_TIMEOUT_S = 5.0
_EVENTS = frozenset({"call.incoming", "call.started", "call.ended"})

log = logging.getLogger("realtime.live")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    agent: Annotated[str, Field(max_length=64)] | None = None
    variables: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")], Annotated[str, Field(max_length=4000)]],
        Field(max_length=64),
    ] = {}


@dataclass(frozen=True, slots=True)
class Incoming:
    """What was decided about a call before it began."""

    agent: str
    variables: Mapping[str, str] = field(default_factory=dict)


async def decide(
    webhooks: Webhooks, settings: Settings, *, agent: str, session_id: str, subject: str, caller: Caller
) -> Incoming:
    """Ask about a call that would get `agent`. Takes a second at most and never fails."""
    given = {"session_id": session_id, "agent": agent, "subject": subject, "caller": asdict(caller)}
    answer = await webhooks.ask(agent, "call.incoming", given)
    try:
        wanted = _Answer.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        log.warning("session=%s call.incoming: %s: %s", session_id, field_path(first["loc"]), first["msg"])
        return Incoming(agent)
    chosen = wanted.agent or agent
    if settings.agent(chosen) is None:
        log.warning("session=%s call.incoming: there is no agent %r", session_id, chosen)
        chosen = agent
    return Incoming(chosen, wanted.variables)


def known(caller: Caller) -> dict[str, str]:
    """The variables that a telephone call brings along: its parameters, and who called whom."""
    if caller.kind != "phone":
        return {}
    return {**caller.parameters, "caller_number": caller.number or "", "dialled_number": caller.dialled or ""}


def endpoint(settings: Settings, agent: str) -> Endpoint | None:
    """Where messages about the calls of `agent` go: its own settings over the common ones."""
    own = settings.agent(agent)
    common = settings.webhooks
    specific = own.webhooks if own is not None else common
    url, secret = specific.url or common.url, specific.secret or common.secret
    if url is None or secret is None:
        return None
    events = specific.events if specific.events is not None else common.events
    return Endpoint(
        url,
        base64.b64decode(secret.get_secret_value().removeprefix("whsec_")),
        specific.timeout_seconds or common.timeout_seconds or _TIMEOUT_S,
        frozenset(events) if events is not None else _EVENTS,
    )
