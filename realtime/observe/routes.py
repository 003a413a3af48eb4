"""How the server is: `/healthz`, `/readyz`, `/v1/ai/status`, `/metrics`. Open to all: nothing of a call is in them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from media.pacer import Pacer
from media.voice_model import MODEL_VERSION
from realtime.adapters.base import EngineInfo
from realtime.adapters.catalogue import Catalogue
from realtime.live.sessions import RETRY_AFTER_S, Sessions
from realtime.observe.metrics import Metrics
from realtime.observe.watchdog import Watchdog


def health_routes(
    sessions: Sessions,
    catalogue: Catalogue,
    pacer: Pacer,
    watchdog: Watchdog,
    metrics: Metrics,
    writable: Callable[[], Awaitable[bool]],
    version: str,
) -> APIRouter:
    """`writable`: whether the store can be written."""
    router = APIRouter(tags=["health"])
    started = time.monotonic()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Alive."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> Response:
        """Accepts calls; 503 when `draining`, `full`, `overloaded` or `store_unavailable`."""
        refusal = sessions.refusal or (None if await writable() else "store_unavailable")
        if refusal is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": refusal}, 503, {"Retry-After": f"{RETRY_AFTER_S:.0f}"})

    @router.get("/v1/ai/status")
    async def status() -> dict[str, Any]:
        """Engines with their versions, licences and honest quality; calls and load."""
        return {
            "version": version,
            "uptime_seconds": round(time.monotonic() - started, 1),
            "calls": {"active": len(sessions), "limit": sessions.limit, "accepting": sessions.accepts},
            "load": {
                "packet_lateness_ms": round(pacer.late_ms, 2),
                "loop_lag_ms": round(watchdog.lag_ms, 2),
                "speaking": pacer.members,
            },
            "engines": [_engine(info) for info in [*catalogue.infos(), _vad_info()]],
            "webrtc": {"library": "aiortc", "version": metadata.version("aiortc")},
        }

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _engine(info: EngineInfo) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(info).items() if value is not None}


def _vad_info() -> EngineInfo:
    return EngineInfo("silero", "vad", "embedded", "silero-vad", MODEL_VERSION, "MIT")
