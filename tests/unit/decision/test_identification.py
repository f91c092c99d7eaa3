import numpy as np
import pytest

from app.decision.identification import COHORT, IdentificationThresholds, cohort_raise
from app.errors import UnsupportedTarget


@pytest.fixture
def thresholds() -> IdentificationThresholds:
    return IdentificationThresholds(
        (1e-1, 1e-2, 1e-3),
        (1, 4),
        (1, 10, 100),
        [
            [(0.2, 0.3, 0.4), (0.18, 0.26, 0.34), (0.16, 0.22, 0.28)],
            [(0.22, 0.32, 0.42), (0.2, 0.28, 0.36), (0.18, 0.24, 0.3)],
        ],
    )


def test_the_cohort_is_the_ten_who_follow() -> None:
    similarities = np.linspace(0.9, 0.1, 20)
    expected = 0.75 * similarities[1:11].mean()
    assert cohort_raise(similarities[1:].tolist()) == pytest.approx(expected)
    of_probes = np.stack([similarities, similarities / 2], axis=1)[1:]
    np.testing.assert_allclose(cohort_raise([*of_probes]), [expected, expected / 2])


def test_a_person_enrolled_twice_hardly_raises_the_threshold() -> None:
    once = cohort_raise([0.35] * COHORT)
    assert once < cohort_raise([0.7] + [0.35] * (COHORT - 1)) < once + 0.03


@pytest.mark.parametrize(("following", "expected"), [([], 0.0), ([0.4], 0.03)])
def test_in_a_small_gallery_the_missing_count_as_nothing(
    following: list[float], expected: float
) -> None:
    assert cohort_raise(following) == pytest.approx(expected)


def test_what_was_measured_is_given_back(thresholds: IdentificationThresholds) -> None:
    assert thresholds.similarity(1e-2, persons=10, photos=1) == pytest.approx(0.26)
    assert thresholds.similarity(1e-2, persons=10, photos=4) == pytest.approx(0.28)


def test_between_it_is_interpolated_over_logarithms(thresholds: IdentificationThresholds) -> None:
    assert thresholds.similarity(10**-1.5, 1, 1) == pytest.approx(0.25)
    assert thresholds.similarity(1e-2, round(10**0.5), 1) == pytest.approx(0.28, abs=1e-3)
    assert thresholds.similarity(1e-2, 1, 2) == pytest.approx(0.31)


def test_beyond_the_largest_gallery_it_is_held(thresholds: IdentificationThresholds) -> None:
    assert thresholds.similarity(1e-2, 10**6, 1) == pytest.approx(0.22)
    assert thresholds.similarity(1e-2, 10**6, 100) == pytest.approx(0.24)


def test_an_empty_gallery_has_a_threshold(thresholds: IdentificationThresholds) -> None:
    assert thresholds.similarity(1e-2, 0, 0) == thresholds.similarity(1e-2, 1, 1)


@pytest.mark.parametrize("target", [0.2, 5e-4])
def test_rates_that_are_not_supported_are_refused(
    thresholds: IdentificationThresholds, target: float
) -> None:
    with pytest.raises(UnsupportedTarget, match=r"from 0\.001 to 0\.1"):
        thresholds.similarity(target, 10, 1)
