"""How similar the nearest of many strangers looks, in galleries of many sizes.

A gallery is drawn: so many persons, so many photos of each; everybody else is a stranger. What
counts is the score by which the service decides, the similarity of the nearest template less
the cohort's raise, for the persons who really are in that gallery. No comparison is taken for
independent of another, as FPIR = 1 - (1 - FMR)^N does.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy.optimize import minimize_scalar

from app.decision.identification import COHORT, cohort_raise
from app.models.spec import IdentificationCalibration
from training.calibration.support import rounded, supported
from training.calibration.tail import Array, fit
from training.calibration.verification import PHOTOS
from training.errors import Unresolvable
from training.evaluation.bootstrap import draws, interval

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RATES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
SIZES = (1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)

_ENROLLED = 0.8
"""At most this share of the persons; the others are strangers."""
_LEAST_PERSONS = 10
_DRAWS = 40
_SMALL = 20
"""Galleries up to this size are drawn ten times as often."""
_FACES = 4000
_MODELLED = 0.02


def measure(
    embeddings: FloatArray, labels: IntArray, seed: int, resamples: int
) -> IdentificationCalibration:
    """
    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face, nobody under two names.
        resamples: of the strangers, for the intervals.

    Raises:
        Unresolvable: there are too few persons for two rates.
    """
    rng = np.random.default_rng(seed)
    rates = np.array(RATES)
    people = len(np.unique(labels))
    sizes = [size for size in SIZES if size <= _ENROLLED * people]
    tables: list[list[Array]] = []
    photos, low, high, mates = [], rates, rates, []
    for number in PHOTOS:
        counts = np.bincount(labels)
        able = int((counts >= number).sum())
        if able * _ENROLLED < _LEAST_PERSONS:
            break
        galleries = _galleries(
            embeddings, labels, number, [s for s in sizes if s <= _ENROLLED * able], rng
        )
        rows = [galleries.strangers[size].thresholds(rates) for size in galleries.strangers]
        # Of persons with so many photos there are fewer; beyond them the last size holds on.
        tables.append(rows + [rows[-1]] * (len(sizes) - len(rows)))
        photos.append(number)
        mates.append(galleries.mates)
        if number == 1:
            low, high = galleries.strangers[sizes[-1]].intervals(rates, resamples, seed)
    count = supported(rates, low, high)
    if count < 2:
        raise Unresolvable(f"{people} people are too few to calibrate; add some.")
    return IdentificationCalibration(
        fpir=RATES[:count],
        fpir_low=rounded(low[:count], ".2e"),
        fpir_high=rounded(high[:count], ".2e"),
        photos=tuple(photos),
        persons=tuple(sizes),
        similarity=tuple(tuple(rounded(row[:count], ".5f") for row in table) for table in tables),
        temperature=round(_temperature(mates), 5),
    )


@dataclass(frozen=True)
class _Strangers:
    """Scores of strangers in galleries of one size, and who they are of."""

    scores: Array
    persons: IntArray

    def thresholds(self, rates: Array) -> Array:
        found = np.quantile(self.scores, 1 - rates)
        start = float(np.quantile(self.scores, 1 - _MODELLED))
        tail = fit(np.sort(self.scores), start, len(self.scores))
        modelled = rates <= tail.share
        found[modelled] = tail.threshold(rates[modelled])
        return found

    def intervals(self, rates: Array, resamples: int, seed: int) -> tuple[Array, Array]:
        order = np.argsort(self.scores)
        scores, persons = self.scores[order], np.unique(self.persons, return_inverse=True)[1][order]
        thresholds = self.thresholds(rates)
        place = np.searchsorted(scores, thresholds)
        start = float(np.quantile(scores, 1 - _MODELLED))
        found = []
        for row in draws(int(persons.max()) + 1, resamples, seed):
            weights = row[persons]
            total = weights.sum()
            above = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
            sampled = above[place] / total
            tail = fit(scores, start, float(total), weights)
            modelled = thresholds >= start
            sampled[modelled] = tail.rate(thresholds[modelled])
            found.append(sampled)
        low, high = interval(np.array(found))
        return low, high


@dataclass(frozen=True)
class _Galleries:
    """
    Attributes:
        strangers: by size of the gallery.
        mates: similarities (k, N) of enrolled persons to everybody in the largest gallery, and
            which of them they are, one for each draw.
    """

    strangers: dict[int, _Strangers]
    mates: list[tuple[FloatArray, IntArray]]


def _galleries(
    embeddings: FloatArray,
    labels: IntArray,
    photos: int,
    sizes: list[int],
    rng: np.random.Generator,
) -> _Galleries:
    scores: dict[int, list[Array]] = {size: [] for size in sizes}
    persons: dict[int, list[IntArray]] = {size: [] for size in sizes}
    mates = []
    able = np.flatnonzero(np.bincount(labels) >= photos)
    description = f"galleries, {photos} photo{'s' * (photos > 1)} a person"
    for _ in track(range(_DRAWS), description=description, transient=True):
        order = rng.permutation(len(labels))
        by_person = order[np.argsort(labels[order], kind="stable")]
        first = np.searchsorted(labels[by_person], able)
        enrolled = by_person[first[:, None] + np.arange(photos)]
        templates = embeddings[enrolled].sum(axis=1)
        templates /= np.maximum(np.linalg.norm(templates, axis=1, keepdims=True), 1e-6)
        left = np.setdiff1d(order, enrolled) if photos > 1 else order
        probes = rng.permutation(left)[:_FACES]
        similarity = embeddings[probes] @ templates.T
        for size in sizes:
            for _ in range(10 if size <= _SMALL else 1):
                columns = rng.permutation(len(able))[:size]
                strange = ~np.isin(labels[probes], able[columns])
                nearest = nearest_of(similarity[np.ix_(strange, columns)])
                scores[size].append(cohort_normalised(nearest))
                persons[size].append(labels[probes][strange])
        known = np.isin(labels[probes], able[columns]) & ~np.isin(probes, enrolled)
        rows = np.flatnonzero(known)[:200]
        own = np.argmax(able[columns] == labels[probes[rows]][:, None], axis=1)
        mates.append((similarity[np.ix_(rows, columns)], own))
    return _Galleries(
        {
            size: _Strangers(np.concatenate(scores[size]), np.concatenate(persons[size]))
            for size in sizes
        },
        mates,
    )


def cohort_normalised(nearest: FloatArray) -> npt.NDArray[np.float64]:
    """What is held against a threshold.

    Args:
        nearest: (n, k) float32, of `nearest_of`.

    Returns:
        (n,) float64, the candidates' cosines, less what the cohort adds to their thresholds.
    """
    return nearest[:, 0] - cohort_raise([*nearest[:, 1:].T.astype(np.float64)])


def nearest_of(similarity: FloatArray) -> FloatArray:
    """The candidate's and the cohort's similarities.

    Args:
        similarity: (n, persons) float32, cosines.

    Returns:
        (n, k) float32, best first; k = `COHORT` + 1, or all where there are fewer persons.
    """
    wanted = min(COHORT + 1, similarity.shape[1])
    top = np.partition(similarity, similarity.shape[1] - wanted, axis=1)[:, -wanted:]
    return np.asarray(-np.sort(-top, axis=1))


def _temperature(mates: list[list[tuple[FloatArray, IntArray]]]) -> float:
    """Of the softmax under which the persons that the probes show are likeliest."""

    def surprise(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        total = count = 0.0
        for drawn in mates:
            for similarity, own in drawn:
                logits = similarity / temperature
                highest = logits.max(axis=1, keepdims=True, initial=-np.inf)
                partition = np.log(np.exp(logits - highest).sum(axis=1)) + highest[:, 0]
                total += float((partition - logits[np.arange(len(own)), own]).sum())
                count += len(own)
        return total / max(count, 1)

    best = minimize_scalar(surprise, bounds=(np.log(0.002), np.log(1.0)), method="bounded")
    return float(np.exp(best.x))
