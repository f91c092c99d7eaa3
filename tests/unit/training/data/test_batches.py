from collections import Counter

import numpy as np
import pytest

from training.data import PersonBatches, ShuffledBatches
from training.errors import TooFewPersons

# From two to forty faces, and three persons with one; not in order.
COUNTS = [1, 1, 1, 2, 2, 3, 4, 5, 7, 9, 12, 20, 40]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: ShuffledBatches(LABELS, 16, seed),
        lambda seed: PersonBatches(LABELS, 4, 3, seed),
    ],
    ids=["shuffled", "person"],
)
def test_batches_follow_from_seed_and_epoch_alone(make) -> None:
    batches = make(1)
    later = batches.batches(5)
    assert same(later, make(1).batches(5))
    assert same(later, batches.batches(5))
    assert not same(later, batches.batches(6))
    assert not same(later, make(2).batches(5))


def test_shuffled_batches_show_every_face_once_but_for_a_rest() -> None:
    batches = ShuffledBatches(LABELS, 16, seed=0)
    epoch = batches.batches(0)
    shown = Counter(np.concatenate(epoch).tolist())
    assert {len(batch) for batch in epoch} == {16}
    assert len(epoch) == len(LABELS) // 16
    assert max(shown.values()) == 1
    everything = {face for n in range(20) for batch in batches.batches(n) for face in batch}
    assert everything == set(range(len(LABELS)))


def test_fewer_faces_than_a_batch_make_one() -> None:
    [batch] = ShuffledBatches(np.array([0, 1, 1]), 16, seed=0).batches(0)
    assert sorted(batch) == [0, 1, 2]


def test_a_batch_holds_p_persons_with_k_faces() -> None:
    batches = PersonBatches(LABELS, persons=4, faces=3, seed=0)
    assert batches.left_out.tolist() == [0, 1, 2]
    for batch in batches.batches(0):
        persons = LABELS[batch].reshape(4, 3)
        assert np.all(persons == persons[:, :1])
        assert len(set(persons[:, 0])) == 4
        for group in batch.reshape(4, 3):
            assert len(set(group)) == min(3, COUNTS[LABELS[group[0]]])


def test_an_epoch_of_persons_shows_each_face_about_once() -> None:
    counts = np.random.default_rng(1).integers(2, 30, 100)
    labels = np.repeat(np.arange(100), counts)
    epoch = PersonBatches(labels, persons=8, faces=4, seed=0).batches(0)
    shown = Counter(np.concatenate(epoch).tolist())
    large = [face for face, person in enumerate(labels) if counts[person] >= 4]
    assert max(shown[face] for face in large) == 1
    whole_groups = sum(count // 4 * 4 for count in counts if count >= 4)
    assert sum(shown[face] for face in large) > 0.97 * whole_groups


def test_a_person_with_most_of_the_faces_does_not_fill_a_batch() -> None:
    labels = np.repeat(np.arange(11), [5000] + [20] * 10)
    epoch = PersonBatches(labels, persons=4, faces=4, seed=0).batches(0)
    assert all(len(set(labels[batch])) == 4 for batch in epoch)
    # Three others are needed beside them in each batch, and there are 50 groups of those.
    assert 12 <= len(epoch) <= 50 // 3
    others = np.concatenate(epoch)
    assert len(set(others[labels[others] > 0])) > 150


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(TooFewPersons, match=r"1 person\(s\)"):
        ShuffledBatches(np.zeros(8, np.int64), 4, seed=0)
    with pytest.raises(TooFewPersons, match=r"there are 2 \(and 1 with one\)"):
        PersonBatches(np.array([0, 0, 1, 1, 2]), persons=3, faces=2, seed=0)
