"""One against one: which pairs, how far apart, and the errors of a threshold on them."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from training.errors import Unresolvable
from training.evaluation.scores import EXPECTED, Array, Scores, log_spaced

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Metric = Literal["cosine", "euclidean", "manhattan"]
METRICS: tuple[Metric, ...] = ("cosine", "euclidean", "manhattan")

FACES_PER_PERSON = 25
"""Faces of one person that are paired: genuine pairs grow with the square, and the most
photographed would decide the figures."""
IMPOSTORS = 500_000
"""Impostor pairs; at a rate of 1e-4 fifty of them match."""

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
_AT_ONCE = 1 << 16


def all_pairs(
    labels: IntArray,
    seed: int,
    faces_per_person: int = FACES_PER_PERSON,
    impostors: int = IMPOSTORS,
) -> tuple[IntArray, IntArray]:
    """All genuine pairs and at most `impostors` random impostor pairs, no pair twice.

    Args:
        labels: (n,) person of each face.
        faces_per_person: of who has more, that many take part, drawn at random.

    Returns:
        The faces of each pair, (m,) and (m,) int64.
    """
    rng = np.random.default_rng(seed)
    chosen = at_most(labels, faces_per_person, rng)
    persons = labels[chosen]
    count = len(chosen)
    # Faces stand person by person: those before the first of one's own are strangers.
    begins = np.searchsorted(persons, persons)
    second = np.repeat(np.arange(count), np.arange(count) - begins)
    first = np.concatenate([np.arange(begin, i) for i, begin in enumerate(begins)])
    if begins.sum() <= impostors:
        j = np.repeat(np.arange(count), begins)
        i = np.concatenate([np.arange(begin) for begin in begins])
    else:
        # Half of the cells lie above the diagonal; what is drawn twice counts once.
        j, i = np.divmod(np.unique(rng.integers(0, count * count, 3 * impostors)), count)
        strange = np.flatnonzero(i < begins[j])
        strange = rng.permutation(strange)[:impostors]
        i, j = i[strange], j[strange]
    return chosen[np.append(first, i)], chosen[np.append(second, j)]


def at_most(labels: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    """Indices of up to `most` random faces of each person, person by person."""
    shuffled = rng.permutation(len(labels))
    by_person = shuffled[np.argsort(labels[shuffled], kind="stable")]
    persons = labels[by_person]
    place = np.arange(len(persons)) - np.searchsorted(persons, persons)
    return by_person[place < most]


def distances(embeddings: FloatArray, first: IntArray, second: IntArray, metric: Metric) -> Array:
    """How far the faces of each pair are apart.

    Args:
        embeddings: (n, d) float32 of unit length.
        first, second: (m,) which faces.

    Returns:
        (m,) float64. cosine: 1 - a.b, 0 to 2; euclidean: 0 to 2; manhattan: 0 to 2 sqrt(d).
        Between unit vectors the euclidean distance is sqrt(2 - 2 a.b): it is computed so, and
        has the ROC of the cosine to the last pair.
    """
    found = np.empty(len(first), np.float64)
    for start in range(0, len(found), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        a, b = embeddings[first[part]], embeddings[second[part]]
        if metric == "manhattan":
            found[part] = np.abs(a - b).sum(axis=1)
        else:
            found[part] = np.einsum("nd,nd->n", a, b)
    if metric == "manhattan":
        return found
    cosine = np.maximum(1.0 - found, 0.0)
    return cosine if metric == "cosine" else np.sqrt(2.0 * cosine)


class Verification:
    """Distances of pairs, and every figure of verification: an `Experiment`.

    Attributes:
        distances: (m,) rising.
        same: (m,) bool, in that order.
        curve: error rates over all thresholds, which are distances with a minus.
        axes: FMRs at which the curve `tar` is given.
        unresolved: rates out of `FARS` with too few impostor pairs, and why.
        thresholds: the largest distances that match, by figure.
    """

    def __init__(
        self,
        distances: Array,
        same: BoolArray,
        persons: tuple[IntArray, IntArray] | None = None,
        fold: IntArray | None = None,
        *,
        expected: float = EXPECTED,
    ) -> None:
        """
        Args:
            distances: (m,).
            same: (m,) whether a pair is genuine.
            persons: (m,) and (m,), who is on the two faces; without, all weights are 1.
            fold: (m,) parts for cross-validation.
            expected: as in `Curve.tar_at_far`.

        Raises:
            Unresolvable: all pairs are genuine, or none is; all are in one fold.
        """
        self._scores = Scores(-distances, same)
        order = self._scores.order
        self.distances, self.same = distances[order], same[order]
        self._squares = self.distances**2
        self._same_at = np.flatnonzero(self.same)
        self._persons = None
        if persons is not None:
            one, other = persons[0][order], persons[1][order]
            # The two of a genuine pair are drawn together: the second counts once.
            other[self._same_at] = -1
            self._persons = one, other
        self._fold = None if fold is None else fold[order]
        if fold is not None and len(np.unique(fold)) < 2:
            raise Unresolvable("All pairs are in one fold; cross-validation needs at least two.")

        self.curve = self._scores.curve()
        self.axes = {"tar": log_spaced(self.curve.impostors, expected)}
        self._expected = expected
        self._fars: dict[str, float] = {}
        self.unresolved: dict[str, str] = {}
        self.thresholds: dict[str, float] = {}
        for far in FARS:
            name = f"tar@far={far:.0e}"
            try:
                self.thresholds[name] = -self.curve.threshold_at_far(far, expected)
                self._fars[name] = far
            except Unresolvable as error:
                self.unresolved[name] = str(error)

    def figures(self, weights: Array | None = None) -> dict[str, float | Array]:
        counts = self._weigh(weights)
        curve = self.curve if weights is None else self._scores.curve(counts)
        found: dict[str, float | Array] = {"auc": curve.auc(), "eer": curve.eer()}
        for name, far in self._fars.items():
            found[name] = curve.tar_at_far(far, self._expected)
        if self._fold is not None:
            folds = self.fold_accuracies(weights)
            found["accuracy"] = float(folds.mean())
            found["accuracy error"] = float(folds.std(ddof=1) / len(folds) ** 0.5)
        every = self._sums(counts, slice(None))
        mated = self._sums(counts, self._same_at)
        intra, inter = _moments(mated), _moments(every - mated)
        return found | {
            "tar": 1 - curve.fnmr[curve.at_fmr(self.axes["tar"])],
            "d-prime": _ratio(
                abs(inter[0] - intra[0]), ((inter[1] ** 2 + intra[1] ** 2) / 2) ** 0.5
            ),
            "overlap": curve.overlap(),
            "intra-class mean": intra[0],
            "intra-class sd": intra[1],
            "inter-class mean": inter[0],
            "inter-class sd": inter[1],
            "intra / inter": _ratio(intra[0], inter[0]),
        }

    def fold_accuracies(self, weights: Array | None = None) -> Array:
        """Share of right decisions in each fold, the threshold chosen on all others.

        (LFW's protocol; Huang et al., 2007.) The threshold is the one most accurate there,
        halfway to the next pair beyond it; of several the one that accepts least.
        """
        assert self._fold is not None
        counts = self._weigh(weights)
        return np.array(
            [
                _accuracy(self.distances, self.same, counts, self._fold == fold)
                for fold in np.unique(self._fold)
            ]
        )

    def _weigh(self, weights: Array | None) -> Array:
        """How often each pair counts, nearest pair first."""
        if weights is None or self._persons is None:
            return np.ones(len(self.distances))
        one, other = self._persons
        return np.asarray(weights[one] * np.append(weights, 1.0)[other])

    def _sums(self, counts: Array, chosen: slice | npt.NDArray[np.intp]) -> Array:
        """How many pairs, and the sums of their distances and squared distances."""
        weight, distance = counts[chosen], self.distances[chosen]
        return np.array([weight.sum(), weight @ distance, weight @ self._squares[chosen]])


def _moments(sums: Array) -> tuple[float, float]:
    """Mean and standard deviation."""
    if sums[0] == 0:
        return np.nan, np.nan
    mean = sums[1] / sums[0]
    return float(mean), float(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0)))


def _ratio(a: float, b: float) -> float:
    """NaN where all distances are alike and `b` is 0."""
    return a / b if b else np.nan


def _accuracy(distances: Array, same: BoolArray, counts: Array, tested: BoolArray) -> float:
    """
    Args:
        distances: (m,) rising.
        tested: (m,) which pairs to judge; the threshold is chosen on the rest.
    """
    near = distances[~tested]
    gain = np.cumsum(np.where(same[~tested], counts[~tested], -counts[~tested]))
    ends = np.append(np.flatnonzero(near[1:] != near[:-1]), len(near) - 1)
    # Nothing may be accepted too: before the first pair.
    best = int(np.argmax(np.append(0.0, gain[ends]))) - 1
    if best < 0:
        threshold = -np.inf
    elif best == len(ends) - 1:
        threshold = near[-1]
    else:
        threshold = (near[ends[best]] + near[ends[best] + 1]) / 2
    right = (distances[tested] <= threshold) == same[tested]
    total = counts[tested].sum()
    return float(counts[tested] @ right / total) if total else np.nan
