from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.unit.training.evaluation.population import populate
from training.errors import Unresolvable
from training.evaluation.verification import METRICS, Metric, Verification, all_pairs, distances


def rows(first: np.ndarray, second: np.ndarray) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}


def verification(vectors: np.ndarray, labels: np.ndarray, metric: Metric) -> Verification:
    first, second = all_pairs(labels, seed=0)
    one, other = labels[first], labels[second]
    return Verification(distances(vectors, first, second, metric), one == other, (one, other))


@pytest.mark.parametrize(
    ("metric", "name"),
    [("cosine", "cosine"), ("euclidean", "euclidean"), ("manhattan", "cityblock")],
)
def test_distances_are_those_of_scipy(metric: Metric, name: str) -> None:
    vectors, labels = populate(0)
    first, second = all_pairs(labels, seed=0)
    expected = cdist(vectors, vectors, name)[first, second]
    np.testing.assert_allclose(distances(vectors, first, second, metric), expected, atol=1e-6)


def test_cosine_and_euclidean_have_one_roc_and_manhattan_its_own() -> None:
    vectors, labels = populate(0)
    cosine, euclidean, manhattan = (verification(vectors, labels, m).curve for m in METRICS)
    np.testing.assert_array_equal(cosine.fmr, euclidean.fmr)
    np.testing.assert_array_equal(cosine.fnmr, euclidean.fnmr)
    np.testing.assert_allclose(euclidean.threshold[1:], -np.sqrt(-2 * cosine.threshold[1:]))
    assert manhattan.auc() != cosine.auc()


def test_all_pairs_are_made_once() -> None:
    labels = np.array([2, 0, 2, 1, 0, 2])
    first, second = all_pairs(labels, seed=0)
    assert len(first) == 15
    assert rows(first, second) == set(combinations(range(6), 2))


def test_many_impostor_pairs_are_sampled_and_many_faces_of_one_person_too() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [30, 30, 30, 4]))
    first, second = all_pairs(labels, seed=0, faces_per_person=10, impostors=150)
    same = labels[first] == labels[second]
    assert len(rows(first, second)) == len(first)
    assert same.sum() == 3 * 45 + 6
    assert 100 < (~same).sum() <= 150
    assert {np.unique(np.append(first, second)[labels[np.append(first, second)] == p]).size
            for p in range(4)} == {10, 4}  # fmt: skip


def test_impostor_pairs_are_drawn_evenly() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    drawn = np.zeros((3, 3))
    for seed in range(300):
        first, second = all_pairs(labels, seed, faces_per_person=30, impostors=50)
        strange = labels[first] != labels[second]
        np.add.at(drawn, (labels[first[strange]], labels[second[strange]]), 1)
    drawn += drawn.T
    share = drawn[np.triu_indices(3, 1)] / np.triu(drawn, 1).sum()
    np.testing.assert_allclose(share, np.array([200, 300, 600]) / 1100, atol=0.02)


def test_accuracy_is_that_of_ten_folds_worked_out_by_hand() -> None:
    rng = np.random.default_rng(3)
    same = rng.random(400) < 0.5
    distance = np.round(rng.standard_normal(400) + 2 * ~same, 1) + 4
    fold = np.arange(400) % 10
    accuracies = []
    for part in range(10):
        known, asked = fold != part, fold == part
        seen = np.unique(distance[known])
        candidates = np.concatenate([[-1], (seen[1:] + seen[:-1]) / 2, seen[-1:]])
        hits = [((distance[known] <= t) == same[known]).sum() for t in candidates]
        best = candidates[int(np.argmax(hits))]
        accuracies.append(((distance[asked] <= best) == same[asked]).mean())
    found = Verification(distance, same, fold=fold)
    np.testing.assert_allclose(found.fold_accuracies(), accuracies)
    figures = found.figures()
    assert figures["accuracy"] == pytest.approx(np.mean(accuracies))
    assert figures["accuracy error"] == pytest.approx(np.std(accuracies, ddof=1) / 10**0.5)


def test_accuracy_counts_the_pairs_of_persons_as_often_as_they_were_drawn() -> None:
    vectors, labels = populate(0, persons=20)
    first, second = all_pairs(labels, seed=0, impostors=150)
    one, other = labels[first], labels[second]
    distance, fold = distances(vectors, first, second, "cosine"), np.arange(len(first)) % 3
    weights = np.random.default_rng(0).integers(0, 4, 20).astype(float)
    counts = np.where(one == other, weights[one], weights[one] * weights[other]).astype(int)
    repeated = np.repeat(np.arange(len(first)), counts)
    resampled = Verification(distance, one == other, (one, other), fold)
    expected = Verification(distance[repeated], (one == other)[repeated], fold=fold[repeated])
    np.testing.assert_allclose(resampled.fold_accuracies(weights), expected.fold_accuracies())


def test_where_no_threshold_helps_nothing_is_accepted() -> None:
    # In either fold the nearest pairs are strangers.
    found = Verification(
        np.array([1.0, 2, 3, 1, 2, 3]),
        np.array([False, False, True] * 2),
        fold=np.repeat([0, 1], 3),
    )
    np.testing.assert_allclose(found.fold_accuracies(), 2 / 3)


def test_one_fold_is_no_cross_validation() -> None:
    with pytest.raises(Unresolvable, match="at least two"):
        Verification(np.array([1.0, 2.0]), np.array([True, False]), fold=np.zeros(2, int))


def test_the_distributions_are_summarised() -> None:
    rng = np.random.default_rng(4)
    intra, inter = rng.normal(1, 0.1, 500), rng.normal(2, 0.3, 4000)
    same = np.arange(4500) < 500
    figures = Verification(np.append(intra, inter), same).figures()
    assert figures["intra-class mean"] == pytest.approx(intra.mean())
    assert figures["inter-class sd"] == pytest.approx(inter.std())
    pooled = ((intra.var() + inter.var()) / 2) ** 0.5
    assert figures["d-prime"] == pytest.approx((inter.mean() - intra.mean()) / pooled)
    assert figures["intra / inter"] == pytest.approx(intra.mean() / inter.mean())


def test_a_threshold_is_the_largest_distance_that_matches() -> None:
    found = verification(*populate(0), "cosine")
    limit, figures = found.thresholds["tar@far=1e-02"], found.figures()
    assert (found.distances[found.same] <= limit).mean() == figures["tar@far=1e-02"]
    assert (found.distances[~found.same] <= limit).mean() <= 1e-2


def test_rates_that_are_not_resolved_are_named_with_the_reason() -> None:
    found = verification(*populate(0), "cosine")  # 12,480 impostor pairs
    assert set(found.unresolved) == {"tar@far=1e-04"}
    assert "12,480" in found.unresolved["tar@far=1e-04"]
    assert "tar@far=1e-04" not in found.figures()
    assert found.axes["tar"][0] == pytest.approx(10 / 12480)


def test_faces_that_are_all_alike_have_no_d_prime() -> None:
    vectors = np.tile(np.float32([1, 0]), (6, 1))
    figures = verification(vectors, np.repeat([0, 1], 3), "cosine").figures()
    assert np.isnan(figures["d-prime"])
    assert np.isnan(figures["intra / inter"])
