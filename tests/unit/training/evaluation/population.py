"""People made up for evaluation: who has which faces, and embeddings of them."""

import numpy as np


def populate(
    seed: int, persons: int = 40, faces: int = 4, dimension: int = 16, noise: float = 0.8
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a random direction for each person, some of whom vary more.

    Returns:
        (n, dimension) float32, and the person of each.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(persons), faces)
    centres = rng.standard_normal((persons, dimension))
    spread = noise * rng.gamma(4, 1 / 4, persons)
    vectors = centres[labels] + spread[labels, None] * rng.standard_normal((len(labels), dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels
