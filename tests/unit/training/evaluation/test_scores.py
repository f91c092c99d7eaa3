import numpy as np
import pytest
from pyeer import eer_stats
from sklearn.metrics import roc_auc_score, roc_curve

from training.errors import Unresolvable
from training.evaluation.scores import Scores


def drawn(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, which are genuine, and how often each counts."""
    rng = np.random.default_rng(seed)
    genuine = rng.random(3000) < 0.3
    scores = rng.standard_normal(3000) + 1.5 * genuine
    return np.round(scores, 1) if ties else scores, genuine, rng.integers(0, 4, 3000).astype(float)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_the_one_of_scikit_learn(ties: bool) -> None:
    scores, genuine, _ = drawn(0, ties)
    curve = Scores(scores, genuine).curve()
    fmr, tmr, threshold = roc_curve(genuine, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.fmr, fmr)
    np.testing.assert_allclose(1 - curve.fnmr, tmr)
    np.testing.assert_array_equal(curve.threshold, threshold)
    assert curve.auc() == pytest.approx(roc_auc_score(genuine, scores), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_weights_count_a_comparison_several_times_or_not_at_all(ties: bool) -> None:
    scores, genuine, weights = drawn(1, ties)
    sorted_once = Scores(scores, genuine)
    weighted = sorted_once.curve(weights[sorted_once.order])
    often = np.repeat(np.arange(len(scores)), weights.astype(int))
    repeated = Scores(scores[often], genuine[often]).curve()
    assert weighted.auc() == pytest.approx(repeated.auc(), abs=1e-12)
    assert weighted.eer() == pytest.approx(repeated.eer(), abs=1e-12)
    assert weighted.overlap() == pytest.approx(repeated.overlap(), abs=1e-12)
    for far in (0.3, 0.1, 0.017):
        assert weighted.tar_at_far(far) == pytest.approx(repeated.tar_at_far(far), abs=1e-12)


@pytest.mark.parametrize(
    ("genuine", "impostor", "eer"),
    [
        ([4, 3, 2, 0.5], [1, 0.4, 0.3, 0.2], 1 / 4),
        ([3, 1], [2, 0, 0], 1 / 3),
        ([2, 1], [1, 0], 1 / 4),
        ([2, 1], [0, 0], 0),
        ([0, 0], [1, 2], 1),
    ],
    ids=["met exactly", "on a step", "within a tie", "separable", "upside down"],
)
def test_the_eer_lies_where_the_curve_meets_the_diagonal(
    genuine: list[float], impostor: list[float], eer: float
) -> None:
    same = [True] * len(genuine) + [False] * len(impostor)
    assert Scores(genuine + impostor, same).curve().eer() == pytest.approx(eer)


@pytest.mark.parametrize("seed", range(5))
def test_the_eer_lies_within_the_bounds_of_pyeer(seed: int) -> None:
    scores, genuine, _ = drawn(seed, ties=seed % 2 == 0)
    _, fmr, fnmr = eer_stats.calculate_roc(scores[genuine], scores[~genuine])
    _, low, high, _ = eer_stats.get_eer_values(fmr, fnmr)
    assert low - 1e-12 <= Scores(scores, genuine).curve().eer() <= high + 1e-12


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("far", [0.2, 0.05, 0.0101])
def test_tar_at_far_is_the_most_that_any_threshold_within_far_accepts(
    ties: bool, far: float
) -> None:
    scores, genuine, _ = drawn(2, ties)
    curve = Scores(scores, genuine).curve()
    within = [t for t in scores if (scores[~genuine] >= t).mean() <= far]
    assert curve.tar_at_far(far) == pytest.approx(
        max((scores[genuine] >= t).mean() for t in within)
    )
    assert curve.threshold_at_far(far) == min(within)


def test_a_rate_is_refused_below_ten_expected_false_matches() -> None:
    same = np.arange(1100) < 100
    curve = Scores(np.linspace(1, 0, 1100), same).curve()
    assert curve.tar_at_far(0.01) == 1
    with pytest.raises(Unresolvable, match="1,000 impostor comparisons would give 9"):
        curve.tar_at_far(0.009)
    assert curve.tar_at_far(0.009, expected=9) == 1


def test_scores_of_one_kind_have_no_error_rates() -> None:
    with pytest.raises(Unresolvable, match="2 genuine and 0 impostor"):
        Scores([1, 2], [True, True])


def test_a_resample_without_impostors_has_no_figures() -> None:
    curve = Scores([2, 1, 0], [True, False, True]).curve(np.array([1.0, 0.0, 1.0]))
    assert np.isnan([curve.auc(), curve.eer(), curve.tar_at_far(0.5, expected=0)]).all()
