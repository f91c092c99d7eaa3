"""What a model file says about itself, and the two files shipped beside this one."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

METADATA_KEY = "faceid"
"""Entry of the ONNX `metadata_props` that holds the specification as JSON."""

SHIPPED_DETECTOR = Path(__file__).with_name("yunet.onnx")
SHIPPED_EMBEDDER = Path(__file__).with_name("sface.onnx")


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    licence: str
    origin: str
    training_data: str
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class DetectorSpec(_Spec):
    """A face detector.

    Graph: `image` uint8 (n, h, w, 3) RGB, h and w multiples of `stride`, to `score`
    (n, k), `box` (n, k, 4) and `landmarks` (n, k, 10), float32; k runs over the cells of
    the stride-8, stride-16 and stride-32 grids, row by row. Boxes and points are offsets
    in units of the cell's stride, sizes are logarithms, as in YuNet
    (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023).
    """

    kind: Literal["detector"] = "detector"
    stride: int = Field(gt=0)


class EmbedderSpec(_Spec):
    """A face embedder.

    Graph: `face` uint8 (n, 112, 112, 3) RGB, cut by `alignment`, to `embedding`
    (n, dimension) float32 of unit length and `norm` (n,) float32, its length before
    normalisation.
    """

    kind: Literal["embedder"] = "embedder"
    dimension: int = Field(gt=0, le=4096)
    alignment: Literal["arcface-112"] = "arcface-112"
