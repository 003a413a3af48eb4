"""A backend that mints: your page gets a token for one call, and your API key never leaves the server.

    realtime keys create --scopes mint
    INFRAI_API_KEY=... INFRAI_BASE_URL=https://voice.example uvicorn main:app

Whoever may load the page may talk here. Put your own sign-in in front of `mint`.
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

SERVER = os.environ.get("INFRAI_BASE_URL", "http://127.0.0.1:8080")
PAGE = Path(__file__).with_name("page.html")

app = FastAPI()


@app.post("/token")
async def mint() -> Response:
    """What the server answers, passed on: the token, the ICE servers, or why there is none."""
    headers = {"Authorization": f"Bearer {os.environ['INFRAI_API_KEY']}"}
    async with httpx2.AsyncClient(base_url=SERVER, timeout=10) as client:
        answer = await client.post("/v1/ai/realtime/token", headers=headers, json={"agent": "default"})
    return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE.read_text(encoding="utf-8").replace("https://voice.example", SERVER))
