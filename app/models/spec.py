"""What a model file says about itself, and the two files shipped beside this one."""

from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class Calibration(BaseModel):
    """How often two strangers are taken for one person, by threshold.

    Attributes:
        dataset: labelled faces it was measured on, none of them used for training.
        impostor_pairs: pairs of different people behind the figures.
        fmr: false match rates, from high to low.
        cosine: least similarity accepted at each of them, rising.
        manhattan: largest distance accepted at each of them, falling. (Euclidean needs no
            row: between unit vectors it follows from the cosine.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    impostor_pairs: int = Field(gt=0)
    fmr: tuple[float, ...] = Field(min_length=2)
    cosine: tuple[float, ...]
    manhattan: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> "Calibration":
        if not len(self.fmr) == len(self.cosine) == len(self.manhattan):
            raise ValueError("fmr, cosine and manhattan must be of one length")
        if not (
            all(0 < rate <= 1 for rate in self.fmr)
            and all(a > b for a, b in pairwise(self.fmr))
            and all(a < b for a, b in pairwise(self.cosine))
            and all(a > b for a, b in pairwise(self.manhattan))
        ):
            raise ValueError("fmr and manhattan must fall and cosine must rise")
        return self


class EmbedderSpec(_Spec):
    """A face embedder.

    Graph: `face` uint8 (n, 112, 112, 3) RGB, cut by `alignment`, to `embedding`
    (n, dimension) float32 of unit length and `norm` (n,) float32, its length before
    normalisation.
    """

    kind: Literal["embedder"] = "embedder"
    dimension: int = Field(gt=0, le=4096)
    alignment: Literal["arcface-112"] = "arcface-112"
    calibration: Calibration | None = None
