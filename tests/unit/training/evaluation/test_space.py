"""Classification and separation."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from tests.unit.training.evaluation.population import populate
from training.errors import Unresolvable
from training.evaluation.classification import classify
from training.evaluation.separation import silhouettes


def test_persons_in_separate_places_are_all_named() -> None:
    vectors, labels = populate(0, persons=20, faces=6, noise=0.05)
    assert classify(vectors, labels, seed=0).figures() == {"kNN": 1, "linear classifier": 1}


def test_labels_without_meaning_are_guessed() -> None:
    vectors, labels = populate(0, persons=20, faces=10)
    labels = np.random.default_rng(0).permutation(labels)
    figures = classify(vectors, labels, seed=0).figures()
    assert max(figures.values()) < 0.15


def test_planes_separate_what_distances_do_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    # One short axis tells the two apart, two long ones do not.
    vectors = np.concatenate(
        [rng.uniform(-1, 1, (80, 2)), rng.normal(0.05 * (2 * labels - 1), 0.01)[:, None]], axis=1
    )
    figures = classify(vectors.astype(np.float32), labels, seed=0).figures()
    assert figures["linear classifier"] == 1
    assert figures["kNN"] < 0.9


def test_only_persons_with_four_faces_take_part() -> None:
    vectors, labels = populate(0, persons=3, faces=3)
    with pytest.raises(Unresolvable, match="0 persons with 4 faces"):
        classify(vectors, labels, seed=0)


def test_the_silhouette_is_one_for_points_and_negative_among_others() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    labels = np.repeat([0, 1, 2], 2)
    assert silhouettes(points, labels).figures()["silhouette"] == pytest.approx(1)
    mixed = np.array([0, 1, 1, 2, 2, 0])
    assert silhouettes(points, mixed).figures()["silhouette"] < 0


def test_the_silhouette_goes_with_the_one_of_all_distances() -> None:
    ours, theirs = [], []
    for noise in (0.2, 0.4, 0.6, 0.8, 1.0):
        vectors, labels = populate(0, persons=12, faces=8, noise=noise)
        ours.append(silhouettes(vectors, labels).figures()["silhouette"])
        theirs.append(silhouette_samples(vectors, labels, metric="cosine").mean())
    assert (np.diff(ours) < 0).all()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def test_the_silhouette_needs_somebody_with_two_faces() -> None:
    with pytest.raises(Unresolvable, match="two persons"):
        silhouettes(np.eye(3, dtype=np.float32), np.arange(3))
