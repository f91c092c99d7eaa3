"""Whether there is room for another photo, asked before anything else is done for it."""

from collections.abc import Iterable, Mapping

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import problem
from app.errors import QueueFull


class RefuseWhenFull:
    """Answers 503 at once where the queue is full or too slow: when there is more to do than can be
    done, what refusals cost is taken from those who are let in.

    Args:
        routes: those that take photos, by their paths. Enrolling is not among them: it is refused
            when its photos are looked at, for the number of others' alone.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[str, APIRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            route = self._routes.get(scope["path"])
            if route is not None:
                try:
                    scope["app"].state.services.finder.check_queue()
                except QueueFull as error:
                    scope["route"] = route  # as the router would note, for log and metrics
                    await problem(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def by_path(routers: Iterable[APIRouter]) -> dict[str, APIRoute]:
    return {
        route.path: route
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    }
