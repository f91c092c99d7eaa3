import numpy as np
import pytest

from training.errors import Unresolvable
from training.evaluation.closed_set import ClosedSet


def test_the_calibration_error_is_that_worked_out_by_hand() -> None:
    right = [True, True, True, False, False]
    probability = np.array([0.98, 0.96, 0.94, 0.95, 0.30])
    figures = ClosedSet(right, probability, np.arange(5)).figures()
    assert figures["rank-1"] == 0.6
    # Four in the last bin: 0.75 of them right, 0.9575 said; one in the fifth: 0 right, 0.3 said.
    assert figures["calibration error"] == pytest.approx(0.8 * 0.2075 + 0.2 * 0.3)
    np.testing.assert_allclose(figures["reliability"], [0, 0.75])
    np.testing.assert_allclose(figures["share"], [0.2, 0.8])


def test_probabilities_that_hold_have_no_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0, 1, 100_000)
    right = rng.uniform(0, 1, 100_000) < probability
    figures = ClosedSet(right, probability, np.zeros(100_000, int)).figures()
    assert figures["calibration error"] < 0.01
    assert ClosedSet(right, probability**2, np.zeros(100_000, int)).figures()[
        "calibration error"
    ] == pytest.approx(1 / 2 - 1 / 3, abs=0.01)


def test_a_probe_without_a_name_is_not_right_and_claims_nothing() -> None:
    figures = ClosedSet([True, False], np.array([1.0, np.nan]), np.arange(2)).figures()
    assert (figures["rank-1"], figures["calibration error"]) == (0.5, 0)
    with pytest.raises(Unresolvable, match="was given a name"):
        ClosedSet([False], np.array([np.nan]), np.arange(1))


def test_persons_are_weighed_by_how_often_they_were_drawn() -> None:
    experiment = ClosedSet([True, False, True], np.array([0.9, 0.9, 0.1]), np.array([0, 1, 2]))
    figures = experiment.figures(np.array([3.0, 1.0, 0.0]))
    assert figures["rank-1"] == 0.75
    assert figures["calibration error"] == pytest.approx(0.15)
    # Nobody of the lowest bin was drawn.
    assert np.isnan(figures["reliability"][0])
    assert np.isnan(experiment.figures(np.zeros(3))["rank-1"])
