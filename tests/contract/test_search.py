"""The nearest persons of a gallery."""

import asyncio

import numpy as np
import pytest

from app.decision.fusion import template
from app.store import Store
from tests.stores import DIMENSION, enrol_faces, unit

pytestmark = pytest.mark.anyio


async def test_search_is_exact(store: Store) -> None:
    rows = unit(3000, seed=1)
    persons = [f"person-{number}" for number in range(1000)]
    await asyncio.gather(
        *(enrol_faces(store, name, rows[3 * n : 3 * n + 3]) for n, name in enumerate(persons))
    )
    templates = np.stack([template(three) for three in rows.reshape(1000, 3, DIMENSION)])
    probes = np.concatenate([unit(20, seed=2), rows[:5]])
    exact = probes @ templates.T
    hits = 0
    for similarities, found in zip(exact, await store.search("default", probes, 10), strict=True):
        best = np.argsort(-similarities)[:10]
        hits += len({persons[index] for index in best} & {near.person_id for near in found})
        got = [neighbour.similarity for neighbour in found]
        assert got == sorted(got, reverse=True)
        for neighbour in found:
            assert neighbour.similarity == pytest.approx(
                similarities[persons.index(neighbour.person_id)], abs=1e-4
            )
    assert hits / (10 * len(probes)) >= 0.999


async def test_a_limit_beyond_the_gallery_gives_all_of_it(store: Store) -> None:
    embeddings = unit(3)
    for number, row in enumerate(embeddings):
        await enrol_faces(store, f"person-{number}", row[None])
    (found,) = await store.search("default", -embeddings[:1], 1000)
    assert sorted(near.person_id for near in found) == ["person-0", "person-1", "person-2"]
    assert found[-1].person_id == "person-0"
    assert found[-1].similarity == pytest.approx(-1.0, abs=1e-4)
    assert found[-1].similarity >= -1.0
    assert await store.search("default", embeddings[:0], 5) == []
