"""Every backbone by name: the published sizes, the shapes, and gradients everywhere."""

import pytest
import torch
from torch import Tensor, nn

from training.backbones import Backbone, build
from training.errors import InvalidRecipe


def faces(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 112, 112, 3), dtype=torch.uint8, generator=generator)


def multiplications(model: Backbone) -> int:
    """Multiply-adds of convolutions and fully connected layers for one face."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model.eval()(faces(1))
    return total


# MobileFaceNet: table 2 of the paper (it gives 0.99 million weights, and counts those of the
# batch normalisations in part); iResNets: InsightFace's own tables.
@pytest.mark.parametrize(
    ("name", "dimension", "weights", "work"),
    [
        ("mobilefacenet", 128, 1.00e6, 221e6),
        ("iresnet18", 512, 24.03e6, 2.62e9),
        ("iresnet50", 512, 43.59e6, 6.33e9),
        ("iresnet100", 512, 65.16e6, 12.12e9),
    ],
)
def test_size_and_work_are_the_published_ones(
    name: str, dimension: int, weights: float, work: float
) -> None:
    model = build(name, dimension)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(weights, rel=4e-3)
    assert multiplications(model) == pytest.approx(work, rel=5e-3)


@pytest.mark.parametrize("dimension", [128, 512])
@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18", "sface"])
def test_features_and_embeddings_have_the_agreed_shapes(name: str, dimension: int) -> None:
    model = build(name, dimension).eval()
    with torch.inference_mode():
        features = model.trunk(faces(2))
        embeddings = model(faces(2))
    assert features.shape[0] == 2
    assert features.shape[2:] == (7, 7)
    assert embeddings.shape == (2, dimension)
    assert model.dimension == dimension


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18", "sface"])
def test_every_weight_learns(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, 32)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model(faces(4))
    assert embeddings.dtype == torch.float32
    (embeddings * torch.randn_like(embeddings)).sum().backward()
    for name_of_weight, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name_of_weight
            assert weight.grad.isfinite().all(), name_of_weight
            assert weight.grad.any(), name_of_weight


@pytest.mark.parametrize(("name", "channels"), [("mobilefacenet", 512), ("sface", 1024)])
def test_dropout_acts_in_training_only(name: str, channels: int) -> None:
    torch.manual_seed(0)
    model = build(name, 8, dropout=0.5).eval()
    features = torch.randn(1, channels, 7, 7).expand(2, -1, -1, -1)
    torch.testing.assert_close(*model.head(features), atol=1e-4, rtol=0)
    for layer in model.head:
        layer.train(isinstance(layer, nn.Dropout))
    assert not torch.allclose(*model.head(features), atol=1e-2)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidRecipe, match="did you mean 'iresnet50'"):
        build("iresnet-50", 128)
