"""The Python client: live calls with a voice session server. Imports none of the server.

    import asyncio
    from realtime.client import connect

    async def main() -> None:
        async with connect() as call:                 # INFRAI_BASE_URL, INFRAI_API_KEY, or the local key
            await call.say("Hello, who are you?")     # typed text; call.send_audio(pcm) for speech
            async for event in call.events():
                if event["type"] == "output_audio_buffer.stopped":
                    break

    asyncio.run(main())

The one-shot methods: `from realtime.client import ai`, then `ai.chat("Hello")`; `AsyncAI` for asyncio.

Importing it is cheap; WebRTC and HTTP are loaded by the first use.
"""

from realtime.client import ai, infra
from realtime.client.ai import AI, AsyncAI
from realtime.client.errors import ApiError, CallEnded, ConnectError
from realtime.client.live import LiveCall, connect

__all__ = ["AI", "ApiError", "AsyncAI", "CallEnded", "ConnectError", "LiveCall", "ai", "connect", "infra"]
