"""What losses do while the training goes on: starts, schedules, moving centers, odd input."""

import pytest
import torch
from torch.nn.functional import normalize

from training.errors import InvalidRecipe
from training.losses import LOSSES, Loss, build
from training.losses.classification import ASoftmax


def weights(loss: Loss) -> torch.Tensor:
    """(classes, dimension), or that for each sub-center."""
    return loss.weights if isinstance(loss, ASoftmax) else loss.loss.W.T


WITH_WEIGHTS = ["normalised-softmax", "a-softmax", "cosface", "arcface"]


@pytest.fixture
def means() -> torch.Tensor:
    """Five persons in eight dimensions, of quite different lengths."""
    torch.manual_seed(0)
    return normalize(torch.randn(5, 8)) * torch.tensor([[0.5], [1.0], [2.0], [4.0], [8.0]])


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights_start_at_the_class_means(name: str, means: torch.Tensor) -> None:
    loss = build(name, dimension=8, classes=5)
    loss.initialise(means)
    torch.testing.assert_close(weights(loss), normalize(means))
    assert weights(loss).requires_grad


def test_random_weights_are_about_as_long_as_class_means() -> None:
    torch.manual_seed(0)
    for name in [*WITH_WEIGHTS, "subcenter-arcface"]:
        lengths = weights(build(name, dimension=128, classes=50)).norm(dim=1)
        assert 0.8 < lengths.min() < lengths.max() < 1.25


def test_softmax_starts_as_the_classifier_of_the_nearest_mean(means: torch.Tensor) -> None:
    loss = build("softmax", dimension=8, classes=5)
    loss.initialise(means)
    faces = 3 * torch.randn(200, 8)
    nearest = torch.cdist(faces, means).argmin(dim=1)
    assert torch.equal(loss.linear(faces).argmax(dim=1), nearest)


def test_sub_centers_start_near_the_class_mean_but_apart(means: torch.Tensor) -> None:
    loss = build("subcenter-arcface", dimension=8, classes=5, centers=3)
    loss.initialise(means)
    centers = normalize(loss.loss.W.T).view(5, 3, 8)
    similarity = (centers * normalize(means)[:, None]).sum(dim=2)
    assert similarity.min() > 0.95
    within = centers @ centers.transpose(1, 2)
    assert within[~torch.eye(3, dtype=torch.bool).expand(5, 3, 3)].max() < 0.9999


def test_centers_move_by_the_papers_rule(means: torch.Tensor) -> None:
    loss = build("center", dimension=8, classes=5, alpha=0.5)
    loss.initialise(means)
    torch.testing.assert_close(loss.centers, means)
    faces = torch.randn(3, 8)
    loss(faces, torch.tensor([1, 1, 4]))
    expected = means.clone()
    expected[1] += 0.5 * (faces[0] + faces[1] - 2 * means[1]) / 3
    expected[4] += 0.5 * (faces[2] - means[4]) / 2
    torch.testing.assert_close(loss.centers, expected)

    loss.eval()
    loss(faces, torch.tensor([1, 1, 4]))
    torch.testing.assert_close(loss.centers, expected)
    assert "centers" in loss.state_dict()


@pytest.mark.parametrize(("name", "margin"), [("cosface", 0.4), ("arcface", 0.5)])
def test_a_margin_grows_over_the_ramp(name: str, margin: float) -> None:
    torch.manual_seed(0)
    loss = build(name, dimension=8, classes=5, margin=margin, scale=16, ramp=0.2)
    faces, persons = torch.randn(6, 8), torch.tensor([0, 1, 2, 3, 4, 0])

    def value_with(fixed: float) -> float:
        other = build(name, dimension=8, classes=5, margin=fixed, scale=16)
        other.load_state_dict(loss.state_dict())
        return other(faces, persons).item()

    plain = build("normalised-softmax", dimension=8, classes=5, scale=16)
    plain.load_state_dict(loss.state_dict())
    assert loss(faces, persons).item() == pytest.approx(plain(faces, persons).item(), rel=1e-5)
    for fraction, share in ((0.05, 0.25), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)):
        loss.progress(fraction)
        expected = value_with(share * margin)
        assert loss(faces, persons).item() == pytest.approx(expected, rel=1e-5)


def test_annealing_follows_the_published_schedule() -> None:
    loss = build("a-softmax", dimension=8, classes=5)
    for step, expected in ((0, 1000.0), (100, 1000 / 13), (1000, 1000 / 121), (14_000, 5.0)):
        loss.progress(step / 28_000)
        assert loss.annealing == pytest.approx(expected)


@pytest.mark.parametrize("name", ["a-softmax", "arcface"])
def test_a_face_that_is_its_persons_mean_has_a_finite_gradient(name: str) -> None:
    loss = build(name, dimension=2, classes=2)
    loss.initialise(torch.eye(2))
    faces = torch.eye(2, requires_grad=True)
    loss(faces, torch.arange(2)).backward()
    assert faces.grad is not None
    assert faces.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in loss.parameters())


def test_pair_losses_want_batches_of_persons() -> None:
    wanted = {name for name in LOSSES if LOSSES[name].batches == "person"}
    assert wanted == {"contrastive", "triplet"}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("arc-face", {}, "no loss 'arc-face'; did you mean 'arcface'"),
        (
            "arcface",
            {"margins": 0.3},
            r"loss.margins is unknown to 'arcface'; did you mean 'margin",
        ),
        ("softmax", {"scale": 1.0}, "loss.scale is unknown to 'softmax'; it takes none"),
        ("arcface", {"margin": "wide"}, r"loss.margin = 'wide': .*number"),
        ("arcface", {"margin": 28.6}, r"loss.margin = 28.6: .*less than 3.14"),
        ("triplet", {"mining": "soft"}, "loss.mining = 'soft': .*'semihard'"),
    ],
)
def test_a_wrong_name_or_value_is_said(
    name: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        build(name, dimension=8, classes=5, **parameters)
