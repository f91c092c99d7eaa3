"""How similar strangers look, one against one, down to rates that few pairs of them reach."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression

from app.models.spec import VerificationCalibration
from training.calibration.support import FACTOR, rounded, supported
from training.calibration.tail import Array, Tail, fit
from training.errors import Unresolvable
from training.evaluation import all_pairs
from training.evaluation.bootstrap import draws, interval

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7)
PHOTOS = (1, 3, 10)
_MODELLED = 1e-3
_LEAST_EXCESSES = 300
_LEAST_PAIRS = 6000
_LEAST_MATED = 50
_COLLECTED = 0.015
_SAMPLE = 1_000_000
_TEMPLATES = 25
_LEAST_PERSONS = 10


def measure(
    embeddings: FloatArray, labels: IntArray, same: BoolArray, seed: int, resamples: int
) -> VerificationCalibration:
    """Thresholds from the scores of all pairs of different people.

    Rates of which enough pairs are there are counted, lower ones taken from the tail's model.
    Both end where resampling the persons moves a rate by more than `FACTOR`.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face.
        same: (p, p) persons who are not to be compared, everybody with themselves.
        resamples: of the persons, for the intervals.

    Raises:
        Unresolvable: there are too few pairs, of one person or for two rates.
    """
    rng = np.random.default_rng(seed)
    pairs = int(_counts(labels, labels, same).sum()) // 2
    if pairs < _LEAST_PAIRS:
        raise Unresolvable(
            f"{pairs:,} pairs of different people are too few to calibrate: {_LEAST_PAIRS:,} are "
            "needed. Add people, or leave the faces out: then every request has to name a "
            "threshold."
        )
    first, second = all_pairs(labels, seed, impostors=_SAMPLE // 5)
    similarity = (embeddings[first] * embeddings[second]).sum(axis=1)
    mated = labels[first] == labels[second]
    strange = ~same[labels[first], labels[second]]
    genuine = np.sort(similarity[mated])
    if len(genuine) < _LEAST_MATED:
        raise Unresolvable(
            f"{len(genuine):,} pairs of faces of one person are too few to calibrate: "
            f"{_LEAST_MATED} are needed. Add photos of the same people."
        )
    single = _compare(embeddings, labels, embeddings, labels, same, rng)
    low, high = single.intervals(resamples, seed)
    rates = np.array(RATES)
    count = supported(rates, low, high)
    if count < 2:
        raise Unresolvable(
            f"Other people would move the rates by more than {FACTOR:g} times: "
            f"{len(np.unique(labels))} are too few to calibrate. Add people, or leave the faces "
            "out: then every request has to name a threshold."
        )
    rates = rates[:count]

    photos, cosine, manhattan = [1], [single.cosine(rates)], [single.manhattan(rates)]
    for number in PHOTOS[1:]:
        templates, owners = _templates(embeddings, labels, number, rng)
        if len(np.unique(owners)) < _LEAST_PERSONS:
            break
        several = _compare(templates, owners, embeddings, labels, same, rng)
        photos.append(number)
        cosine.append(several.cosine(rates))
        manhattan.append(several.manhattan(rates))

    slope, intercept = _platt(similarity[mated | strange], mated[mated | strange])
    return VerificationCalibration(
        impostor_pairs=single.pairs,
        genuine_pairs=len(genuine),
        fmr=tuple(rates.tolist()),
        fmr_low=rounded(low[:count], ".2e"),
        fmr_high=rounded(high[:count], ".2e"),
        measured_down_to=float(f"{single.modelled_below:.2g}"),
        fnmr=rounded(np.searchsorted(genuine, cosine[0]) / len(genuine), ".3g"),
        photos=tuple(photos),
        cosine=tuple(rounded(row, ".5f") for row in cosine),
        manhattan=tuple(rounded(row, ".4f") for row in manhattan),
        slope=round(slope, 3),
        intercept=round(intercept, 3),
    )


def _platt(similarity: Array, mated: BoolArray) -> tuple[float, float]:
    model = LogisticRegression(C=np.inf, class_weight="balanced")
    model.fit(similarity[:, None], mated)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _templates(
    embeddings: FloatArray, labels: IntArray, photos: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Up to `_TEMPLATES` means of `photos` random faces of each person who has as many."""
    means, owners = [], []
    for person in np.unique(labels):
        faces = rng.permutation(np.flatnonzero(labels == person))
        for start in range(0, min(len(faces) // photos, _TEMPLATES) * photos, photos):
            means.append(embeddings[faces[start : start + photos]].sum(axis=0))
            owners.append(person)
    if not means:
        return np.empty((0, embeddings.shape[1]), np.float32), np.empty(0, np.int64)
    stacked = np.stack(means)
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    return (stacked / np.maximum(lengths, 1e-6)).astype(np.float32), np.array(owners)


@dataclass(frozen=True)
class _Scores:
    """Scores of one metric, higher for more similar: a sample, rising, and all of the highest."""

    sample: Array
    highest: Array
    persons: IntArray
    tail: Tail

    def thresholds(self, rates: Array, total: int) -> Array:
        found = np.quantile(self.sample, 1 - rates)
        counted = rates * total < len(self.highest)
        place = len(self.highest) - 1 - (rates[counted] * total).astype(int)
        found[counted] = self.highest[place]
        modelled = rates <= self.tail.share
        found[modelled] = self.tail.threshold(rates[modelled])
        return found


@dataclass(frozen=True)
class _Impostors:
    """What comparing templates with faces of other people gave.

    Attributes:
        counts: (p, p) comparisons of each person's templates with each other's faces.
    """

    counts: Array
    scores: dict[str, _Scores]

    @property
    def pairs(self) -> int:
        return int(self.counts.sum())

    @property
    def modelled_below(self) -> float:
        return self.scores["cosine"].tail.share

    def cosine(self, rates: Array) -> Array:
        return self.scores["cosine"].thresholds(rates, self.pairs)

    def manhattan(self, rates: Array) -> Array:
        return -self.scores["manhattan"].thresholds(rates, self.pairs)

    def intervals(self, resamples: int, seed: int) -> tuple[Array, Array]:
        """In what range the rates of the cosine thresholds lie, with other persons."""
        known = self.scores["cosine"]
        rates = np.array(RATES)
        thresholds = known.thresholds(rates, self.pairs)
        modelled = thresholds >= known.tail.start
        place = np.searchsorted(known.highest, thresholds)
        # Beyond what was collected there are so many pairs that persons matter, not their number.
        coarse = thresholds < known.highest[0]
        found = []
        for row in draws(len(self.counts), resamples, seed):
            weights = row[known.persons[:, 0]] * row[known.persons[:, 1]]
            total = float(row @ self.counts @ row)
            above = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
            sampled = above[place] / total
            sampled[coarse] = rates[coarse]
            tail = fit(known.highest, known.tail.start, total, weights)
            sampled[modelled] = tail.rate(thresholds[modelled])
            found.append(sampled)
        low, high = interval(np.array(found))
        return low, high


def _compare(
    templates: FloatArray,
    owners: IntArray,
    faces: FloatArray,
    labels: IntArray,
    same: BoolArray,
    rng: np.random.Generator,
) -> _Impostors:
    once = templates is faces
    counts = _counts(owners, labels, same) / (2 if once else 1)
    metrics: dict[str, Callable[[FloatArray, FloatArray], Array]] = {
        "cosine": lambda a, b: (a @ b.T).astype(np.float64),
        "manhattan": lambda a, b: -cdist(a, b, "cityblock"),
    }
    rows, columns = (
        rng.integers(len(templates), size=_SAMPLE),
        rng.integers(len(faces), size=_SAMPLE),
    )
    strange = ~same[owners[rows], labels[columns]]
    rows, columns = rows[strange], columns[strange]
    share = min(0.5, max(_COLLECTED, 1.5 * _LEAST_EXCESSES / counts.sum()))
    samples = {
        "cosine": np.einsum("ij,ij->i", templates[rows], faces[columns]).astype(np.float64),
        "manhattan": _negative_manhattan(templates, rows, faces, columns),
    }
    least = {name: np.quantile(sample, 1 - share) for name, sample in samples.items()}
    highest: dict[str, list[Array]] = {name: [] for name in metrics}
    persons: dict[str, list[IntArray]] = {name: [] for name in metrics}
    for start in track(range(0, len(templates), 256), description="comparing", transient=True):
        block = templates[start : start + 256]
        impostor = ~same[owners[start : start + 256]][:, labels]
        if once:  # every pair once: only with what comes after
            impostor &= np.arange(len(faces)) > np.arange(start, start + len(block))[:, None]
        for name, compared in metrics.items():
            scores = compared(block, faces)
            row, column = np.nonzero(impostor & (scores > least[name]))
            highest[name].append(scores[row, column])
            persons[name].append(np.stack([owners[start + row], labels[column]], axis=1))
    found = {}
    for name in metrics:
        values = np.concatenate(highest[name])
        order = np.argsort(values)
        values = values[order]
        wanted = max(_MODELLED * counts.sum(), _LEAST_EXCESSES)
        first = values[max(0, len(values) - 1 - round(wanted))]
        tail = fit(values, float(first), float(counts.sum()))
        found[name] = _Scores(
            np.sort(samples[name]), values, np.concatenate(persons[name])[order], tail
        )
    return _Impostors(counts, found)


def _counts(owners: IntArray, labels: IntArray, same: BoolArray) -> Array:
    """(p, p) comparisons of each person's templates with each other's faces."""
    people = len(same)
    templates = np.bincount(owners, minlength=people)
    return np.where(same, 0.0, np.outer(templates, np.bincount(labels, minlength=people)))


def _negative_manhattan(
    templates: FloatArray, rows: IntArray, faces: FloatArray, columns: IntArray
) -> Array:
    parts = np.array_split(np.arange(len(rows)), 50)
    return np.concatenate(
        [
            -np.abs(templates[rows[p]] - faces[columns[p]]).sum(axis=1, dtype=np.float64)
            for p in parts
        ]
    )
