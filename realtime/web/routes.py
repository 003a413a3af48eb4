"""What the page asks its own server: may I, what is there to choose, a token for one call.

Only the page itself may ask: the answers have no CORS headers, and requests of other sites are refused. The
tokens are those of `POST /v1/ai/realtime/token`, under the same policy and limits.
"""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from realtime.adapters.catalogue import Catalogue
from realtime.settings import Settings
from realtime.web.access import COOKIE, VISIT_SECONDS, PageAccess, is_same_origin
from realtime.web.api_docs import api_docs_routes
from realtime.web.files import file_routes
from token_service.api_keys import ApiKey
from token_service.errors import Forbidden, InvalidRequest
from token_service.minting import Minter
from token_service.routes import parse_body, read_body, token_answer

PAGE_KEY = ApiKey("page", frozenset({"mint"}), "the page at /")
"""Who the page's tokens belong to, in logs and lists of calls."""
MAX_LINK_BYTES = 1024
_NOT_CACHED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def web_routes(access: PageAccess, minter: Minter, settings: Settings, catalogue: Catalogue) -> APIRouter:
    """The page, the client, and what the page asks for."""
    router = APIRouter(include_in_schema=False)
    router.include_router(file_routes())
    router.include_router(api_docs_routes())

    @router.get("/page/session")
    async def page_session(request: Request) -> Response:
        """Whether this browser may call, and only then what there is to choose."""
        if not await access.allows(request):
            return JSONResponse({"access": False}, headers=_NOT_CACHED)
        agents = list(dict.fromkeys(["default", *settings.agents]))
        choices = {"agents": agents, "models": catalogue.known_models(), "voices": catalogue.known_voices()}
        return JSONResponse({"access": True, **choices}, headers=_NOT_CACHED)

    @router.post("/page/token")
    async def page_token(request: Request) -> Response:
        """A token for one call; the body is that of the public route."""
        _require_page(request)
        if not await access.allows(request):
            raise Forbidden("Open the page with a one-time link; `realtime link` prints one.", code="link_needed")
        await minter.check_rate(PAGE_KEY, request.client.host if request.client else "")
        minted = await minter.mint(PAGE_KEY, parse_body(await read_body(request)))
        return JSONResponse(token_answer(minted), headers=_NOT_CACHED)

    @router.post("/page/link")
    async def page_link(request: Request) -> Response:
        """Trades the secret of a one-time link for a cookie."""
        _require_page(request)
        visit = await access.redeem(_secret(await read_body(request, MAX_LINK_BYTES)))
        if visit is None:
            raise Forbidden("This link has been used or is too old.", code="link_not_valid")
        response = Response(status_code=204, headers=_NOT_CACHED)
        response.set_cookie(
            COOKIE,
            visit,
            max_age=VISIT_SECONDS,
            path="/page",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    return router


def _require_page(request: Request) -> None:
    """Another site's page can send a request here, but not of this type without a preflight, which it does not get."""
    is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    if not is_json or not is_same_origin(request.headers):
        raise Forbidden("This is for the page of this server alone.", code="page_only")


def _secret(body: bytes) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    secret = document.get("secret") if isinstance(document, dict) else None
    if not isinstance(secret, str):
        raise InvalidRequest("secret", "The body is an object with the link's `secret`.")
    return secret
