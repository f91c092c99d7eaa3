"""The part of Qdrant's REST interface that the service uses, over its client's twin in memory.

What is between them is real: HTTP, several processes, connections that break. What a server does
behind it, replication, its index, its disk, is not here.
"""

import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from pydantic import TypeAdapter
from qdrant_client import AsyncQdrantClient, models
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_Handler = Callable[[AsyncQdrantClient, str, Any], Awaitable[Any]]

_UPDATED = {"operation_id": 0, "status": "completed"}


async def _exists(twin: AsyncQdrantClient, name: str, _: Any) -> Any:
    return {"exists": await twin.collection_exists(name)}


async def _create(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    wanted = models.CreateCollection(**body)
    return await twin.create_collection(name, wanted.vectors, metadata=wanted.metadata)


async def _update(_: AsyncQdrantClient, __: str, body: Any) -> Any:
    models.UpdateCollection(**body)
    return True  # the twin has neither graph nor codes


async def _drop(twin: AsyncQdrantClient, name: str, _: Any) -> Any:
    return await twin.delete_collection(name)


async def _describe(twin: AsyncQdrantClient, name: str, _: Any) -> Any:
    return await twin.get_collection(name)


async def _aliases(twin: AsyncQdrantClient, _: str, __: Any) -> Any:
    return await twin.get_aliases()


async def _alias(twin: AsyncQdrantClient, _: str, body: Any) -> Any:
    return await twin.update_collection_aliases(models.ChangeAliasesOperation(**body).actions)


async def _index(_: AsyncQdrantClient, __: str, ___: Any) -> Any:
    return _UPDATED  # the twin has none


async def _retrieve(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    wanted = models.PointRequest(**body)
    return await twin.retrieve(
        name, wanted.ids, wanted.with_payload or False, wanted.with_vector or False
    )


async def _upsert(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    wanted = models.PointsList(**body)
    await twin.upsert(
        name, wanted.points, update_filter=wanted.update_filter, update_mode=wanted.update_mode
    )
    return _UPDATED


async def _set_payload(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    wanted = models.SetPayload(**body)
    which: Any = wanted.points or wanted.filter
    await twin.set_payload(name, wanted.payload, which)
    return _UPDATED


async def _delete(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    selector: Any = TypeAdapter(models.PointsSelector).validate_python(body)
    await twin.delete(name, selector)
    return _UPDATED


async def _scroll(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    wanted = models.ScrollRequest(**body)
    points, following = await twin.scroll(
        name,
        wanted.filter,
        limit=wanted.limit or 10,
        offset=wanted.offset,
        with_payload=True if wanted.with_payload is None else wanted.with_payload,
        with_vectors=wanted.with_vector or False,
    )
    return {"points": points, "next_page_offset": following}


async def _facet(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    wanted = models.FacetRequest(**body)
    return await twin.facet(name, wanted.key, facet_filter=wanted.filter, limit=wanted.limit or 10)


async def _query(twin: AsyncQdrantClient, name: str, body: Any) -> Any:
    return await twin.query_batch_points(name, models.QueryRequestBatch(**body).searches)


_COLLECTION = "/collections/{name}"
_CALLS: list[tuple[str, str, _Handler]] = [
    ("GET", "/aliases", _aliases),
    ("POST", "/collections/aliases", _alias),
    ("GET", f"{_COLLECTION}/exists", _exists),
    ("PUT", _COLLECTION, _create),
    ("PATCH", _COLLECTION, _update),
    ("GET", _COLLECTION, _describe),
    ("DELETE", _COLLECTION, _drop),
    ("PUT", f"{_COLLECTION}/index", _index),
    ("POST", f"{_COLLECTION}/points", _retrieve),
    ("PUT", f"{_COLLECTION}/points", _upsert),
    ("POST", f"{_COLLECTION}/points/payload", _set_payload),
    ("POST", f"{_COLLECTION}/points/delete", _delete),
    ("POST", f"{_COLLECTION}/points/scroll", _scroll),
    ("POST", f"{_COLLECTION}/facet", _facet),
    ("POST", f"{_COLLECTION}/points/query/batch", _query),
]


def _route(twin: AsyncQdrantClient, method: str, path: str, handler: _Handler) -> Route:
    async def answer(request: Request) -> JSONResponse:
        try:
            body = await request.body()
        except ClientDisconnect:
            return JSONResponse({}, 400)  # nobody reads it
        name = request.path_params.get("name", "")
        try:
            result = await handler(twin, name, await request.json() if body else None)
        except ValueError as error:  # what the twin says of a collection
            status = 404 if "not found" in str(error) else 409
            return JSONResponse({"status": {"error": str(error)}, "time": 0.0}, status)
        plain = TypeAdapter(Any).dump_python(result, mode="json")
        return JSONResponse({"result": plain, "status": "ok", "time": 0.0})

    return Route(path, answer, methods=[method])


@contextmanager
def serving_twin() -> Iterator[tuple[str, int]]:
    """An empty one; yields host and port."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = AsyncQdrantClient(":memory:")
    app = Starlette(routes=[_route(twin, *call) for call in _CALLS])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the twin did not start"
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()
