"""Losses that compare the faces of a batch with each other, and know no classes.

Distances are of embeddings brought to unit length, as the service compares them, unless
`normalise` is switched off. (Schroff et al. normalise; Hadsell et al. and Hermans et al. leave
embeddings as they are.) Between unit vectors a and b:

    euclidean            |a - b|_2           0 to 2
    squared-euclidean    |a - b|_2^2         0 to 4, = 2 - 2 cos
    cosine               1 - a . b           0 to 2
    manhattan            |a - b|_1           0 to 2 sqrt(d); about sqrt(2 d / pi) euclidean
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pytorch_metric_learning import distances, miners, reducers
from pytorch_metric_learning import losses as pml
from torch import Tensor
from torch.nn import functional

from training.losses.base import Loss, Positive

Distance = Literal["euclidean", "squared-euclidean", "cosine", "manhattan"]
Mining = Literal["all", "semihard", "hard", "batch-hard", "random"]


class _Cosine(distances.BaseDistance):  # type: ignore[misc]
    """1 - cos: small for similar ones, unlike `CosineSimilarity`."""

    def compute_mat(self, a: Tensor, b: Tensor) -> Tensor:
        return 1 - functional.normalize(a) @ functional.normalize(b).T


class _Manhattan(distances.LpDistance):  # type: ignore[misc]
    """`LpDistance(p=1)` would also normalise with the L1 norm."""

    def normalize(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        return functional.normalize(embeddings, p=2, dim=dim)


def _distance(name: Distance, normalise: bool) -> Any:
    if name == "cosine":
        return _Cosine()
    if name == "manhattan":
        return _Manhattan(p=1, normalize_embeddings=normalise)
    power = 2 if name == "squared-euclidean" else 1
    return distances.LpDistance(p=2, power=power, normalize_embeddings=normalise)


def _manhattan_of(dimension: int) -> float:
    """Manhattan distance where the euclidean one is 1, for a difference in no particular
    direction."""
    return math.sqrt(2 * dimension / math.pi)


class Contrastive(Loss):
    """D^2 / 2 for two faces of one person, max(0, m - D)^2 / 2 for two of different persons,
    summed over all pairs of the batch and divided by its number of faces.

    All pairs count alike, as in the paper, though there are many more of strangers: where the
    two kinds are averaged first, the pull wins and everybody comes close to everybody.

    Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006. The
    paper leaves open what m is.

    Args:
        margin: m; by default the distance of two vectors at a right angle, as those of
            strangers are on average (for manhattan, about that).
        distance: D.
        normalise: bring embeddings to unit length first; the cosine always does.
    """

    batches: ClassVar[Literal["shuffled", "person"]] = "person"

    def __init__(
        self,
        dimension: int,
        classes: int,  # noqa: ARG002
        margin: Positive | None = None,
        distance: Literal["euclidean", "cosine", "manhattan"] = "euclidean",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        default = {
            "euclidean": math.sqrt(2),
            "cosine": 1.0,
            "manhattan": math.sqrt(2) * _manhattan_of(dimension),
        }
        self.margin = margin or default[distance]
        self.distance = _distance(distance, normalise)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        between: Tensor = self.distance(embeddings)
        same = labels[:, None] == labels
        once = torch.ones_like(same).triu(1)
        together = between[same & once].square()
        apart = functional.relu(self.margin - between[~same & once]).square()
        return (together.sum() + apart.sum()) / 2 / len(labels)


class Triplet(Loss):
    """max(0, D(a, p) - D(a, n) + m) for an anchor a, a positive p of the same person and a
    negative n of another.

    Which triplets of the batch count, and are averaged over, is what `mining` says:

        all           every triplet whose loss is not zero
        semihard      the negative is further away than the positive, but by less than m
        hard          the negative is nearer than the positive
        batch-hard    for each anchor its furthest positive and its nearest negative
        random        for each anchor one positive and one negative by chance, zeros
                      included: the baseline that mining has to beat

    Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015
    (squared distances of unit vectors, semi-hard, m = 0.2); Hermans et al., "In Defense of the
    Triplet Loss for Person Re-Identification", 2017 (all, batch-hard; plain distances of raw
    embeddings). FaceNet picks one semi-hard negative for each pair; here all of them count.

    Args:
        margin: m; by default 0.2 for euclidean distances, squared or not, the same for the
            cosine (0.1, of half the range), and about the same for manhattan.
        mining: see above.
        distance: D.
        normalise: bring embeddings to unit length first; the cosine always does.
    """

    batches: ClassVar[Literal["shuffled", "person"]] = "person"

    def __init__(
        self,
        dimension: int,
        classes: int,  # noqa: ARG002
        margin: Positive | None = None,
        mining: Mining = "semihard",
        distance: Distance = "squared-euclidean",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        default = {
            "euclidean": 0.2,
            "squared-euclidean": 0.2,
            "cosine": 0.1,
            "manhattan": 0.2 * _manhattan_of(dimension),
        }
        margin = margin or default[distance]
        measure = _distance(distance, normalise)
        self.miner: Any = None
        if mining in {"semihard", "hard"}:
            self.miner = miners.TripletMarginMiner(margin, mining, distance=measure)
        elif mining == "batch-hard":
            self.miner = miners.BatchHardMiner(distance=measure)
        self.loss = pml.TripletMarginLoss(
            margin,
            distance=measure,
            reducer=reducers.AvgNonZeroReducer() if mining == "all" else reducers.MeanReducer(),
            triplets_per_anchor=1 if mining == "random" else "all",
        )

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        mined = self.miner(embeddings, labels) if self.miner else None
        value: Tensor = self.loss(embeddings, labels, mined)
        return value
