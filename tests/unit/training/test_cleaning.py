import numpy as np

from training.cleaning import inspect_labels


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
