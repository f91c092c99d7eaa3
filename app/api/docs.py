"""The OpenAPI document, and a page to read and try it."""

import base64
import hashlib
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

# A key may be typed into this page, so the code from outside is one version, held by its hash.
_ASSETS = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
_SCRIPT_SHA384 = "gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
_STYLE_SHA384 = "WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"

_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});'

_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>faceid</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{_ASSETS}/swagger-ui.css"
      integrity="sha384-{_STYLE_SHA384}" crossorigin="anonymous">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{_ASSETS}/swagger-ui-bundle.js"
        integrity="sha384-{_SCRIPT_SHA384}" crossorigin="anonymous"></script>
<script>{_START}</script>
</body>
</html>
"""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_ASSETS}/ "
        f"'sha256-{base64.b64encode(hashlib.sha256(_START.encode()).digest()).decode()}'",
        # Swagger UI writes style attributes.
        f"style-src {_ASSETS}/ 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def router(app: FastAPI) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/openapi.json")
    async def document() -> dict[str, Any]:
        return app.openapi()

    @routes.get("/docs")
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    return routes
