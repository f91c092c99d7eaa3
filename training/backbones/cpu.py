"""Around what PyTorch does slowly on a CPU; elsewhere, and in an exported graph, nothing changes.

Forward and backward of SFace, batch 64, 2 cores of a Xeon with AMX, PyTorch 2.13:

    float32, planes one after another                         10 faces/s
    float32, channels_last                                    15
    bfloat16 autocast, channels_last                          21
    + `PReLU` and `DepthwiseConv` of this module              30
    + `keep_freed_memory()`                                   42
"""

import ctypes
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def keep_freed_memory() -> None:
    """Let this process keep the memory that tensors give back.

    A feature map of a batch is larger than what glibc keeps: every step would ask the kernel
    for fresh pages, and be given each of them zeroed, hundreds of thousands of times. Call it
    once, before training on the CPU.
    """
    trim_threshold, maximum_of_mmaps = -1, -4
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(maximum_of_mmaps, 0)
        libc.mallopt(trim_threshold, -1)


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 rather than imitates it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PReLU(nn.PReLU):
    """max(x, 0) + a min(x, 0) with a slope a for each channel, of (n, c, ...).

    PyTorch's own backward pass branches on the sign of every value, which no CPU can
    predict: it takes ten times as long as that of a ReLU. This one has no branches.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        activated: Tensor = _PReLU.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return activated


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return nn.functional.prelu(x, slope.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        column = (1, -1, *(1,) * (x.ndim - 2))
        positive = torch.ops.aten.threshold_backward(gradient, x, 0)
        negative = gradient - positive
        of_slope = (negative * x).sum([d for d in range(x.ndim) if d != 1], dtype=torch.float32)
        of_x = positive.addcmul_(negative, slope.to(x.dtype).view(column))
        return of_x, of_slope.to(slope.dtype)


class DepthwiseConv(nn.Conv2d):
    """A k x k convolution of each channel by itself, without bias.

    oneDNN has no fast backward pass for these in bfloat16 when the stride is 2: 190 ms for
    64 x 112 x 112, batch 64, against 16 ms in float32.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or self.stride == (1, 1) or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)
