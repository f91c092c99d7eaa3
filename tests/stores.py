"""Embedded stores of random faces, for tests."""

import uuid
from datetime import UTC, datetime
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


def unit(count: int, seed: int = 0) -> FloatArray:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def face(person_id: str) -> Face:
    now = datetime.now(UTC)
    return Face(str(uuid.uuid4()), person_id, (0, 0, 9, 9), 0.9, {}, "0" * 64, now)


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


async def enrol(store: EmbeddedStore, gallery: str, person_id: str, seed: int = 0) -> str:
    added = face(person_id)
    await store.enrol(gallery, person_id, [added], unit(1, seed), 100)
    return added.face_id


async def reopened(store: EmbeddedStore, path: Path) -> EmbeddedStore:
    await store.close()
    store = embedded(path)
    await store.open()
    return store
