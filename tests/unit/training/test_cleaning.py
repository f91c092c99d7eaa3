import numpy as np

from training.cleaning import believable, inspect_labels


def test_wrong_labels_and_doubles_are_found() -> None:
    """Persons 0 to 5, ten faces each; 4 and 5 are one; three faces are wrong."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((7, 64))
    means[5] = means[4]
    labels = np.repeat(np.arange(6), 10)
    shown = labels.copy()
    shown[[3, 17]] = 2, 0  # somebody else of the set
    shown[25] = 6  # a stranger
    embeddings = means[shown] + 0.5 * rng.standard_normal((60, 64))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    good, same = inspect_labels(embeddings.astype(np.float32), labels)
    assert np.flatnonzero(~good).tolist() == [3, 17, 25]
    assert [tuple(pair) for pair in np.argwhere(np.triu(same, 1))] == [(4, 5)]


def test_neither_strays_nor_a_person_under_two_names_is_kept() -> None:
    persons = np.eye(5, dtype=np.float32)
    labels = np.array([0] * 6 + [1] * 4 + [2] * 5)
    vectors = persons[[0] * 6 + [0] * 4 + [2] * 4 + [3]]
    assert np.flatnonzero(believable(vectors, labels, least=2)).tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
        10,
        11,
        12,
        13,
    ]
