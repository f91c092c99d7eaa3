import numpy as np
import pytest

from app.decision.closed_set import probabilities
from app.decision.identification import IdentificationThresholds
from app.models.spec import IdentificationCalibration
from tests.unit.training.calibration.population import population
from training.calibration.identification import cohort_normalised, measure, nearest_of


@pytest.fixture(scope="module")
def measured() -> IdentificationCalibration:
    vectors, labels = population(150, 8)
    return measure(vectors, labels, seed=0, resamples=30)


def search(persons: int, photos: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of strangers and of mates to everybody in a gallery of people never seen."""
    vectors, labels = population(persons + 400, 8, seed)
    templates = vectors.reshape(-1, 8, 32)[:persons, :photos].sum(axis=1)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    strangers = vectors[labels >= persons] @ templates.T
    return strangers, vectors.reshape(-1, 8, 32)[:persons, 7] @ templates.T


def scores(similarity: np.ndarray) -> np.ndarray:
    return cohort_normalised(nearest_of(similarity))


@pytest.mark.parametrize(("persons", "photos"), [(1, 1), (4, 1), (30, 1), (30, 3), (120, 1)])
def test_strangers_are_called_somebody_as_often_as_promised(
    measured: IdentificationCalibration, persons: int, photos: int
) -> None:
    thresholds = IdentificationThresholds(
        measured.fpir, measured.photos, measured.persons, measured.similarity
    )
    draws = [
        scores(search(persons, photos, seed)[0]) for seed in range(1, 40 if persons < 9 else 5)
    ]
    for target in (0.05, 0.01):
        least = thresholds.similarity(target, persons, photos)
        realised = np.mean([(drawn >= least).mean() for drawn in draws])
        assert target / 2 <= realised <= 2 * target


def test_closed_set_probabilities_are_right_as_often_as_they_say(
    measured: IdentificationCalibration,
) -> None:
    _, similarity = search(200, 1, seed=9)
    found = np.array([probabilities(row, measured.temperature) for row in similarity])
    right = found.argmax(axis=1) == np.arange(200)
    assert found.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.03)
