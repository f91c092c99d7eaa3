import numpy as np
import pytest

from training.data import first_faces, split_persons
from training.errors import TooFewPersons

LABELS = np.repeat(np.arange(50), np.arange(1, 51))


def test_persons_are_on_one_side_with_all_their_faces() -> None:
    train, held = split_persons(LABELS, 0.2, seed=3)
    assert sorted([*train, *held]) == list(range(len(LABELS)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(held) > 0)
    assert not set(LABELS[train]) & set(LABELS[held])
    assert len(set(LABELS[held])) == 10


def test_the_seed_decides() -> None:
    first, again, other = (split_persons(LABELS, 0.2, seed)[1].tolist() for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("share", "held_persons"), [(0.01, 2), (0.99, 2)])
def test_either_side_keeps_two_persons(share: float, held_persons: int) -> None:
    labels = np.array([0, 0, 1, 2, 3])
    train, held = split_persons(labels, share, seed=0)
    assert len(set(labels[held])) == held_persons
    assert len(set(labels[train])) == 4 - held_persons


def test_three_persons_cannot_be_split() -> None:
    with pytest.raises(TooFewPersons, match=r"3 person\(s\)"):
        split_persons(np.array([0, 1, 2, 2]), 0.5, seed=0)


def test_the_first_faces_of_everybody_in_their_order() -> None:
    labels = np.array([2, 0, 2, 2, 1, 0, 2])
    assert first_faces(labels, 2).tolist() == [0, 1, 2, 4, 5]
    assert first_faces(labels, 9).tolist() == list(range(7))
