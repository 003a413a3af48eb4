"""The telephone lines of the settings, as `signaling.telephony` wants them, and requests to carriers' interfaces."""

from __future__ import annotations

import httpx2

from realtime.settings import Settings, TelephonySettings
from signaling.telephony.carrier import Codec, RestCall, Secrets
from signaling.telephony.carriers import CARRIERS
from signaling.telephony.leg import Patience
from signaling.telephony.routes import Line

REST_S = 10.0


def lines(settings: Settings) -> dict[str, Line]:
    return {name: _line(name, line, settings) for name, line in settings.telephony.items()}


def _line(name: str, line: TelephonySettings, settings: Settings) -> Line:
    secrets = None
    if line.secret is not None:
        api_key = None if line.api_key is None else line.api_key.get_secret_value()
        secrets = Secrets(line.secret.get_secret_value(), api_key)
    return Line(
        name=name,
        carrier=CARRIERS[line.carrier or name],
        secrets=secrets,
        agent=line.agent,
        numbers=line.numbers,
        greeting=line.greeting,
        codec=None if line.codec is None else Codec.named(line.codec),
        needs_socket_signature=line.socket_signature == "required",
        rest_url=line.api_url,
        patience=Patience(settings.limits.inactivity_seconds, line.silence_seconds),
    )


async def rest(base: str, call: RestCall) -> int:
    """The status of the answer; 502 when there was none."""
    async with httpx2.AsyncClient(timeout=REST_S) as client:
        try:
            response = await client.request(
                call.method, base + call.path, headers=dict(call.headers), content=call.body
            )
        except httpx2.HTTPError:
            return 502
    return response.status_code
