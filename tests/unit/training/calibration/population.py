import numpy as np


def population(persons: int, faces: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors scattered about a direction for each person: (n, 32) float32, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(persons), faces)
    vectors = rng.standard_normal((persons, 32))[labels] + 0.4 * rng.standard_normal(
        (persons * faces, 32)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels
