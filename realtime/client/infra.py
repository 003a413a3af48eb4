"""`infra.activate()`: finds the key that the one-shot methods and live calls will use.

On the machine of a development server that is the key which the server made; elsewhere `INFRAI_API_KEY`.
"""

from __future__ import annotations

from realtime.client.http import api_key_from, base_url_from


def activate() -> dict[str, str]:
    """Says which server and key are used, the key shortened. Raises `ConnectError` when there is none."""
    key = api_key_from(None)
    return {"base_url": base_url_from(None), "api_key": f"{key[:16]}…"}
