"""What a model file says about itself, and the two files shipped beside this one."""

import hashlib
from functools import cached_property
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


class _Calibrated(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerificationCalibration(_Calibrated):
    """How often two strangers are taken for one person, by threshold.

    Attributes:
        impostor_pairs, genuine_pairs: of single faces, behind the figures.
        fmr: false match rates, falling, down to the last that the data supports.
        fmr_low, fmr_high: 95 % interval of the rate that the threshold truly has.
        measured_down_to: rates below it come from a model of the tail.
        fnmr: share of pairs of one person refused at each rate, by cosine.
        photos: behind the template that a face is compared with, rising from 1.
        cosine: for each of `photos`, the least similarity accepted at each rate, rising.
        manhattan: the same, the largest distance accepted, falling. (Euclidean needs no table:
            between unit vectors it follows from the cosine.)
        slope, intercept: log odds that a pair of single faces shows one person are
            slope * cosine + intercept, where half of the pairs do.
    """

    impostor_pairs: int = Field(gt=0)
    genuine_pairs: int = Field(gt=0)
    fmr: tuple[float, ...] = Field(min_length=2)
    fmr_low: tuple[float, ...]
    fmr_high: tuple[float, ...]
    measured_down_to: float = Field(gt=0, le=1)
    fnmr: tuple[float, ...]
    photos: tuple[int, ...] = Field(min_length=1)
    cosine: tuple[tuple[float, ...], ...]
    manhattan: tuple[tuple[float, ...], ...]
    slope: float = Field(gt=0)
    intercept: float

    @model_validator(mode="after")
    def _check(self) -> "VerificationCalibration":
        _check_axes(self.fmr, self.photos)
        _check_tables(self.cosine, (len(self.photos), len(self.fmr)), rising=True)
        _check_tables(self.manhattan, (len(self.photos), len(self.fmr)), rising=False)
        if {len(self.fmr_low), len(self.fmr_high), len(self.fnmr)} != {len(self.fmr)}:
            raise ValueError("fmr, fmr_low, fmr_high and fnmr must be of one length")
        return self


class IdentificationCalibration(_Calibrated):
    """How often a stranger is called somebody, by gallery and threshold.

    Attributes:
        fpir: false positive identification rates, falling, down to the last supported.
        fpir_low, fpir_high: 95 % interval of the rate that the threshold truly has, in the
            largest gallery measured.
        photos: enrolled of each person, rising from 1.
        persons: of the gallery, rising from 1.
        similarity: for each of `photos` and `persons`, the least similarity less the cohort's
            raise (see `app.decision.identification`) accepted at each rate, rising.
        temperature: of the softmax over a gallery's persons.
    """

    fpir: tuple[float, ...] = Field(min_length=2)
    fpir_low: tuple[float, ...]
    fpir_high: tuple[float, ...]
    photos: tuple[int, ...] = Field(min_length=1)
    persons: tuple[int, ...] = Field(min_length=1)
    similarity: tuple[tuple[tuple[float, ...], ...], ...]
    temperature: float = Field(gt=0)

    @model_validator(mode="after")
    def _check(self) -> "IdentificationCalibration":
        _check_axes(self.fpir, self.photos)
        _check_axes(self.fpir, self.persons)
        if len(self.similarity) != len(self.photos):
            raise ValueError("a table for each of photos is needed")
        for table in self.similarity:
            _check_tables(table, (len(self.persons), len(self.fpir)), rising=True)
        if {len(self.fpir_low), len(self.fpir_high)} != {len(self.fpir)}:
            raise ValueError("fpir, fpir_low and fpir_high must be of one length")
        return self


class Calibration(_Calibrated):
    """What an embedder's similarities mean, measured on faces it was not trained on.

    Attributes:
        dataset: labelled faces it was measured on.
        persons, faces: how many.
        id: changes with every figure.
    """

    dataset: str
    persons: int = Field(gt=0)
    faces: int = Field(gt=0)
    verification: VerificationCalibration
    identification: IdentificationCalibration

    @cached_property
    def id(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def _check_axes(rates: tuple[float, ...], counts: tuple[int, ...]) -> None:
    if not (all(0 < rate < 1 for rate in rates) and all(a > b for a, b in pairwise(rates))):
        raise ValueError("rates must fall, between 0 and 1")
    if counts[0] != 1 or not all(a < b for a, b in pairwise(counts)):
        raise ValueError("photos and persons must rise from 1")


def _check_tables(
    tables: tuple[tuple[float, ...], ...], shape: tuple[int, int], *, rising: bool
) -> None:
    if len(tables) != shape[0] or any(len(row) != shape[1] for row in tables):
        raise ValueError(f"a table of {shape[0]} rows of {shape[1]} thresholds is needed")
    for row in tables:
        if not all((a < b) == rising and a != b for a, b in pairwise(row)):
            raise ValueError("thresholds must become stricter with every rate")


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
