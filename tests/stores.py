"""Stores of random faces, for tests."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from app.decision.fusion import template
from app.models.spec import EmbedderSpec
from app.services.models import Model, Pair
from app.services.writes import PersonWriter
from app.store import EmbeddedStore, Embedder, Face, FloatArray, Store
from app.store.crops import CropFiles, Crops

DIMENSION = 16
EMBEDDER = Embedder("test-model", DIMENSION, "a" * 64)
NO_LIMIT = 10_000
START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def unit(count: int, seed: int = 0, dimension: int = DIMENSION) -> FloatArray:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def face(person_id: str, number: int = 0) -> Face:
    """The same one for the same number."""
    return Face(
        face_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{person_id} {number}")),
        person_id=person_id,
        box=(10.5, 20.25, 64.0, 80.125),
        detection_score=0.875,
        quality={"sharpness": 0.5, "yaw_degrees": -12.25},
        image_sha256=f"{number:064x}",
        enrolled_at=START + timedelta(seconds=number),
    )


def faces_of(person_id: str, count: int) -> list[Face]:
    return [face(person_id, number) for number in range(count)]


def spec(embedder: Embedder = EMBEDDER) -> EmbedderSpec:
    return EmbedderSpec(
        name=embedder.name,
        licence="",
        origin="",
        training_data="",
        weights_sha256=embedder.weights_sha256,
        dimension=embedder.dimension,
    )


class FixedModels:
    """`Models` that change when a test assigns others; counts notes that stores are unequal."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.unequal = 0

    async def current(self) -> Pair:
        return self.pair

    async def note_unequal(self) -> None:
        self.unequal += 1


def writer_of(store: Store) -> PersonWriter:
    """To a store of one model, whose faces come with their embeddings; no crops are kept."""
    pair = Pair(Model(spec(), None, store), None)  # type: ignore[arg-type]
    return PersonWriter(FixedModels(pair), Crops(CropFiles(Path("/nonexistent")), None))


def embedded(path: Path, *, durable: bool = True) -> EmbeddedStore:
    return EmbeddedStore(path, EMBEDDER, template, durable=durable)


async def enrol(store: Store, gallery: str, person_id: str, seed: int = 0) -> str:
    added = face(person_id, seed)
    await store.enrol(gallery, person_id, [added], unit(1, seed), NO_LIMIT)
    return added.face_id


async def enrol_faces(
    store: Store, person_id: str, embeddings: FloatArray, gallery: str = "default"
) -> int:
    faces = faces_of(person_id, len(embeddings))
    return await store.enrol(gallery, person_id, faces, embeddings, NO_LIMIT)


async def reopened(store: EmbeddedStore, path: Path) -> EmbeddedStore:
    await store.close()
    store = embedded(path)
    await store.open()
    return store
