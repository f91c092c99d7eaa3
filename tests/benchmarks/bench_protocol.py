"""What REST and gRPC to a Qdrant server cost on this side of the wire.

    python -m tests.benchmarks.bench_protocol [--calls 500]

Another process answers with ready-made bytes, so what is timed is the client in Python: what it
makes of a request, and of an answer. The calls are those of `app.store.server`: the fifteen
persons nearest to a probe, the same for sixteen probes at once, and a person with three faces
read and written. One call after another, medians, and the processor's time of this process.
"""

import argparse
import asyncio
import multiprocessing
import resource
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import cache
from multiprocessing.connection import Connection
from typing import cast

import grpc
import numpy as np
import uvloop
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import RestToGrpc
from rich.console import Console
from rich.table import Table

from app.decision.fusion import template
from app.store import records
from tests.benchmarks.bench_store import NOW, make_face, unit

DIMENSION = 128
PROBES = unit(np.random.default_rng(0).standard_normal((16, DIMENSION), dtype=np.float32))
IDS = [str(uuid.UUID(int=number)) for number in range(15)]


def person() -> models.PointStruct:
    enrolled = records.Enrolled([make_face(0, number) for number in range(3)], PROBES[:3], [])
    payload = enrolled.into(records.person_payload("person-0", NOW))
    return models.PointStruct(
        id=IDS[0], vector=records.vectors(enrolled, template), payload=payload
    )


def record() -> models.Record:
    return models.Record(**person().model_dump())


def neighbours() -> list[models.ScoredPoint]:
    return [
        models.ScoredPoint(
            id=point, version=1, score=0.9, payload={"person_id": f"person-{number}"}
        )
        for number, point in enumerate(IDS)
    ]


@cache
def rest_answer(path: bytes, probes: int) -> bytes:
    if b"/query" in path:
        points = ",".join(point.model_dump_json() for point in neighbours())
        found = f'{{"points":[{points}]}}'
        result = f"[{','.join([found] * probes)}]"
    elif b"?" in path:
        result = '{"operation_id":1,"status":"completed"}'
    else:
        result = f"[{record().model_dump_json()}]"
    body = f'{{"result":{result},"status":"ok","time":0.001}}'.encode()
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


class Rest(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        if len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        self._received = b""
        self._transport.write(rest_answer(head.split()[1], body.count(b'"using"')))


@cache
def grpc_answer(method: str, probes: int) -> bytes:
    answer: messages.QueryBatchResponse | messages.GetResponse | messages.PointsOperationResponse
    if method == "QueryBatch":
        found = [RestToGrpc.convert_scored_point(point) for point in neighbours()]
        answer = messages.QueryBatchResponse(result=[messages.BatchResult(result=found)] * probes)
    elif method == "Get":
        answer = messages.GetResponse(result=[RestToGrpc.convert_record(record())])
    else:
        done = messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
        answer = messages.PointsOperationResponse(result=done)
    return answer.SerializeToString()


def handler(method: str) -> grpc.RpcMethodHandler:
    async def answer(request: bytes, _: object) -> bytes:
        return grpc_answer(method, request.count(records.VECTOR.encode()))

    return grpc.unary_unary_rpc_method_handler(answer)


async def serve(ports: Connection) -> None:
    rest = await asyncio.get_running_loop().create_server(Rest, "127.0.0.1", 0)
    server = grpc.aio.server()
    handlers = {method: handler(method) for method in ("QueryBatch", "Get", "Upsert")}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("qdrant.Points", handlers)]
    )
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ports.send((rest.sockets[0].getsockname()[1], grpc_port))
    await server.wait_for_termination()


def query(probe: list[float]) -> models.QueryRequest:
    here = models.FieldCondition(key="gallery", match=models.MatchValue(value="default"))
    return models.QueryRequest(
        query=probe,
        using=records.VECTOR,
        filter=models.Filter(must=[here]),
        params=models.SearchParams(
            hnsw_ef=256,
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=4.0),
        ),
        limit=len(IDS),
        with_payload=records.NEIGHBOUR_FIELDS,
    )


def calls(client: AsyncQdrantClient) -> dict[str, Callable[[], Awaitable[object]]]:
    probes, stored = PROBES.tolist(), person()
    return {
        "search, one probe": lambda: client.query_batch_points("bench", [query(probes[0])]),
        "search, sixteen probes": lambda: client.query_batch_points(
            "bench", [query(probe) for probe in probes]
        ),
        "person read": lambda: client.retrieve("bench", [IDS[0]], with_vectors=True),
        "person written": lambda: client.upsert(
            "bench", [stored], ordering=models.WriteOrdering.STRONG
        ),
    }


async def timed(call: Callable[[], Awaitable[object]], count: int) -> tuple[float, float]:
    """Median milliseconds, and the processor's for each call."""
    for _ in range(count // 10):
        await call()
    took = []
    before = _cpu_seconds()
    for _ in range(count):
        start = time.perf_counter()
        await call()
        took.append(time.perf_counter() - start)
    return float(np.median(took)) * 1e3, (_cpu_seconds() - before) / count * 1e3


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(ports: tuple[int, int], count: int) -> Table:
    url = f"http://127.0.0.1:{ports[0]}"
    rest = AsyncQdrantClient(url=url, check_compatibility=False)
    binary = AsyncQdrantClient(
        url=url, grpc_port=ports[1], prefer_grpc=True, check_compatibility=False
    )
    table = Table(title=f"{count:,} calls each, ms")
    for column in ("", "REST", "its CPU", "gRPC", "its CPU"):
        table.add_column(column, justify="right")
    of_rest, of_grpc = calls(rest), calls(binary)
    for name in of_rest:
        figures = [*await timed(of_rest[name], count), *await timed(of_grpc[name], count)]
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    await rest.close()
    await binary.close()
    return table


def serve_for_ever(ports: Connection) -> None:
    uvloop.run(serve(ports))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=500)
    chosen = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_for_ever, args=(there,))
    server.start()
    try:
        Console().print(uvloop.run(measure(here.recv(), chosen.calls)))
    finally:
        server.kill()


if __name__ == "__main__":
    main()
