"""Query parameters that a route does not know are refused: `galery=staff` would be ignored, and
another gallery meant."""

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.errors import InvalidRequest


async def only_known_parameters(request: Request) -> None:
    """
    Raises:
        InvalidRequest: names the first parameter that the route does not know, and all it does.
    """
    if not request.query_params:
        return
    route: APIRoute = request.scope["route"]
    known = _names(route.dependant)
    for name in request.query_params:
        if name not in known:
            others = f"there are: {', '.join(sorted(known))}" if known else "there is none"
            raise InvalidRequest(f"query.{name[:64]}: there is no such parameter here; {others}.")


def _names(dependant: Dependant) -> set[str]:
    own = {parameter.alias for parameter in dependant.query_params}
    return own.union(*map(_names, dependant.dependencies))
