from itertools import combinations_with_replacement

import numpy as np
import pytest

from tests.unit.training.evaluation.population import populate
from training.evaluation.bootstrap import Means, draws, interval, resample
from training.evaluation.verification import Verification, all_pairs, distances


def verification(vectors: np.ndarray, labels: np.ndarray) -> Verification:
    first, second = all_pairs(labels, seed=0)
    one, other = labels[first], labels[second]
    return Verification(distances(vectors, first, second, "cosine"), one == other, (one, other))


def test_a_draw_holds_as_many_persons_as_there_are() -> None:
    weights = draws(30, 2000, seed=1)
    assert (weights.sum(axis=1) == 30).all()
    # A person is left out with a chance of 1 / e.
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 30) ** 30, abs=0.01)


def test_a_person_drawn_twice_counts_twice_and_is_not_compared_with_the_copy() -> None:
    vectors, labels = populate(0, persons=12)
    weights = np.array([2.0, 0, 1, 3, 1, 0, 1, 1, 0, 2, 1, 0])
    resampled = verification(vectors, labels).figures(weights)

    similarity = vectors @ vectors.T
    blocks = []
    for person, another in combinations_with_replacement(range(12), 2):
        pairs = similarity[np.ix_(labels == person, labels == another)]
        if person == another:
            pairs, count = pairs[np.triu_indices(4, 1)], weights[person]
        else:
            count = weights[person] * weights[another]
        blocks += [(1 - pairs.ravel(), person == another)] * int(count)
    distance = np.concatenate([pairs for pairs, _ in blocks])
    same = np.concatenate([np.full(len(pairs), mated) for pairs, mated in blocks])
    expected = Verification(distance, same).figures()
    for name in ("auc", "eer", "d-prime", "overlap", "intra-class mean", "inter-class sd"):
        assert resampled[name] == pytest.approx(expected[name], rel=1e-5), name


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = verification(*populate(99, persons=1500)).figures()["eer"]
    assert isinstance(truth, float)
    held = {"persons": 0, "pairs": 0}
    trials = 120
    for seed in range(trials):
        found = verification(*populate(seed, persons=30))
        low, high = interval(resample(found, draws(30, 100, seed))["eer"])
        held["persons"] += bool(low <= truth <= high)
        # Drawing pairs as if each were of people of their own.
        alone = np.arange(len(found.distances))
        naive = Verification(found.distances, found.same, (alone, alone))
        low, high = interval(resample(naive, draws(len(alone), 25, seed))["eer"])
        held["pairs"] += bool(low <= truth <= high)
    assert 0.89 <= held["persons"] / trials <= 0.99
    assert held["pairs"] < held["persons"]


def test_two_models_are_compared_more_sharply_on_the_same_persons() -> None:
    vectors, labels = populate(5, persons=100)
    noise = np.random.default_rng(0).standard_normal(vectors.shape)
    worse = vectors + 0.06 * noise.astype(np.float32)
    worse /= np.linalg.norm(worse, axis=1, keepdims=True)
    weights = draws(100, 200, seed=0)
    a, b = (resample(verification(v, labels), weights)["eer"] for v in (vectors, worse))
    low, high = interval(a - b)
    assert high < 0
    # Either interval alone reaches well into the other.
    assert interval(a)[1] > interval(b)[0]
    assert high - low < 0.5 * (interval(a)[1] - interval(a)[0])


def test_means_are_weighted_by_person() -> None:
    means = Means({"x": [True, False, True, True]}, np.array([0, 0, 1, 2]))
    assert means.figures() == {"x": 0.75}
    assert means.figures(np.array([2.0, 1.0, 0.0])) == {"x": pytest.approx(3 / 5)}
    assert np.isnan(means.figures(np.zeros(3))["x"])


def test_an_interval_passes_over_draws_without_a_value() -> None:
    low, high = interval(np.append(np.linspace(0, 1, 101), np.nan))
    assert (low, high) == (pytest.approx(0.025), pytest.approx(0.975))
