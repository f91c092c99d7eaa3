import asyncio

import numpy as np
import pytest

from app.errors import NotReady
from app.inference import embedder as module
from app.inference.embedder import CpuEmbedder, batch_sizes, embed_batch
from app.inference.pool import CorePool
from app.inference.session import open_session
from app.models.spec import SHIPPED_EMBEDDER, EmbedderSpec


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 8]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_batch_sizes_are_few(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    coarse = np.random.default_rng(0).integers(0, 256, (7, 14, 14, 3), dtype=np.uint8)
    return list(np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8)))


def test_an_embedding_does_not_depend_on_its_batch(crops: list[np.ndarray]) -> None:
    session, _ = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", 1)
    alone = [embed_batch(session, [crop])[0] for crop in crops]
    for size in (2, 7):
        for one, other in zip(alone, embed_batch(session, crops[:size]), strict=False):
            assert float(one.vector @ other.vector) > 0.999999
            assert one.norm == pytest.approx(other.norm, rel=1e-4)
    assert all(np.linalg.norm(e.vector) == pytest.approx(1, abs=1e-5) for e in alone)


@pytest.mark.anyio
async def test_one_core_or_all_of_them_make_no_difference(crops: list[np.ndarray]) -> None:
    pool = CorePool(2)
    embedder = CpuEmbedder(SHIPPED_EMBEDDER, 2, pool)
    together = await embedder.embed(crops[:4])
    for crop, expected in zip(crops, together, strict=False):
        (alone,) = await embedder.embed([crop])
        assert float(alone.vector @ expected.vector) > 0.999999
    pool.close()


@pytest.mark.anyio
async def test_a_photo_of_many_faces_keeps_no_other_waiting(crops: list[np.ndarray]) -> None:
    pool = CorePool(1)
    embedder = CpuEmbedder(SHIPPED_EMBEDDER, 1, pool)
    crowd = asyncio.create_task(embedder.embed(crops[:1] * 12))
    await asyncio.sleep(0)
    await embedder.embed(crops[1:2])
    assert not crowd.done()
    assert len(await crowd) == 12
    pool.close()


@pytest.mark.anyio
async def test_faces_for_the_gpu_travel_in_few_shapes(
    crops: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batching of the CUDA embedder, computed on the CPU."""
    session, spec = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", 1)
    monkeypatch.setattr(module, "open_session", lambda *_, **__: (session, spec))
    shapes: set[int] = set()
    sizes: list[int] = []

    def recorded(session: object, faces: list[np.ndarray]) -> list[module.Embedding]:
        shapes.add(len(faces))
        return embed_batch(session, faces)

    monkeypatch.setattr(module, "embed_batch", recorded)
    embedder = module.CudaEmbedder(
        SHIPPED_EMBEDDER, max_batch=4, max_wait=0.02, max_queue=100, observe=sizes.append
    )
    assert shapes == {1, 2, 4}
    answers = await asyncio.gather(
        embedder.embed(crops), embedder.embed([]), embedder.embed(crops[:3])
    )
    embedder.check()
    await embedder.close()
    assert [len(answer) for answer in answers] == [7, 0, 3]
    assert sum(sizes) == 10
    assert max(sizes) <= 4
    assert shapes == {1, 2, 4}
    for crop, embedding in zip(crops, answers[0], strict=True):
        (alone,) = embed_batch(session, [crop])
        assert float(alone.vector @ embedding.vector) > 0.999999
    with pytest.raises(NotReady):
        embedder.check()
