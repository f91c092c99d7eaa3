import numpy as np
import pytest
from scipy.stats import genpareto

from training.calibration.tail import fit

RATES = np.array([1e-2, 1e-3, 1e-5])


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.0, 0.2])
def test_a_known_tail_is_found_again(shape: float) -> None:
    rng = np.random.default_rng(0)
    excess = genpareto.rvs(shape, scale=0.05, size=20_000, random_state=rng)
    tail = fit(np.sort(0.4 + excess), start=0.4, total=1e6)
    assert tail.share == 0.02
    assert tail.shape == pytest.approx(shape, abs=0.03)
    expected = 0.4 + genpareto.ppf(1 - RATES / 0.02, shape, scale=0.05)
    np.testing.assert_allclose(tail.threshold(RATES), expected, rtol=0.03)
    np.testing.assert_allclose(tail.rate(tail.threshold(RATES)), RATES)


def test_a_weight_counts_like_a_repetition() -> None:
    rng = np.random.default_rng(1)
    scores = np.sort(0.4 + rng.exponential(0.05, 500))
    weights = rng.integers(0, 4, 500)
    weighted = fit(scores, 0.4, 1e4, weights.astype(float))
    repeated = fit(np.repeat(scores, weights), 0.4, 1e4)
    assert weighted.share == repeated.share
    assert weighted.scale == pytest.approx(repeated.scale)
    assert weighted.shape == pytest.approx(repeated.shape)


def test_a_tail_that_ends_gives_no_rate_beyond_its_end() -> None:
    rng = np.random.default_rng(2)
    tail = fit(np.sort(rng.uniform(0, 1, 10_000)), start=0.9, total=1e4)
    assert tail.rate(np.array([1.2])) == 0.0
