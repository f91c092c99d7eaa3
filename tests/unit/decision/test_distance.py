import numpy as np
import pytest

from app.decision.distance import Metric, distance, distance_at


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    vectors = np.random.default_rng(0).normal(size=(2, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[0], vectors[1]


def test_distances_are_the_textbook_ones(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    assert distance(a, b, "cosine") == pytest.approx(1 - float(a @ b))
    assert distance(a, b, "euclidean") == pytest.approx(float(np.sqrt(((a - b) ** 2).sum())))
    assert distance(a, b, "manhattan") == pytest.approx(float(np.abs(a - b).sum()), rel=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_threshold_is_exact(pair: tuple[np.ndarray, np.ndarray], metric: Metric) -> None:
    a, b = pair
    assert distance_at(float(a @ b), 128, metric) == pytest.approx(distance(a, b, metric), rel=1e-5)


def test_the_manhattan_threshold_is_right_on_average() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 2, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    ratios = [
        distance(a, b, "manhattan") / distance_at(float(a @ b), 128, "manhattan")
        for a, b in vectors
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)
    assert np.std(ratios) < 0.05
