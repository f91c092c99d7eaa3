import numpy as np
import pytest

from app.decision.distance import distance


def test_distances_are_the_textbook_ones() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 128)).astype(np.float32)
    a, b = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert distance(a, b, "cosine") == pytest.approx(1 - float(a @ b))
    assert distance(a, b, "euclidean") == pytest.approx(float(np.sqrt(((a - b) ** 2).sum())))
    assert distance(a, b, "manhattan") == pytest.approx(float(np.abs(a - b).sum()), rel=1e-5)
