"""What was rewritten for speed computes what PyTorch's own layers compute."""

import copy

import pytest
import torch
from torch import Tensor, nn

from training.backbones.cpu import DepthwiseConv, PReLU


def step(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and all gradients of one forward and backward pass."""
    x = x.clone().requires_grad_()
    output = layer(x)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    (output * weights).sum().backward()
    return [output.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (5, 3)])
def test_prelu_and_its_gradients_are_pytorchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    x.view(-1)[0] = 0.0
    own, reference = PReLU(3).double(), nn.PReLU(3).double()
    for layer in (own, reference):
        layer.weight.data = torch.tensor([0.25, -0.5, 0.0], dtype=torch.float64)
    for a, b in zip(step(own, x), step(reference, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_prelu_of_half_precision_sums_the_slopes_gradient_in_full() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 16, 16)
    layer = PReLU(3)
    exact, half = step(copy.deepcopy(layer), x), step(layer, x.bfloat16())
    assert half[0].dtype == half[1].dtype == torch.bfloat16
    assert half[2].dtype == torch.float32
    torch.testing.assert_close(half[2], exact[2], rtol=5e-3, atol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_treats_each_channel_alone(stride: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    layer = DepthwiseConv(3, 3, stride, padding=1)
    single = [
        nn.functional.conv2d(x[:, c : c + 1], layer.weight[c : c + 1], None, stride, 1)
        for c in range(3)
    ]
    torch.testing.assert_close(layer(x), torch.cat(single, dim=1))


def test_depthwise_convolution_with_a_stride_stays_half_precision_outside() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    layer = DepthwiseConv(3, 3, 2, padding=1)
    exact = step(layer, x.bfloat16().float())
    layer.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        half = step(layer, x.bfloat16())
    assert half[0].dtype == torch.bfloat16
    # Only what goes in and out was rounded, not the weights.
    assert torch.equal(half[0], exact[0].bfloat16())
    torch.testing.assert_close(half[2], exact[2], rtol=2e-2, atol=2e-2)
