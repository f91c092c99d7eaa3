import numpy as np
import pytest

from app.decision.closed_set import probabilities


def test_they_sum_to_one_and_follow_the_similarities() -> None:
    found = probabilities(np.array([0.6, 0.3, 0.25]), 0.025)
    assert found.sum() == pytest.approx(1)
    assert found[0] / found[1] == pytest.approx(np.exp(0.3 / 0.025))


def test_equals_are_equally_probable() -> None:
    np.testing.assert_allclose(probabilities(np.full(4, 0.9), 1e-3), 0.25)
