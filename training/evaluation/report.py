"""What an evaluation found, as it is written to JSON.

A report holds figures and curves, never a face or an embedding.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(Part):
    """One number.

    Attributes:
        value: None where the data is too small for it.
        low, high: its 95 % interval for other persons (`bootstrap`); None where there is none.
        threshold: the cosine similarity from which, or the distance up to which, two faces
            match where it was taken.
        reason: why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    reason: str | None = None


class Curve(Part):
    """
    Attributes:
        x, y: points of the curve.
        low, high: its 95 % band, point by point; empty where there is none.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class Difference(Part):
    """The model minus the baseline, on the same draws of persons.

    Attributes:
        value, low, high: with its 95 % interval.
        better: whether the model is; None where the interval holds 0, or neither direction
            is the better one.
    """

    value: float
    low: float | None
    high: float | None
    better: bool | None


class Result(Part):
    """What one model reached in one section."""

    figures: dict[str, Figure]
    curves: dict[str, Curve]


class Section(Part):
    """One protocol.

    Attributes:
        key: `pairs/cosine`, `list/cosine`, `identification/1`, `retrieval` ...
        protocol: what was compared with what, and how often.
        reason: why there are no results.
        results: one for each model.
        differences: by figure; empty without a baseline.
    """

    key: str
    title: str
    protocol: str
    reason: str | None = None
    results: tuple[Result, ...] = ()
    differences: dict[str, Difference] = {}


class Model(Part):
    """
    Attributes:
        name: as the report calls it.
        file: its file's name; what follows is what the specification in it says. None for
            bare embeddings.
    """

    name: str
    file: str | None = None
    dimension: int | None = None
    licence: str | None = None
    training_data: str | None = None
    weights_sha256: str | None = None


class Report(Part):
    """
    Attributes:
        models: the one evaluated and, if there is one, its baseline.
        verdict: what it comes to, in a sentence.
        faces, persons: in the data set.
        resamples: draws of persons behind each interval.
    """

    format: Literal[1] = 1
    models: tuple[Model, ...]
    verdict: str
    dataset: str
    faces: int
    persons: int
    seed: int
    resamples: int
    sections: tuple[Section, ...]

    def section(self, key: str) -> Section:
        """
        Raises:
            KeyError: there is none of this key.
        """
        for section in self.sections:
            if section.key == key:
                return section
        raise KeyError(key)


class Quantity(NamedTuple):
    """How a figure is shown.

    Attributes:
        rate: a share, shown in per cent.
        higher: whether more is better; None where that depends.
        meaning: in a few words, for the reader of a table.
    """

    label: str
    rate: bool
    higher: bool | None
    meaning: str


_QUANTITIES = {
    "auc": Quantity("AUC", False, True, "chance that a genuine pair is nearer than a strange one"),
    "eer": Quantity("EER", True, False, "error rate where FMR and FNMR are equal"),
    "accuracy": Quantity("Accuracy", True, True, "right decisions, threshold from other folds"),
    "accuracy error": Quantity("Standard error", True, None, "of the accuracy, over the folds"),
    "d-prime": Quantity(
        "d\N{PRIME}", False, True, "distance of the two means in standard deviations"
    ),
    "overlap": Quantity("Overlap", True, False, "least FMR + FNMR of any threshold"),
    "intra-class mean": Quantity("Intra-class distance", False, None, "mean, same person"),
    "intra-class sd": Quantity("Intra-class deviation", False, None, "same person"),
    "inter-class mean": Quantity("Inter-class distance", False, None, "mean, two people"),
    "inter-class sd": Quantity("Inter-class deviation", False, None, "two people"),
    "intra / inter": Quantity("Intra / inter", False, False, "quotient of the two mean distances"),
    "precision@1": Quantity("Precision@1", True, True, "nearest face is of the same person"),
    "R-precision": Quantity("R-precision", True, True, "share of the person in the R nearest"),
    "MAP@R": Quantity("MAP@R", True, True, "the same, early hits counting more"),
    "kNN": Quantity("kNN", True, True, "majority of the three nearest faces"),
    "linear classifier": Quantity("Linear classifier", True, True, "Fisher's discriminant"),
    "calibration error": Quantity(
        "Calibration error", True, False, "mean gap of probability and share of right names"
    ),
    "not enrolled": Quantity("Not enrolled", True, False, "persons of whom no photo was taken"),
    "not acquired": Quantity(
        "Not acquired", True, False, "photos looked for in which no usable face was found"
    ),
    "silhouette": Quantity("Silhouette", False, True, "own centre against the next nearest"),
}


def quantity(name: str) -> Quantity:
    """How the figure of this name is shown."""
    if name in _QUANTITIES:
        return _QUANTITIES[name]
    kind, _, rate = name.partition("=")
    match kind:
        case "tar@far":
            return Quantity(
                f"TAR at FAR {power(rate)}", True, True, "1 \N{MINUS SIGN} FNMR at this FMR"
            )
        case "fnir@fpir":
            meaning = "persons missed, when so many strangers are called somebody"
            return Quantity(f"FNIR at FPIR {_share(rate)}", True, False, meaning)
        case "fpir@target":
            meaning = "strangers called somebody, as the service decides"
            return Quantity(f"FPIR with target {_share(rate)}", True, None, meaning)
        case "fnir@target":
            meaning = "persons missed, as the service decides"
            return Quantity(f"FNIR with target {_share(rate)}", True, False, meaning)
    place = name.removeprefix("rank-")
    meaning = "person comes first" if place == "1" else f"person is among the first {place}"
    return Quantity(f"Rank {place}", True, True, meaning)


def _share(rate: str) -> str:
    return f"{100 * float(rate):g} %"


def power(rate: str) -> str:
    """`1e-03` as ten to a power."""
    digits = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"10⁻{str(int(rate.rpartition('-')[2])).translate(digits)}"


def show(value: float | None, rate: bool) -> str:
    """A figure as text: rates in per cent, others with four decimals."""
    if value is None:
        return "\N{EN DASH}"
    return f"{100 * value:.2f} %" if rate else f"{value:.4f}"


def show_interval(figure: Figure, rate: bool) -> str:
    """The figure's interval as text; empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{show(figure.low, rate).removesuffix(' %')} to {show(figure.high, rate)}"


def show_difference(value: float, rate: bool) -> str:
    """The same with a sign; differences of rates are in percentage points."""
    text = f"{100 * value:+.2f}" if rate else f"{value:+.4f}"
    return text.replace("-", "\N{MINUS SIGN}")
