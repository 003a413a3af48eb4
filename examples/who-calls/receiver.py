"""A server of your own that says which agent answers a call, and what it knows of the caller.

    WEBHOOK_SECRET=whsec_… uvicorn receiver:app --port 9000

beside `realtime serve --config realtime.toml` with the same variable. Customers are known by their number.
"""

import os

from fastapi import FastAPI, HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

CUSTOMERS = {"+15550001111": "Ada"}

app = FastAPI()
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


@app.post("/hooks")
async def hooks(request: Request) -> dict:
    try:
        message = webhook.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError as error:
        raise HTTPException(401) from error
    call = message["data"]
    print(message["type"], call["session_id"], call["agent"], call.get("reason", ""), flush=True)
    name = CUSTOMERS.get(call["caller"]["number"])
    if message["type"] == "call.incoming" and name is not None:
        return {"agent": "known", "variables": {"name": name}}
    return {}
