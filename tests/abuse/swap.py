"""The embedder is replaced under load, and the service killed in the middle of it.

    python -m tests.abuse.swap [--faces 10000] [--seconds 20]

Eight clients identify all the while, others enrol and delete. What is asked: does any request fail,
is anybody lost, does it go on after kill -9, and what does it cost those who identify?
"""

import argparse
import asyncio
import base64
import concurrent.futures
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from app.decision.fusion import template
from app.inference.embedder import embed_batch
from app.inference.pool import available_cores
from app.inference.session import open_session
from app.models.spec import SHIPPED_EMBEDDER, EmbedderSpec
from app.services.models import identity
from app.store import Face
from app.store.crops import Crop, Crops
from app.store.models import ModelFolders
from tests.abuse import calls
from tests.abuse.load import Load, Sample, percentile
from tests.abuse.report import Row, finish
from tests.abuse.service import Service
from tests.conftest import SHARED
from tests.stores import face

NEW = SHIPPED_EMBEDDER.with_name("sface-arcface.onnx")
CLIENTS = 8
_WRITERS = 4
_AT_ONCE = 64
_BATCH = 32
_COMPARED = 2000
# Of a batch and of a single face, float32 sums differ in the last bits.
_SAME = 1 - 1e-5


@dataclass
class Swapped:
    """
    Attributes:
        alone, during: identifications with one model, and while faces are carried over.
        switching: identifications across a switch, a rollback and a switch.
        others: answers to those who enrolled and deleted, by status.
        seconds: in which faces were carried over, the new start left out.
        resumed_at, killed_at: faces that were carried over then.
        persons, lost: that were there before, and those that are not found by the new model.
        compared, not_equal: faces that were embedded anew straight from the crop, and those of them
            that are not the same in the store.
        acknowledged: who was enrolled while the service was killed.
        back: who was deleted meanwhile, and is there.
    """

    faces: int
    persons: int
    alone: list[Sample] = field(default_factory=list)
    during: list[Sample] = field(default_factory=list)
    switching: list[Sample] = field(default_factory=list)
    others: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    killed_at: int = 0
    resumed_at: int = 0
    start_s: float = 0.0
    acknowledged: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    compared: int = 0
    not_equal: int = 0
    back: list[str] = field(default_factory=list)

    @property
    def failed(self) -> Counter[int]:
        samples = [*self.alone, *self.during, *self.switching]
        return Counter(sample.status for sample in samples if sample.status != 200)


def crops_of(count: int) -> list[Crop]:
    """(112, 112, 3) uint8 RGB each, all different; of real people where there are any."""
    files = sorted((SHARED / "faces").glob("*/*.jpg"))[:count]
    if len(files) == count:
        images = [cv2.imread(str(file))[8:120, 8:120] for file in files]
    else:
        photos = [cv2.imdecode(np.frombuffer(p, np.uint8), 1) for p in calls.faces(2)]
        images = [
            np.roll(photos[i % 2][24:136, 24:136], (i // 2 % 20, i // 40 % 20), axis=(0, 1))
            for i in range(count)
        ]
    return [np.ascontiguousarray(image[..., ::-1]) for image in images]


def embedded(model: Path, crops: list[Crop]) -> np.ndarray:
    session, _ = open_session(model, EmbedderSpec, "cpu", threads=available_cores())
    return np.stack(
        [
            found.vector
            for start in range(0, len(crops), _BATCH)
            for found in embed_batch(session, crops[start : start + _BATCH])
        ]
    )


async def fill(path: Path, crops: list[Crop], key: bytes) -> dict[str, Face]:
    """A store as the service leaves it, with one face each of so many persons, and their crops."""
    _, spec = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", threads=1)
    # Who they are to the former model does not matter here.
    drawn = np.random.default_rng(0).standard_normal((len(crops), spec.dimension))
    rows = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    stores = ModelFolders(path, template, durable=False)
    store = stores.store((await stores.open(identity(spec))).active)
    await store.open()
    kept = Crops(stores.crops, key)
    faces = {f"person-{number:05}": face(f"person-{number:05}") for number in range(len(crops))}

    async def enrol(number: int) -> None:
        person_id = f"person-{number:05}"
        own = faces[person_id]
        await kept.put("default", person_id, own.face_id, crops[number])
        await store.enrol("default", person_id, [own], rows[number : number + 1], 100)

    for start in range(0, len(crops), _AT_ONCE):
        part = range(start, min(start + _AT_ONCE, len(crops)))
        await asyncio.gather(*(enrol(number) for number in part))
    await store.close()
    await stores.close()
    return faces


def model(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/model")
    answer.raise_for_status()
    return dict(answer.json())


def is_complete(client: httpx.Client) -> bool:
    carried = model(client)["carried"]
    return bool(carried["state"] == "complete" and carried["is_exact"])


async def _until(condition: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(condition):
        await asyncio.sleep(0.25)


def swap(folder: Path, faces: int, seconds: float, **variables: str) -> Swapped:
    """
    Args:
        seconds: of the identifications that are compared with.
        variables: environment variables for the service.
    """
    key = bytes(range(32))
    crops = crops_of(faces)
    stored = asyncio.run(fill(folder / "store", crops, key))
    service = Service(
        folder,
        FACEID_STORE__KEEP_CROPS="true",
        FACEID_STORE__CROPS_KEY=base64.b64encode(key).decode(),
        FACEID_LIMITS__REQUESTS_PER_SECOND="100000",
        FACEID_LIMITS__REQUEST_BURST="100000",
        **variables,
    )
    service.start()
    found = Swapped(faces=faces, persons=len(stored))
    photos = calls.faces(20)
    try:
        with service.client(600) as client:
            for name, photo in zip(("grace", "eileen"), photos, strict=False):
                assert calls.enrol(client, name, [photo]).status_code == 201
        asyncio.run(_load(service, found, photos, seconds))
        with service.client(600) as client:
            assert model(client)["active"]["model"] == "sface-arcface"
            listed = {its["person_id"]: its["face_count"] for its in calls.persons(client)}
        everybody = (*stored, "grace", "eileen", *found.acknowledged)
        found.lost = [name for name in everybody if listed.get(name) != 1]
        found.back = [name for name in found.back if name in listed]
        service.stop()
    finally:
        service.kill()
    asyncio.run(_compare(service.store, found, stored, crops))
    return found


async def _load(service: Service, found: Swapped, photos: list[bytes], seconds: float) -> None:
    requests = [calls.identify_bytes(photo, service.authorization) for photo in photos]
    load = Load(service.address, requests)
    await identify(load, min(seconds, 2))  # warm
    found.alone = await identify(load, seconds)

    await _carry(service, load, found, lambda faces: faces >= found.faces // 3)
    with service.client(600) as client:
        found.killed_at = model(client)["carried"]["faces"]
    with concurrent.futures.ThreadPoolExecutor(_WRITERS) as threads:
        writing = [
            threads.submit(_write_until_killed, service, found, writer)
            for writer in range(_WRITERS)
        ]
        await asyncio.sleep(1)
        service.kill()
    for writer in writing:
        writer.result()
    load.close()
    begun = time.monotonic()
    service.start()
    found.start_s = time.monotonic() - begun
    with service.client(600) as client:
        found.resumed_at = model(client)["carried"]["faces"]

    load = Load(service.address, requests)
    await _carry(service, load, found, None)
    found.switching = await _switch(service, load)
    load.close()


def _write_until_killed(service: Service, found: Swapped, writer: int) -> None:
    photos = calls.faces(1000)[writer::_WRITERS]
    with service.client() as client, suppress(httpx.TransportError):
        for number, photo in enumerate(itertools.cycle(photos)):
            name = f"late-{writer}-{number}"
            found.others[calls.enrol(client, name, [photo]).status_code] += 1
            if number % 2 == 0:
                found.acknowledged.append(name)
            else:
                found.others[calls.delete(client, name).status_code] += 1
                found.back.append(name)


async def identify(load: Load, until: float | asyncio.Event) -> list[Sample]:
    """Each client with one request at a time, for so many seconds or until it is over."""
    samples: list[Sample] = []
    deadline = time.monotonic() + (until if isinstance(until, float | int) else 1e9)

    async def client() -> None:
        while time.monotonic() < deadline and not (
            isinstance(until, asyncio.Event) and until.is_set()
        ):
            samples.append(await load.once())

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return samples


async def _compare(path: Path, found: Swapped, stored: dict[str, Face], crops: list[Crop]) -> None:
    """What the service left: of some, the face as the new model sees the crop itself."""
    stores = ModelFolders(path, template)
    _, spec = open_session(NEW, EmbedderSpec, "cpu", threads=1)
    store = stores.store((await stores.open(identity(spec))).active)
    await store.open()
    some = slice(0, None, max(1, len(crops) // _COMPARED))
    expected = embedded(NEW, crops[some])
    found.compared = len(expected)
    for start in range(0, len(expected), _BATCH):
        names = list(stored)[some][start : start + _BATCH]
        rows = expected[start : start + _BATCH]
        kept = await store.embeddings("default", names)
        nearest = await store.search("default", rows, 1)
        for name, row, near in zip(names, rows, nearest, strict=True):
            found.not_equal += float(kept[name][0] @ row) < _SAME
            # Of two who look the same to the model, either is right.
            if near[0].similarity < _SAME:
                found.lost.append(name)
    await store.close()
    await stores.close()


async def _carry(
    service: Service, load: Load, found: Swapped, is_enough: Callable[[int], bool] | None
) -> None:
    """Have the new model, and identify, enrol and delete until it has all faces, or enough."""
    stop = asyncio.Event()

    def change(number: int) -> None:
        with service.client() as client:
            name = f"new-{service.process.pid}-{number}"
            photo = calls.faces(1000)[20 + number % 900]
            found.others[calls.enrol(client, name, [photo]).status_code] += 1
            if number % 2:
                found.others[calls.delete(client, name).status_code] += 1
                found.back.append(name)

    async def others() -> None:
        number = 0
        while not stop.is_set():
            await asyncio.to_thread(change, number)
            number += 1
            await asyncio.sleep(0.5)

    with service.client(600) as client:
        begun = time.monotonic()
        identifying = asyncio.create_task(identify(load, stop))
        changing = asyncio.create_task(others())
        answer = await asyncio.to_thread(
            client.put,
            "/model/other",
            content=NEW.read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
        )
        answer.raise_for_status()
        if is_enough is None:
            await _until(lambda: is_complete(client))
        else:
            await _until(lambda: is_enough(model(client)["carried"]["faces"]))
        found.seconds += time.monotonic() - begun
    stop.set()
    found.during += await identifying
    await changing


async def _switch(service: Service, load: Load) -> list[Sample]:
    stop = asyncio.Event()
    identifying = asyncio.create_task(identify(load, stop))
    with service.client(600) as client:
        for _ in range(3):
            await asyncio.sleep(0.5)
            await _until(lambda: is_complete(client))
            (await asyncio.to_thread(client.post, "/model/switch")).raise_for_status()
    await asyncio.sleep(0.5)
    stop.set()
    return await identifying


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = swap(Path(folder), options.faces, options.seconds)
    failed = found.failed
    refused = {status: n for status, n in found.others.items() if status not in {200, 201}}
    alone = len(found.alone) / options.seconds
    during = len(found.during) / found.seconds
    kept = during / alone
    finish(
        f"a swap of {options.faces:,} faces, {CLIENTS} clients identifying",
        [
            Row("identifications during it", f"{len(found.during):,}"),
            Row("across a switch, a rollback, a switch", f"{len(found.switching):,}"),
            Row("of all, failed", f"{failed.total()} {dict(failed) or ''}", "0", not failed),
            Row("enrolments and deletions meanwhile", f"{found.others.total()}"),
            Row("of them, failed", f"{sum(refused.values())} {refused or ''}", "0", not refused),
            Row(
                "faces when killed / when started again",
                f"{found.killed_at} / {found.resumed_at}",
                "no fewer",
                found.resumed_at >= found.killed_at,
            ),
            Row("seconds to start again", f"{found.start_s:.1f}"),
            Row("acknowledged while it was killed", f"{len(found.acknowledged)}"),
            Row(
                "persons lost",
                f"{len(found.lost)} of {found.persons + len(found.acknowledged):,}",
                "0",
                not found.lost,
            ),
            Row("deleted meanwhile and back", f"{len(found.back)}", "0", not found.back),
            Row(
                "embedded otherwise than from the crop",
                f"{found.not_equal} of {found.compared:,}",
                "0",
                not found.not_equal,
            ),
            Row("faces carried over a second, under load", f"{found.faces / found.seconds:.1f}"),
            Row("identifications a second, alone", f"{alone:.1f}"),
            Row("... while carrying over", f"{during:.1f} ({kept:.0%})", ">= 50 %", kept >= 0.5),
            Row(
                "ms, median / 95 %, alone",
                f"{percentile(found.alone, 50, 200) * 1e3:.0f} / "
                f"{percentile(found.alone, 95, 200) * 1e3:.0f}",
            ),
            Row(
                "... while carrying over",
                f"{percentile(found.during, 50, 200) * 1e3:.0f} / "
                f"{percentile(found.during, 95, 200) * 1e3:.0f}",
            ),
        ],
    )


if __name__ == "__main__":
    main()
