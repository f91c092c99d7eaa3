"""Every loss against its formula, written out plainly: value, and gradients by differences.

The formulas are of one batch in float64: x (n, d) embeddings, y (n,) persons, w (classes, d)
weights, b (classes,) biases. They share nothing with the code under test.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from training.losses import LOSSES, Loss, build

Array = np.ndarray
N, D, CLASSES = 8, 3, 4
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def cross_entropy(logits: Array, y: Array) -> float:
    total = 0.0
    for row, person in zip(logits, y, strict=True):
        total += math.log(sum(math.exp(z - row[person]) for z in row))
    return total / len(y)


def unit(vectors: Array) -> Array:
    return vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True))


def angular(x: Array, y: Array, w: Array, own: Callable[[float], float], scale: Array) -> float:
    """Cross-entropy of scale times the cosines, that of the own person changed by `own`."""
    cosines = unit(x) @ unit(w).T
    for i, person in enumerate(y):
        cosines[i, person] = own(math.acos(cosines[i, person]))
    return cross_entropy(scale[:, None] * cosines, y)


def softmax(x: Array, y: Array, w: Array, b: Array) -> float:
    return cross_entropy(x @ w.T + b, y)


def center(x: Array, y: Array, w: Array, b: Array, centers: Array) -> float:
    pull = sum(0.5 * ((x[i] - centers[person]) ** 2).sum() for i, person in enumerate(y))
    return softmax(x, y, w, b) + 0.003 * pull / len(y)


def normalised_softmax(x: Array, y: Array, w: Array) -> float:
    return angular(x, y, w, math.cos, np.full(len(x), 20.0))


def cosface(x: Array, y: Array, w: Array) -> float:
    return angular(x, y, w, lambda theta: math.cos(theta) - 0.35, np.full(len(x), 64.0))


def arcface(x: Array, y: Array, w: Array) -> float:
    def own(theta: float) -> float:
        if theta + 0.5 <= math.pi:
            return math.cos(theta + 0.5)
        return math.cos(theta) - 0.5 * math.sin(0.5)

    return angular(x, y, w, own, np.full(len(x), 64.0))


def subcenter_arcface(x: Array, y: Array, w: Array) -> float:
    """w (classes * 3, d): the three of a person lie one after the other."""
    total = 0.0
    for one, person in zip(x, y, strict=True):
        nearest = [
            max(w[3 * j : 3 * j + 3], key=lambda v: v @ one / math.sqrt(v @ v))
            for j in range(CLASSES)
        ]
        total += arcface(one[None], np.array([person]), np.array(nearest))
    return total / len(y)


def a_softmax(x: Array, y: Array, w: Array, annealing: float) -> float:
    def own(theta: float) -> float:
        k = next(k for k in range(4) if k * math.pi / 4 <= theta <= (k + 1) * math.pi / 4)
        psi = (-1) ** k * math.cos(4 * theta) - 2 * k
        return (annealing * math.cos(theta) + psi) / (1 + annealing)

    return angular(x, y, w, own, np.sqrt((x**2).sum(axis=1)))


DISTANCES: dict[str, Callable[[Array, Array], float]] = {
    "euclidean": lambda a, b: math.sqrt(((a - b) ** 2).sum()),
    "squared-euclidean": lambda a, b: float(((a - b) ** 2).sum()),
    "manhattan": lambda a, b: float(abs(a - b).sum()),
    "cosine": lambda a, b: 1 - float(a @ b) / math.sqrt((a @ a) * (b @ b)),
}


def contrastive(x: Array, y: Array, distance: str, margin: float) -> float:
    total = 0.0
    for i in range(len(x)):
        for j in range(i):
            between = DISTANCES[distance](x[i], x[j])
            if y[i] == y[j]:
                total += 0.5 * between**2
            else:
                total += 0.5 * max(0.0, margin - between) ** 2
    return total / len(x)


def triplets(x: Array, y: Array, distance: str, margin: float) -> float:
    values = [
        DISTANCES[distance](x[a], x[p]) - DISTANCES[distance](x[a], x[n]) + margin
        for a in range(len(x))
        for p in range(len(x))
        for n in range(len(x))
        if a != p and y[a] == y[p] != y[n]
    ]
    beyond = [value for value in values if value > 0]
    return sum(beyond) / len(beyond)


def slope(function: Callable[[Array], float], at: Array) -> Array:
    """Gradient by central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-6
        gradient[index] = (function(at + step) - function(at - step)) / 2e-6
    return gradient


def batch() -> tuple[Array, torch.Tensor, torch.Tensor]:
    x = 2 * np.random.default_rng(0).normal(size=(N, D))
    return x, torch.tensor(x, requires_grad=True), torch.from_numpy(LABELS)


def make(name: str, **parameters: Any) -> Loss:
    torch.manual_seed(1)
    return build(name, dimension=D, classes=CLASSES, **parameters).double()


def close(got: torch.Tensor | None, expected: Array | float) -> None:
    assert got is not None
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-6, atol=1e-6)


# The loss, how far the training is, and the formula of embeddings, persons and weights.
ANGULAR = [
    ("normalised-softmax", 0.0, normalised_softmax),
    ("cosface", 0.0, cosface),
    ("arcface", 0.0, arcface),
    ("subcenter-arcface", 0.0, subcenter_arcface),
    ("a-softmax", 0.0, lambda x, y, w: a_softmax(x, y, w, 1000.0)),
    ("a-softmax", 1.0, lambda x, y, w: a_softmax(x, y, w, 5.0)),
]


@pytest.mark.parametrize(("name", "fraction", "formula"), ANGULAR)
def test_losses_of_angles(name: str, fraction: float, formula: Any) -> None:
    loss = make(name)
    loss.progress(fraction)
    (parameter,) = loss.parameters()
    by_class = name == "a-softmax"  # the library keeps its weights as columns
    w = (parameter if by_class else parameter.T).detach().numpy().copy()
    x, embeddings, labels = batch()
    # One face on the far side, where A-Softmax and ArcFace have another branch.
    x[0] = 0.1 - 3 * w[0]
    with torch.no_grad():
        embeddings[0] = torch.from_numpy(x[0])

    value = loss(embeddings, labels)
    value.backward()
    close(value, formula(x, LABELS, w))
    close(embeddings.grad, slope(lambda at: formula(at, LABELS, w), x))
    gradient = parameter.grad if by_class else parameter.grad.T
    close(gradient, slope(lambda at: formula(x, LABELS, at), w))


def test_softmax() -> None:
    loss = make("softmax")
    x, embeddings, labels = batch()
    w, b = (p.detach().numpy().copy() for p in loss.parameters())

    value = loss(embeddings, labels)
    value.backward()
    close(value, softmax(x, LABELS, w, b))
    close(embeddings.grad, slope(lambda at: softmax(at, LABELS, w, b), x))
    close(loss.linear.weight.grad, slope(lambda at: softmax(x, LABELS, at, b), w))
    close(loss.linear.bias.grad, slope(lambda at: softmax(x, LABELS, w, at), b))


def test_center_loss() -> None:
    loss = make("center")
    x, embeddings, labels = batch()
    w, b = (p.detach().numpy().copy() for p in loss.parameters())
    centers = np.random.default_rng(2).normal(size=(CLASSES, D))
    loss.centers.copy_(torch.from_numpy(centers))

    value = loss(embeddings, labels)
    value.backward()
    close(value, center(x, LABELS, w, b, centers))
    close(embeddings.grad, slope(lambda at: center(at, LABELS, w, b, centers), x))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    ("distance", "margin"), [("euclidean", math.sqrt(2)), ("manhattan", math.sqrt(12 / math.pi))]
)
def test_contrastive_loss(distance: str, margin: float, normalise: bool) -> None:
    def formula(at: Array) -> float:
        return contrastive(unit(at) if normalise else at, LABELS, distance, margin)

    x, embeddings, labels = batch()
    value = make("contrastive", distance=distance, normalise=normalise)(embeddings, labels)
    value.backward()
    close(value, formula(x))
    close(embeddings.grad, slope(formula, x))


def test_contrastive_loss_of_the_cosine() -> None:
    x, embeddings, labels = batch()
    value = make("contrastive", distance="cosine")(embeddings, labels)
    value.backward()
    close(value, contrastive(x, LABELS, "cosine", 1.0))
    close(embeddings.grad, slope(lambda at: contrastive(at, LABELS, "cosine", 1.0), x))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    ("distance", "margin"),
    [
        ("euclidean", 0.2),
        ("squared-euclidean", 0.2),
        ("manhattan", 0.2 * math.sqrt(6 / math.pi)),
        ("cosine", 0.1),
    ],
)
def test_triplet_loss(distance: str, margin: float, normalise: bool) -> None:
    def formula(at: Array) -> float:
        return triplets(unit(at) if normalise else at, LABELS, distance, margin)

    x, embeddings, labels = batch()
    loss = make("triplet", mining="all", distance=distance, normalise=normalise)
    value = loss(embeddings, labels)
    value.backward()
    close(value, formula(x))
    close(embeddings.grad, slope(formula, x))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_stays_outside(name: str) -> None:
    loss = build(name, dimension=64, classes=CLASSES).eval()
    embeddings = torch.randn(N, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.from_numpy(LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(embeddings, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(embeddings.float(), labels))
