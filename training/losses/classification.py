"""Losses that learn a weight vector for each person, and compare embeddings with those.

x is an embedding, y its person, W_j the weights of person j, theta_j the angle between x and W_j,
s a scale, m a margin. All are the cross-entropy of logits z_j,

    L = -log( exp(z_y) / sum_j exp(z_j) ),

averaged over the batch, and differ in the logits:

    softmax               z_j = W_j . x + b_j
    normalised softmax    z_j = s cos(theta_j)
    A-Softmax             z_j = |x| cos(theta_j)     z_y = |x| psi(theta_y)
    CosFace               z_j = s cos(theta_j)       z_y = s (cos(theta_y) - m)
    ArcFace               z_j = s cos(theta_j)       z_y = s cos(theta_y + m)
    sub-center ArcFace    as ArcFace, theta_j to the nearest of K weight vectors of person j

Center loss is softmax and a pull towards the mean of the person.
"""

import math
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.utils.common_functions import TorchInitWrapper
from torch import Tensor, nn
from torch.nn import functional

from training.losses.base import Loss, Positive, Share


class Softmax(Loss):
    """z_j = W_j . x + b_j, neither W nor x normalised.

    With class means it starts as the classifier of the nearest mean: z_j = -|x - mean_j|^2 / 2
    but for a term that is the same for all j.
    """

    def __init__(self, dimension: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dimension, classes)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self.linear(embeddings), labels)

    @torch.no_grad()
    def initialise(self, class_means: Tensor) -> None:
        self.linear.weight.copy_(class_means)
        self.linear.bias.copy_(-class_means.square().sum(dim=1) / 2)


class Center(Loss):
    """Softmax, and faces drawn to the center of their person:

        L = L_softmax + weight / 2 |x - c_y|^2

    on raw embeddings. Centers are no parameters: after each batch, those of its n_j faces of
    person j move by alpha sum_i (x_i - c_j) / (1 + n_j).

    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016
    (weight is its lambda).
    """

    centers: Tensor

    def __init__(
        self, dimension: int, classes: int, weight: Positive = 0.003, alpha: Share = 0.5
    ) -> None:
        super().__init__()
        self.softmax = Softmax(dimension, classes)
        self.weight = weight
        self.alpha = alpha
        self.register_buffer("centers", torch.zeros(classes, dimension))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        own = self.centers[labels]
        pull = (embeddings - own).square().sum(dim=1).mean() / 2
        if self.training:
            self._move(embeddings.detach() - own, labels)
        return self.softmax.compute(embeddings, labels) + self.weight * pull

    def _move(self, offsets: Tensor, labels: Tensor) -> None:
        sums = torch.zeros_like(self.centers).index_add_(0, labels, offsets.to(self.centers))
        counts = torch.bincount(labels, minlength=len(self.centers))
        self.centers += self.alpha * sums / (1 + counts)[:, None]

    def initialise(self, class_means: Tensor) -> None:
        self.softmax.initialise(class_means)
        self.centers.copy_(class_means)


def _angle(cosine: Tensor) -> Tensor:
    """In radians, from 0.08 degrees to as much less than 180.

    At the ends the arc cosine is infinitely steep: a single face that is its person's mean
    would make every gradient infinite.
    """
    return torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))


class _Angular(Loss):
    """Around a loss of pytorch-metric-learning that has a weight vector for each class.

    Weights start with a length of about 1, like class means: a learning rate means the same
    for both.
    """

    def __init__(self, make: Any, dimension: int, classes: int, **parameters: Any) -> None:
        super().__init__()
        self.loss = make(
            embedding_size=dimension,
            num_classes=classes,
            weight_init_func=TorchInitWrapper(nn.init.normal_, std=dimension**-0.5),
            **parameters,
        )

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = self.loss(embeddings, labels)
        return value

    @torch.no_grad()
    def initialise(self, class_means: Tensor) -> None:
        self.loss.W.copy_(functional.normalize(class_means).T)


class NormalisedSoftmax(_Angular):
    """z_j = s cos(theta_j): softmax on the sphere, without a margin.

    Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", ACM MM 2017. The
    scale is that of Zhai and Wu, "Classification is a Strong Baseline for Deep Metric
    Learning", BMVC 2019 (a temperature of 0.05).
    """

    def __init__(self, dimension: int, classes: int, scale: Positive = 20.0) -> None:
        super().__init__(pml.NormalizedSoftmaxLoss, dimension, classes, temperature=1 / scale)


class ASoftmax(Loss):
    """z_j = |x| cos(theta_j), W normalised and x not; for the face's own person

        z_y = |x| (lambda cos(theta_y) + psi(theta_y)) / (lambda + 1)
        psi(theta) = (-1)^k cos(m theta) - 2 k  for theta in [k pi / m, (k + 1) pi / m],

    which falls from 1 to 1 - 2 m where a cosine falls from 1 to -1. This margin is too hard to
    begin with: lambda falls from `start` (nearly softmax) to `end` and stays there.

    Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017.

    Args:
        margin: m, a whole number.
        start, end: of lambda = max(end, start / (1 + 0.12 step)); `progress` counts in the
            28,000 steps of the published training.
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        margin: Annotated[int, Field(ge=1)] = 4,
        start: Positive = 1000.0,
        end: Annotated[float, Field(ge=0)] = 5.0,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.start = start
        self.end = end
        self.weights = nn.Parameter(torch.randn(classes, dimension) * dimension**-0.5)
        self.progress(0.0)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = functional.normalize(embeddings) @ functional.normalize(self.weights).T
        own = cosines.gather(1, labels[:, None])
        theta = _angle(own)
        k = (theta * self.margin / math.pi).floor()
        psi = (1 - 2 * (k % 2)) * torch.cos(self.margin * theta) - 2 * k
        eased = (self.annealing * own + psi) / (self.annealing + 1)
        lengths = embeddings.norm(dim=1, keepdim=True)
        return functional.cross_entropy(
            lengths * cosines.scatter(1, labels[:, None], eased), labels
        )

    def progress(self, fraction: float) -> None:
        self.annealing = max(self.end, self.start / (1 + 0.12 * 28_000 * fraction))

    @torch.no_grad()
    def initialise(self, class_means: Tensor) -> None:
        self.weights.copy_(functional.normalize(class_means))


class _Margin(_Angular):
    """With a margin that may grow over the first part of the training."""

    def __init__(self, make: Any, dimension: int, classes: int, ramp: float, **rest: Any) -> None:
        super().__init__(make, dimension, classes, **rest)
        self.ramp = ramp
        self.margin = float(self.loss.margin)
        self.progress(0.0)

    def progress(self, fraction: float) -> None:
        self.loss.margin = self.margin * (min(1.0, fraction / self.ramp) if self.ramp else 1.0)


class CosFace(_Margin):
    """z_y = s (cos(theta_y) - m), z_j = s cos(theta_j).

    Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018.

    Args:
        margin: m, in units of the cosine.
        scale: s.
        ramp: share of the training in which the margin grows from 0 in a line; none in the
            paper.
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        margin: Positive = 0.35,
        scale: Positive = 64.0,
        ramp: Share = 0.0,
    ) -> None:
        super().__init__(pml.CosFaceLoss, dimension, classes, ramp, margin=margin, scale=scale)


class _FiniteAngles:
    def get_angles(self, cosine: Tensor) -> Tensor:
        return _angle(cosine)


class _ArcFace(_FiniteAngles, pml.ArcFaceLoss): ...  # type: ignore[misc]


class _SubCenterArcFace(_FiniteAngles, pml.SubCenterArcFaceLoss): ...  # type: ignore[misc]


class ArcFace(_Margin):
    """z_y = s cos(theta_y + m), z_j = s cos(theta_j).

    cos(theta + m) would rise again where theta > pi - m; there z_y = s (cos(theta_y) - m sin m),
    which goes on falling. (This is `easy_margin = False` of the authors' code. With True, faces
    further than 90 degrees from their person have no margin at all.)

    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019.

    Args:
        margin: m in radians, below pi.
        scale: s.
        ramp: share of the training in which the margin grows from 0 in a line; none in the
            paper.
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        margin: Annotated[float, Field(gt=0, lt=math.pi)] = 0.5,
        scale: Positive = 64.0,
        ramp: Share = 0.0,
    ) -> None:
        degrees = math.degrees(margin)
        super().__init__(_ArcFace, dimension, classes, ramp, margin=degrees, scale=scale)


class SubCenterArcFace(_Margin):
    """ArcFace with K weight vectors for each person; theta_j is the angle to the nearest. Most
    faces gather at one of them, faces with a wrong label at the others.

    Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web
    Faces", ECCV 2020.

    Args:
        margin: m in radians, below pi.
        scale: s.
        centers: K.
        ramp: share of the training in which the margin grows from 0 in a line; none in the
            paper.
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        margin: Annotated[float, Field(gt=0, lt=math.pi)] = 0.5,
        scale: Positive = 64.0,
        centers: Annotated[int, Field(ge=1)] = 3,
        ramp: Share = 0.0,
    ) -> None:
        make = partial(_SubCenterArcFace, sub_centers=centers)
        degrees = math.degrees(margin)
        super().__init__(make, dimension, classes, ramp, margin=degrees, scale=scale)

    @torch.no_grad()
    def initialise(self, class_means: Tensor) -> None:
        # Equal centers would stay equal: the first would be the nearest to every face.
        around = functional.normalize(class_means).repeat_interleave(self.loss.sub_centers, dim=0)
        around += torch.randn_like(around) * 0.1 * around.shape[1] ** -0.5
        self.loss.W.copy_(around.T)
