import math

import numpy as np
import pytest

from app.decision.thresholds import Thresholds
from app.errors import UnsupportedTarget


@pytest.fixture
def thresholds() -> Thresholds:
    return Thresholds((1e-1, 1e-2, 1e-3, 1e-4), (0.2, 0.3, 0.37, 0.43), (11.4, 10.6, 10.0, 9.5))


def test_a_measured_rate_gives_the_measured_threshold(thresholds: Thresholds) -> None:
    assert thresholds.verification(1e-3, "cosine") == pytest.approx(1 - 0.37)
    assert thresholds.verification(1e-3, "euclidean") == pytest.approx(math.sqrt(2 - 2 * 0.37))
    assert thresholds.verification(1e-3, "manhattan") == pytest.approx(10.0)


def test_between_two_rates_it_is_interpolated_over_the_logarithm(thresholds: Thresholds) -> None:
    assert thresholds.verification(10**-2.5, "cosine") == pytest.approx(1 - 0.335)


@pytest.mark.parametrize("target", [0.2, 5e-5])
def test_rates_that_were_not_measured_are_refused(thresholds: Thresholds, target: float) -> None:
    with pytest.raises(UnsupportedTarget, match="from 1e-04 to 1e-01"):
        thresholds.verification(target, "cosine")


def test_one_person_is_a_verification(thresholds: Thresholds) -> None:
    assert thresholds.identification(1e-3, 1) == pytest.approx(0.37)
    assert thresholds.identification(1e-3, 0) == pytest.approx(0.37)


def test_the_threshold_rises_with_the_gallery(thresholds: Thresholds) -> None:
    rising = [thresholds.identification(0.01, n) for n in (1, 10, 100, 1000, 5000)]
    assert rising == sorted(rising)
    assert rising[1] == pytest.approx(0.37, abs=1e-3)
    assert rising[2] == pytest.approx(0.43, abs=1e-3)
    # Beyond the table in a straight line, one decade here.
    assert rising[3] == pytest.approx(0.43 + 0.065, abs=2e-3)


def test_independent_comparisons_keep_the_promise() -> None:
    """Impostors with a known distribution: what is promised is what happens."""
    rng = np.random.default_rng(0)
    rates = (1e-1, 1e-2, 1e-3, 1e-4)
    normal = (1.2816, 2.3263, 3.0902, 3.7190)
    known = Thresholds(rates, [0.1 * z for z in normal], [20 - z for z in normal])
    for persons in (10, 50):
        threshold = known.identification(0.05, persons)
        best = rng.normal(0, 0.1, (40_000, persons)).max(axis=1)
        assert (best > threshold).mean() == pytest.approx(0.05, rel=0.15)


def test_a_gallery_too_large_for_the_target_is_refused(thresholds: Thresholds) -> None:
    with pytest.raises(UnsupportedTarget, match=r"target_fpir of 0\.1 or more"):
        thresholds.identification(0.01, 100_000)


def test_more_errors_than_were_measured_are_not_made_on_purpose(thresholds: Thresholds) -> None:
    assert thresholds.identification(0.9, 1) == pytest.approx(0.2)
