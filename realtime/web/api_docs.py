"""`GET /docs`: the OpenAPI document in Swagger UI, every byte of it from this server.

Swagger UI's own files come from the package `fastapi-swagger`, which carries each release of it. It puts `style`
attributes into its markup and builds that from strings, so this page is freer with styles than the one at `/`;
scripts and connections are still its own server's only.
"""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter

from realtime.web.files import Endpoint, File, file_of

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title>
<link rel="icon" href="page/icon.svg">
<link rel="stylesheet" href="docs/swagger-ui.css">
<main id="api"></main>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""

_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""


def api_docs_routes() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    package = resources.files("fastapi_swagger.resources")
    files: list[File] = [
        file_of("/docs", _PAGE.encode(), ".html", POLICY),
        file_of("/docs/start.js", _START.encode(), ".js", POLICY),
        *(
            file_of(f"/docs/{name}", (package / name).read_bytes(), suffix, POLICY)
            for name, suffix in (("swagger-ui-bundle.js", ".js"), ("swagger-ui.css", ".css"))
        ),
    ]
    for file in files:
        router.add_api_route(file.path, Endpoint(file), methods=["GET", "HEAD"])
    return router
