"""A server of your own that keeps what was said in each call, what it cost, and its sound.

    WEBHOOK_SECRET=whsec_… uvicorn receiver:app --port 9000

beside `realtime serve --config realtime.toml` with the same variable. Calls are kept under calls/, one folder each.
"""

import json
import os
from pathlib import Path

import httpx2
from fastapi import FastAPI, HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

FOLDER = Path(os.environ.get("CALLS", "calls"))

app = FastAPI()
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


@app.post("/hooks", status_code=204)
async def hooks(request: Request) -> None:
    try:
        message = webhook.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError as error:
        raise HTTPException(401) from error
    if message["type"] == "call.ended":
        await keep(message["data"])


async def keep(call: dict) -> None:
    """The same call may come twice: it is written over."""
    folder = FOLDER / call["session_id"]
    folder.mkdir(parents=True, exist_ok=True)
    recording = call["recording"]
    if recording and "url" in recording:
        async with httpx2.AsyncClient(trust_env=False) as client:
            answer = await client.get(recording["url"])
            answer.raise_for_status()  # an error here makes the message come again
        (folder / "call.ogg").write_bytes(answer.content)
    (folder / "call.json").write_text(json.dumps(call, indent=2))
    print(f"{call['caller']['kind']} call, {call['reason']}, {call['cost']['usd']} dollars")
