"""Every error leaves as application/problem+json (RFC 9457)."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.errors import (
    BodyTooLarge,
    FaceIdError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    QueueFull,
    RequestError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from app.logs import request_id
from app.schemas import problems

_log = logging.getLogger(__name__)


def problem(error: FaceIdError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "request_id": request_id.get(),
        **error.extra,
    }
    answer = JSONResponse(body, error.status, headers, "application/problem+json")
    if isinstance(error, Unauthenticated):
        answer.headers["WWW-Authenticate"] = 'Bearer realm="faceid"'
    if isinstance(error, Unavailable | TooManyRequests):
        answer.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, BodyTooLarge):
        # Without it the server would read the rest of the body, only to drop it.
        answer.headers["Connection"] = "close"
    return answer


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its OpenAPI description."""
    return {
        status: {
            "description": "Problem",
            "content": {
                "application/problem+json": {"schema": problems.Problem.model_json_schema()}
            },
        }
        for status in (*statuses, 422, 500)
    }


def _methods(app: FastAPI, request: Request) -> list[str]:
    """What this address takes. The framework names the methods of its first route alone."""

    def taken(method: str) -> bool:
        scope = dict(request.scope) | {"method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in app.routes)

    return [method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") if taken(method)]


def install(app: FastAPI) -> None:
    @app.exception_handler(FaceIdError)
    async def ours(_: Request, error: FaceIdError) -> JSONResponse:
        if not isinstance(error, RequestError | QueueFull):
            _log.error("%s: %s", error.code, error.detail)
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def validation(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [
            {"where": ".".join(str(part) for part in e["loc"]), "what": e["msg"]}
            for e in error.errors()
        ]
        detail = "; ".join(f"{e['where']}: {e['what']}" for e in found)
        return problem(InvalidRequest(detail, errors=found))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:
            allowed = ", ".join(_methods(app, request))
            return problem(
                MethodNotAllowed(f"{request.method} is not possible here, {allowed} are."),
                {"Allow": allowed},
            )
        if error.status_code == 404:
            return problem(NotFound("There is nothing at this address; see /docs."))
        return problem(InvalidRequest(str(error.detail)), error.headers)
