import numpy as np
import pytest

from app.decision.verification import SamePerson, VerificationThresholds
from app.models.spec import VerificationCalibration
from tests.unit.training.calibration.population import population
from training.calibration.verification import measure


@pytest.fixture(scope="module")
def measured() -> VerificationCalibration:
    vectors, labels = population(150, 6)
    return measure(vectors, labels, np.eye(150, dtype=bool), seed=0, resamples=50)


@pytest.fixture(scope="module")
def others() -> tuple[np.ndarray, np.ndarray]:
    return population(300, 6, seed=1)


def rates(vectors: np.ndarray, labels: np.ndarray, cosine: float) -> float:
    scores = vectors @ vectors.T
    return float((scores >= cosine)[labels[:, None] != labels].mean())


def test_people_never_seen_match_as_often_as_promised(
    measured: VerificationCalibration, others: tuple[np.ndarray, np.ndarray]
) -> None:
    assert measured.fmr[-1] < measured.measured_down_to  # some are modelled
    for fmr, cosine in zip(measured.fmr, measured.cosine[0], strict=True):
        assert rates(*others, cosine) == pytest.approx(fmr, rel=0.4)


def test_so_do_templates_of_several_photos(
    measured: VerificationCalibration, others: tuple[np.ndarray, np.ndarray]
) -> None:
    assert measured.photos == (1, 3)
    vectors, labels = others
    templates = vectors.reshape(300, 6, -1)[:, :3].sum(axis=1)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    scores = (vectors @ templates.T)[labels[:, None] != np.arange(300)]
    thresholds = VerificationThresholds(
        measured.fmr, measured.photos, measured.cosine, measured.manhattan
    )
    for fmr in (1e-2, 1e-3):
        least = 1 - thresholds.distance(fmr, "cosine", photos=3)
        assert (scores >= least).mean() == pytest.approx(fmr, rel=0.3)


def test_manhattan_distances_keep_the_promise_too(
    measured: VerificationCalibration, others: tuple[np.ndarray, np.ndarray]
) -> None:
    vectors, labels = others[0][::3], others[1][::3]
    apart = np.abs(vectors[:, None] - vectors[None]).sum(axis=2)[labels[:, None] != labels]
    for fmr, most in zip(measured.fmr[:5], measured.manhattan[0], strict=False):
        assert (apart <= most).mean() == pytest.approx(fmr, rel=0.3)


def test_intervals_hold_their_rate(measured: VerificationCalibration) -> None:
    for low, rate, high in zip(measured.fmr_low, measured.fmr, measured.fmr_high, strict=True):
        assert low <= rate <= high
    widths = np.array(measured.fmr_high) / np.array(measured.fmr_low)
    assert widths[-1] > widths[2] > 1  # the rarer, the less certain


def test_probabilities_are_as_often_right_as_they_say(
    measured: VerificationCalibration,
) -> None:
    """Where half of the pairs show one person, near the boundary."""
    vectors, labels = population(300, 2, seed=2)
    pairs = vectors.reshape(300, 2, -1)
    genuine = (pairs[:, 0] * pairs[:, 1]).sum(axis=1)
    impostor = (vectors @ vectors.T)[labels[:, None] < labels]
    same = SamePerson(measured.slope, measured.intercept)
    middle = -measured.intercept / measured.slope
    accepted = (genuine > middle).mean() + (impostor < middle).mean()
    assert same.probability(middle, prior=0.5) == pytest.approx(0.5)
    assert accepted / 2 > 0.99
