"""One against many: closed set (CMC) and open set (FNIR at FPIR).

Some faces are enrolled, the *gallery*; a *probe* is a further face of an enrolled person, a
*stranger* a face of somebody else. As the service decides, a face is called by the name of
the person most similar to it, if the cosine reaches the threshold. So a probe is missed when
another person is more similar or the threshold is not reached (FNIR, rank 1), and a stranger
is a false positive when anybody is similar enough (FPIR). (ISO/IEC 19795-1; Grother et al.,
NIST IR 8271.)

Intervals are for other probes and strangers, with the gallery as it is: a resampled gallery
would hold a third fewer people, and identification be easier by that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.errors import Unresolvable
from training.evaluation.scores import EXPECTED, Array, Scores, log_spaced

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.05)
_LAST_RANK = 20
_HIGHEST_FPIR = 0.5
_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Split:
    """Who is enrolled with which faces, and who is looked for.

    Attributes:
        gallery, probes, strangers: indices of faces, rising.
    """

    gallery: IntArray
    probes: IntArray
    strangers: IntArray


def split(labels: IntArray, photos: int = 1, strangers: IntArray | None = None) -> Split:
    """Enrol everybody who has a second face, with their first ones.

    Args:
        labels: (n,) person of each face.
        photos: faces to enrol; who has too few keeps one for the probe.
        strangers: persons not to enrol. By default those with a single face; on LFW that
            enrols 1,680 persons and leaves 7,484 probes and 4,069 strangers.

    Raises:
        Unresolvable: fewer than two persons can be enrolled.
    """
    persons, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    known = counts > 1
    if strangers is None:
        strange = ~known
    else:
        strange = np.isin(persons, strangers)
        known &= ~strange
    if known.sum() < 2:
        raise Unresolvable(
            f"{known.sum()} persons with a second face; identification needs at least two."
        )
    by_person = np.argsort(inverse, kind="stable")
    place = np.empty(len(labels), np.int64)
    place[by_person] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    enrolled = place < np.minimum(photos, counts - 1)[inverse]
    return Split(
        np.flatnonzero(known[inverse] & enrolled),
        np.flatnonzero(known[inverse] & ~enrolled),
        np.flatnonzero(strange[inverse]),
    )


def draw_strangers(labels: IntArray, seed: int) -> IntArray | None:
    """Whom not to enrol: those with a single face if they are enough for an FPIR of 5 %,
    otherwise a random half of all others too.

    Returns:
        Persons, or None for those with a single face.
    """
    persons, counts = np.unique(labels, return_counts=True)
    single, several = persons[counts == 1], persons[counts > 1]
    if len(single) * max(FPIRS) >= EXPECTED:
        return None
    half = np.random.default_rng(seed).choice(several, len(several) // 2, replace=False)
    return np.sort(np.append(single, half))


def draw_split(labels: IntArray, seed: Sequence[int]) -> Split:
    """Enrol about half of the persons at random, each with a photo drawn at random."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))  # a person's first face is the one enrolled
    shuffled = labels[order]
    found = split(shuffled, 1, draw_strangers(shuffled, int(rng.integers(2**31))))
    return Split(*(np.sort(order[part]) for part in (found.gallery, found.probes, found.strangers)))


def mean_over_draws(draws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each figure over several splits, of those figures that all of them resolve:
    a mean over some would be another figure."""
    names = [name for name in draws[0] if all(name in draw for draw in draws)]
    return {name: np.mean([draw[name] for draw in draws], axis=0) for name in names}


def _fnir_at(fpir: float) -> str:
    return f"fnir@fpir={fpir:.0e}"


class Identification:
    """What a search for every probe and every stranger gave: an `Experiment`.

    Attributes:
        axes: ranks at which the curve `cmc` is given, and FPIRs at which `fnir` is.
        unresolved: rates out of `FPIRS` with too few strangers, and why.
        thresholds: the least similarities at which a face is called somebody, by figure.
    """

    def __init__(
        self,
        rank: IntArray,
        score: Array,
        person: IntArray,
        stranger_score: Array,
        stranger: IntArray,
        last_rank: int = _LAST_RANK,
    ) -> None:
        """
        Args:
            rank: (p,) at which place a probe's own person came, from 1; ties count against them.
            score: (p,) similarity to their own person.
            person: (p,) whose probe it is.
            stranger_score: (s,) similarity to the most similar person; s may be 0.
            stranger: (s,) whose face it is.
            last_rank: where `cmc` ends, at least 10; later places are all alike.

        Raises:
            Unresolvable: no probes.
        """
        if not len(rank):
            raise Unresolvable("Nobody was looked for; identification needs a probe.")
        self._last_rank = last_rank
        self._place = np.minimum(rank, last_rank + 1) - 1
        self._person = person
        self.axes = {"cmc": np.arange(1.0, last_rank + 1)}
        strangers = len(stranger_score)
        self._fpirs = {_fnir_at(f): f for f in FPIRS if strangers * f >= EXPECTED}
        self.unresolved = {
            _fnir_at(f): f"{strangers:,} faces of strangers would give {strangers * f:.2g} false "
            f"positives at a rate of {f:g}; {EXPECTED:g} are needed."
            for f in FPIRS
            if _fnir_at(f) not in self._fpirs
        }
        self.thresholds: dict[str, float] = {}
        if strangers * _HIGHEST_FPIR > EXPECTED:
            self.axes["fnir"] = log_spaced(strangers, highest=_HIGHEST_FPIR)
            # FNIR against FPIR is FNMR against FMR, if a probe that does not come first is
            # missed at every threshold: its score is below all others.
            self._scores = Scores(
                np.concatenate([np.where(rank == 1, score, -np.inf), stranger_score]),
                np.repeat([True, False], [len(rank), strangers]),
            )
            self._persons = np.concatenate([person, stranger])[self._scores.order]
            curve = self._scores.curve()
            self.thresholds = {n: curve.threshold_at_far(f) for n, f in self._fpirs.items()}

    def figures(self, weights: Array | None = None) -> dict[str, float | Array]:
        counts = None if weights is None else weights[self._person]
        places = np.bincount(self._place, counts, self._last_rank + 1)
        # A resample may hold none of these persons.
        cmc = np.cumsum(places)[:-1] / (places.sum() or np.nan)
        found: dict[str, float | Array] = {f"rank-{k}": float(cmc[k - 1]) for k in RANKS}
        found["cmc"] = cmc
        if "fnir" in self.axes:
            curve = self._scores.curve(None if weights is None else weights[self._persons])
            for name, fpir in self._fpirs.items():
                found[name] = 1 - curve.tar_at_far(fpir)
            found["fnir"] = curve.fnmr[curve.at_fmr(self.axes["fnir"])]
        return found


def search(embeddings: FloatArray, labels: IntArray, split: Split) -> Identification:
    """Compare probes and strangers with everybody's template.

    Args:
        embeddings: (n, d) float32 of unit length.

    A template is the mean of a person's enrolled embeddings, brought to unit length.
    """
    persons, index = np.unique(labels[split.gallery], return_inverse=True)
    templates = np.zeros((len(persons), embeddings.shape[1]), np.float32)
    np.add.at(templates, index, embeddings[split.gallery])
    templates /= np.maximum(np.linalg.norm(templates, axis=1, keepdims=True), 1e-6)

    own = np.searchsorted(persons, labels[split.probes])
    rank = np.empty(len(split.probes), np.int64)
    score = np.empty(len(split.probes))
    for start in range(0, len(split.probes), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        similarity = embeddings[split.probes[part]] @ templates.T
        mate = similarity[np.arange(len(similarity)), own[part]]
        score[part] = mate
        rank[part] = (similarity >= mate[:, None]).sum(axis=1)
    stranger_score = np.empty(len(split.strangers))
    for start in range(0, len(split.strangers), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        stranger_score[part] = (embeddings[split.strangers[part]] @ templates.T).max(axis=1)
    return Identification(
        rank, score, labels[split.probes], stranger_score, labels[split.strangers]
    )
