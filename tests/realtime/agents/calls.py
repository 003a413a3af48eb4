"""A call for tools that are run by themselves."""

from __future__ import annotations

from typing import Any, cast

from realtime.agents.call import Call, Host
from realtime.agents.usercode import Inline
from signaling.caller import OVER_WEBRTC


def call(**variables: Any) -> Call:
    """With nobody to have things done."""
    return Call(
        "sess_1",
        agent="default",
        caller=OVER_WEBRTC,
        variables=variables,
        user=Inline(),
        host=cast(Host, None),
    )
