"""Which triplets count, on four faces on a line: 0 and 1 of one person, 1.5 and 4 of another.

With plain distances and a margin of 1 there are eight triplets; d(a, p) - d(a, n) + 1 is

    a = 0    p = 1    n = 1.5     0.5   semi-hard
    a = 0    p = 1    n = 4      -2.0
    a = 1    p = 0    n = 1.5     1.5   hard
    a = 1    p = 0    n = 4      -1.0
    a = 1.5  p = 4    n = 0       2.0   hard
    a = 1.5  p = 4    n = 1       3.0   hard, the hardest of its anchor
    a = 4    p = 1.5  n = 0      -0.5
    a = 4    p = 1.5  n = 1       0.5   semi-hard
"""

from typing import Any

import pytest
import torch

from training.losses import build

FACES = torch.tensor([[0.0], [1.0], [1.5], [4.0]])
PERSONS = torch.tensor([0, 0, 1, 1])


def triplet(mining: str) -> Any:
    return build(
        "triplet",
        dimension=1,
        classes=2,
        margin=1.0,
        mining=mining,
        distance="euclidean",
        normalise=False,
    )


@pytest.mark.parametrize(
    ("mining", "chosen"),
    [
        ("all", [0.5, 1.5, 2.0, 3.0, 0.5]),
        ("semihard", [0.5, 0.5]),
        ("hard", [1.5, 2.0, 3.0]),
        ("batch-hard", [0.5, 1.5, 3.0, 0.5]),
    ],
)
def test_mining_chooses(mining: str, chosen: list[float]) -> None:
    value = triplet(mining)(FACES, PERSONS)
    assert float(value) == pytest.approx(sum(chosen) / len(chosen))


def test_random_triplets_are_one_for_each_anchor_easy_ones_too() -> None:
    torch.manual_seed(0)
    loss = triplet("random")
    values = [float(loss(FACES, PERSONS)) for _ in range(500)]
    possible = {
        (a + b + c + d) / 4 for a in (0.5, 0) for b in (1.5, 0) for c in (2, 3) for d in (0, 0.5)
    }
    assert set(values) == possible
    assert sum(values) / 500 == pytest.approx((0.25 + 0.75 + 2.5 + 0.25) / 4, abs=0.03)


def test_random_triplets_follow_the_seed() -> None:
    loss = triplet("random")
    torch.manual_seed(7)
    first = [float(loss(FACES, PERSONS)) for _ in range(10)]
    torch.manual_seed(7)
    assert [float(loss(FACES, PERSONS)) for _ in range(10)] == first


@pytest.mark.parametrize("mining", ["all", "semihard", "hard", "batch-hard", "random"])
@pytest.mark.parametrize("persons", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_a_batch_without_triplets_changes_nothing(mining: str, persons: list[int]) -> None:
    faces = FACES.clone().requires_grad_()
    value = triplet(mining)(faces, torch.tensor(persons))
    value.backward()
    assert value.item() == 0
    assert faces.grad is not None
    assert not faces.grad.any()


@pytest.mark.parametrize("persons", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_contrastive_loss_does_with_one_kind_of_pair(persons: list[int]) -> None:
    faces = torch.nn.functional.normalize(torch.randn(4, 2)).requires_grad_()
    loss = build("contrastive", dimension=2, classes=4, margin=3.0)
    value = loss(faces, torch.tensor(persons))
    value.backward()
    assert value.item() > 0
    assert faces.grad is not None
    assert faces.grad.isfinite().all()
