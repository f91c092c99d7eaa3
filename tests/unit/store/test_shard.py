"""How a gallery of the embedded engine lies on disk."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge

from app.errors import StoreMismatch
from app.store import EmbeddedStore, FloatArray, GallerySize, galleries
from app.store import shard as shards
from tests.stores import DIMENSION, embedded, enrol, face, reopened, unit

pytestmark = pytest.mark.anyio


def segments(path: Path) -> list[Path]:
    return [entry for entry in (path / "segments").iterdir() if entry.is_dir()]


def points(segment: Path) -> int:
    """What the engine has written to a segment: eight bytes for each point, its version."""
    file = segment / "mutable_id_tracker.versions"
    return file.stat().st_size // 8 if file.exists() else 0


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Galleries of 100 persons are scanned by three threads, whatever the machine."""
    monkeypatch.setattr(shards, "_LARGE", 100)
    monkeypatch.setattr(shards, "_CHECKPOINT", 200)
    monkeypatch.setattr(shards, "scan_threads", lambda: 3)


async def fill(store: EmbeddedStore, rows: FloatArray, prefix: str = "person") -> list[str]:
    """One person for each row, together."""
    persons = [f"{prefix}-{number}" for number in range(len(rows))]
    await asyncio.gather(
        *(
            store.enrol("default", person_id, [face(person_id)], row[None], 1)
            for person_id, row in zip(persons, rows, strict=True)
        )
    )
    return persons


async def test_a_vacuum_drops_deleted_persons(store: EmbeddedStore, path: Path) -> None:
    rows = unit(2000)
    persons = await fill(store, rows)
    for person_id in persons[:1500]:
        await store.delete_person("default", person_id)
    await store.close()
    held = sum(map(points, segments(path / "default")))
    store = embedded(path)
    await store.open()
    assert await store.vacuum() == 1
    assert await store.vacuum() == 0  # there is nothing left to do
    assert await store.size("default") == GallerySize(500, 500)
    found = await store.search("default", rows[1500:], 1)
    assert [nearest.person_id for (nearest,) in found] == persons[1500:]
    await fill(store, unit(100, seed=1), "new")
    store = await reopened(store, path)
    assert await store.size("default") == GallerySize(600, 600)
    assert len((await store.persons("default", 1000)).persons) == 600
    await store.close()
    assert held == 2001
    assert sum(map(points, segments(path / "default"))) <= 601


async def test_a_person_written_again_takes_no_more_room_in_the_scan(
    store: EmbeddedStore, path: Path
) -> None:
    for number in range(20):
        for person_id in ("ada", "bob"):
            await enrol(store, "default", person_id, number)
            await store.update_person("default", person_id, {"n": number}, 100)
    await store.close()
    assert sum(map(points, segments(path / "default"))) == 3  # and the shard's own


@pytest.mark.usefixtures("small_is_large")
async def test_a_large_gallery_is_spread_over_segments(store: EmbeddedStore, path: Path) -> None:
    rows = unit(900)
    first = await fill(store, rows[:30], "first")
    assert len(segments(path / "default")) == 1  # a small one is not
    persons = first + await fill(store, rows[30:300]) + await fill(store, rows[300:], "last")
    # If this fails with another release of the engine, `add_segments` no longer does its work.
    assert store._galleries.open["default"]._engine.info().segments_count == 3
    await store.close()
    held = [points(segment) for segment in segments(path / "default")]
    assert len(held) == 3
    assert min(held) > 200
    assert [entry.name for entry in path.iterdir() if entry.name.startswith(galleries._NEW)] == []

    store = embedded(path)
    await store.open()
    assert await store.size("default") == GallerySize(900, 900)
    probes = unit(20, seed=5)
    exact = probes @ rows.T
    for similarities, found in zip(exact, await store.search("default", probes, 10), strict=True):
        best = np.argsort(-similarities)[:10]
        assert [neighbour.person_id for neighbour in found] == [persons[index] for index in best]
        assert [neighbour.similarity for neighbour in found] == pytest.approx(
            similarities[best].tolist(), abs=1e-4
        )
    await store.close()


@pytest.mark.usefixtures("small_is_large")
async def test_a_spread_gallery_survives_a_vacuum_and_grows_on(
    store: EmbeddedStore, path: Path
) -> None:
    kept: dict[str, FloatArray] = {}
    for generation in range(3):
        rows = unit(1500, seed=generation)
        persons = await fill(store, rows, f"person-{generation}")
        for number, person_id in enumerate(persons):
            if number % 2:
                await store.delete_person("default", person_id)
            else:
                kept[person_id] = rows[number]
        assert await store.vacuum() == 1
        store = await reopened(store, path)
        assert store._galleries.open["default"]._engine.info().segments_count >= 3
        assert await store.size("default") == GallerySize(len(kept), len(kept))
        stored = await store.embeddings("default", kept)
        for person_id, row in kept.items():
            np.testing.assert_array_equal(stored[person_id], row[None])
        # Of each generation somebody who is written again, wherever they lie by now.
        for person_id in (f"person-{number}-0" for number in range(generation + 1)):
            row = unit(1, seed=100 + generation)
            await store.enrol(
                "default", person_id, (await store.faces("default", person_id)), row, 1
            )
            kept[person_id] = row[0]
            found = (await store.search("default", row, 3))[0]
            assert person_id in [near.person_id for near in found]
            assert found[0].similarity == pytest.approx(1, abs=1e-4)
    await store.close()


async def test_a_checkpoint_follows_many_writes(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_CHECKPOINT", 5)
    await enrol(store, "default", "ada")
    assert store._galleries.open["default"].unflushed == 2
    await enrol(store, "default", "ada", 1)
    assert store._galleries.open["default"].unflushed == 0
    await enrol(store, "default", "bob", 2)
    assert store._galleries.open["default"].unflushed == 2
    store = await reopened(store, path)
    assert await store.size("default") == GallerySize(2, 3)
    await store.close()


async def test_a_folder_of_the_former_layout_is_refused(path: Path) -> None:
    """One point a face, and vectors of another name."""
    folder = path / "default"
    folder.mkdir(parents=True)
    vectors = {"embedding": edge.EdgeVectorParams(DIMENSION, edge.Distance.Dot)}
    shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=vectors))
    shard.flush()
    shard.close()
    with pytest.raises(StoreMismatch, match=f"{folder}.*another version.*enrol the photos anew"):
        await embedded(path).open()
