import math

import pytest

from app.decision.verification import SamePerson, VerificationThresholds
from app.errors import UnsupportedTarget


@pytest.fixture
def thresholds() -> VerificationThresholds:
    return VerificationThresholds(
        (1e-1, 1e-2, 1e-3, 1e-4),
        (1, 4),
        [(0.2, 0.3, 0.37, 0.43), (0.22, 0.32, 0.39, 0.45)],
        [(11.4, 10.6, 10.0, 9.5), (11.2, 10.4, 9.8, 9.3)],
    )


def test_a_measured_rate_gives_the_measured_threshold(thresholds: VerificationThresholds) -> None:
    assert thresholds.distance(1e-3, "cosine") == pytest.approx(1 - 0.37)
    assert thresholds.distance(1e-3, "euclidean") == pytest.approx(math.sqrt(2 - 2 * 0.37))
    assert thresholds.distance(1e-3, "manhattan") == pytest.approx(10.0)


def test_between_two_rates_it_is_interpolated_over_the_logarithm(
    thresholds: VerificationThresholds,
) -> None:
    assert thresholds.distance(10**-2.5, "cosine") == pytest.approx(1 - 0.335)


def test_a_template_of_several_photos_has_to_be_nearer(thresholds: VerificationThresholds) -> None:
    found = [1 - thresholds.distance(1e-3, "cosine", photos) for photos in (1, 2, 4, 50)]
    assert found == pytest.approx([0.37, 0.38, 0.39, 0.39])


@pytest.mark.parametrize("target", [0.2, 5e-5])
def test_rates_that_are_not_supported_are_refused(
    thresholds: VerificationThresholds, target: float
) -> None:
    with pytest.raises(UnsupportedTarget, match="from 1e-04 to 1e-01"):
        thresholds.distance(target, "cosine")


def test_the_prior_moves_the_probability_as_bayes_says() -> None:
    same = SamePerson(slope=30.0, intercept=-10.0)
    assert same.probability(1 / 3, prior=0.5) == pytest.approx(0.5)
    odds = math.exp(30 * 0.5 - 10)
    assert same.probability(0.5, prior=0.01) == pytest.approx(odds / 99 / (1 + odds / 99))
    assert 0 < same.probability(-1, 1e-6) < same.probability(1, 1 - 1e-6) <= 1
