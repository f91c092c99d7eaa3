from itertools import product

import numpy as np
import pytest

from app.decision.assignment import assign


def test_the_best_pair_is_not_always_taken() -> None:
    # The first face prefers person 0, but the second has nobody else.
    assert assign(np.array([[0.30, 0.25], [0.20, -0.10]])).tolist() == [1, 0]


def test_what_gains_nothing_is_left_out() -> None:
    assert assign(np.array([[0.3, -0.1], [0.5, -np.inf], [-0.2, -0.1]])).tolist() == [-1, 0, -1]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_assign(shape: tuple[int, int]) -> None:
    assert assign(np.zeros(shape)).tolist() == [-1] * shape[0]


def test_no_other_assignment_gains_more() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        faces, persons = rng.integers(1, 5), rng.integers(1, 6)
        gains = 0.3 * rng.standard_normal((faces, persons))

        def total(columns: tuple[int, ...], gains: np.ndarray = gains) -> float:
            taken = [column for column in columns if column >= 0]
            if len(set(taken)) < len(taken):
                return -1.0
            return sum(gains[face, column] for face, column in enumerate(columns) if column >= 0)

        best = max(map(total, product(range(-1, persons), repeat=faces)))
        assert total(tuple(assign(gains).tolist())) == pytest.approx(best)
