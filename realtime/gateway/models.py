"""`GET /v1/ai/models` and `GET /v1/ai/usage`: what can be asked for, and what this key has used."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Query, Request

from realtime.adapters.routing import Model
from realtime.gateway.openapi import problems
from realtime.gateway.work import Gateway
from token_service.api_keys import ApiKey

DEMO = "demo: shows what a request looks like; not a model to build on"


def model_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["ai"])
    answers = problems(401, 403, 429)

    async def admitted(request: Request) -> None:
        """A dependency, so that nothing of the request is judged before its key."""
        request.state.key = await gateway.admit(request, "chat")

    @router.get("/v1/ai/models", operation_id="list_models", summary="Models", responses=answers)
    async def list_models(request: Request) -> dict[str, Any]:
        """Every model that a request may name, with its vendor, kind, prices and health."""
        await gateway.admit(request, "chat")
        return {"object": "list", "data": [_shown(gateway, model) for model in gateway.catalogue.offers]}

    @router.get(
        "/v1/ai/usage",
        operation_id="get_usage",
        summary="Usage of this key",
        responses=answers | problems(422),
        dependencies=[Depends(admitted)],
    )
    async def get_usage(request: Request, days: int = Query(1, ge=1, le=90)) -> dict[str, Any]:
        """By day (UTC), today first; days without use are left out. `unpriced`: requests whose cost is not known."""
        key: ApiKey = request.state.key
        used = await gateway.meter.used(key.id, days)
        return {"object": "usage", "key": key.id, "days": {day: asdict(one) for day, one in used.items()}}

    return router


def _shown(gateway: Gateway, model: Model) -> dict[str, Any]:
    prices = {name: price for name, price in asdict(model.prices).items() if price is not None}
    return {
        "id": model.id,
        "object": "model",
        "owned_by": model.vendor,
        "vendor": model.vendor,
        "model": model.name,
        "kind": "asr" if model.kind == "stt" else model.kind,
        "capabilities": sorted(model.caps),
        "max_context": model.max_context,
        "usd_per": prices,
        "available": gateway.catalogue.healthy(model),
        "note": DEMO if model.vendor == "embedded" else None,
    }
