"""From embeddings to sections of a report: which trials are run, and what they give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.progress import track

from training.data import Pairs
from training.errors import Unresolvable
from training.evaluation.bootstrap import LEAST_PERSONS, Experiment, draws, interval, resample
from training.evaluation.classification import LEAST_FACES, PERSONS, classify
from training.evaluation.identification import draw_strangers, search, split
from training.evaluation.report import (
    Difference,
    Model,
    Report,
    Result,
    Section,
    quantity,
)
from training.evaluation.results import density, number, result
from training.evaluation.retrieval import retrieve
from training.evaluation.scores import Array
from training.evaluation.separation import silhouettes
from training.evaluation.verdict import verdict
from training.evaluation.verification import (
    FACES_PER_PERSON,
    METRICS,
    Metric,
    Verification,
    all_pairs,
    distances,
)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RESAMPLES = 500
PHOTOS = (1, 3)
"""Photos that are enrolled of each person, where there are as many."""

# A pair list is somebody's fixed protocol: LFW's 3,000 impostor pairs are always quoted at 1e-3.
_EXPECTED_OF_A_LIST = 3.0
LEAST_KNOWN = 4
"""Persons with a second face: some to enrol and some to leave out."""
# What two ways to compute the same may differ by.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class _Trial:
    """One protocol, to be run for each model.

    Attributes:
        run: from (n, d) float32 embeddings of unit length.
    """

    key: str
    title: str
    protocol: str
    run: Callable[[FloatArray], Experiment]


def evaluate(
    models: Mapping[str, FloatArray],
    labels: IntArray,
    *,
    dataset: str = "",
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: bool = False,
) -> Report:
    """Everything that labelled faces can say about an embedder, or about two.

    Args:
        models: (n, d) float32 embeddings by name, of any length but 0; the first is the model,
            a second its baseline.
        labels: (n,) person of each face; of each person's the first are enrolled.
        dataset: what the report calls the faces.
        resamples: draws of persons for each interval; 0 for none.

    Raises:
        Unresolvable: fewer than four persons have a second face.
    """
    sections = measure_faces(list(models.values()), labels, seed, resamples, progress)
    about = [Model(name=name) for name in models]
    persons = len(np.unique(labels))
    return compile_report(about, sections, dataset, (len(labels), persons), seed, resamples)


def evaluate_pairs(
    models: Mapping[str, FloatArray],
    pairs: Pairs,
    *,
    dataset: str = "",
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: bool = False,
) -> Report:
    """What a list of pairs can say; arguments as in `evaluate`.

    Args:
        models: embeddings of `pairs.faces`, in that order.
    """
    sections = measure_pairs(list(models.values()), pairs, seed, resamples, progress)
    about = [Model(name=name) for name in models]
    persons = 0 if pairs.persons is None else len(np.unique(pairs.persons))
    return compile_report(about, sections, dataset, (len(pairs.faces), persons), seed, resamples)


def compile_report(
    models: Sequence[Model],
    sections: tuple[Section, ...],
    dataset: str,
    size: tuple[int, int],
    seed: int,
    resamples: int,
) -> Report:
    """
    Args:
        size: faces and persons; 0 persons if nobody knows.
    """
    return Report(
        models=tuple(models),
        verdict=verdict([model.name for model in models], sections),
        dataset=dataset,
        faces=size[0],
        persons=size[1],
        seed=seed,
        resamples=resamples,
        sections=sections,
    )


def measure_faces(
    embeddings: Sequence[FloatArray], labels: IntArray, seed: int, resamples: int, progress: bool
) -> tuple[Section, ...]:
    """The sections of `evaluate`."""
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if (counts > 1).sum() < LEAST_KNOWN:
        raise Unresolvable(
            f"{(counts > 1).sum()} persons with a second face; an evaluation needs at least "
            f"{LEAST_KNOWN}: some to enrol and some to leave out."
        )
    trials = [
        *_pair_trials(labels, seed),
        *_identification_trials(labels, seed),
        _Trial(
            "retrieval",
            "Retrieval",
            f"Each of {counts[counts > 1].sum():,} faces asks for the other faces of its person "
            f"among all {len(labels):,}.",
            lambda vectors: retrieve(vectors, labels),
        ),
        _Trial(
            "classification",
            "Closed set, several faces of everybody",
            f"Half of everybody's faces are learnt, the others named: up to {PERSONS:,} persons "
            f"with {LEAST_FACES} to {FACES_PER_PERSON} faces.",
            lambda vectors: classify(vectors, labels, seed),
        ),
        _Trial(
            "separation",
            "Separation of persons",
            "The cosine distance of each face to the mean of its person's other faces, against "
            "that to the nearest other person's.",
            lambda vectors: silhouettes(vectors, labels),
        ),
    ]
    return _measure(trials, embeddings, len(counts), seed, resamples, progress)


def measure_pairs(
    embeddings: Sequence[FloatArray], pairs: Pairs, seed: int, resamples: int, progress: bool
) -> tuple[Section, ...]:
    """The sections of `evaluate_pairs`."""
    who, persons = None, 0
    if pairs.persons is not None:
        names, person = np.unique(pairs.persons, return_inverse=True)
        who, persons = (person[pairs.first], person[pairs.second]), len(names)
    fold = pairs.fold if len(np.unique(pairs.fold)) > 1 else None
    strange = int((~pairs.same).sum())
    protocol = f"{int(pairs.same.sum()):,} genuine and {strange:,} impostor pairs of a list"
    if fold is not None:
        protocol += f"; accuracy over its {len(np.unique(fold))} folds"
    protocol += (
        f". Rates are given down to {_EXPECTED_OF_A_LIST:g} false matches, as is customary with "
        "lists; mind the intervals."
    )
    if who is None:
        protocol += " It does not say who the people are, so there are no intervals."

    def trial(metric: Metric) -> _Trial:
        return _Trial(
            f"list/{metric}",
            f"Verification, pair list, {metric}",
            protocol,
            lambda vectors: Verification(
                distances(vectors, pairs.first, pairs.second, metric),
                pairs.same,
                who,
                fold,
                expected=_EXPECTED_OF_A_LIST,
            ),
        )

    trials = [trial(metric) for metric in METRICS]
    return _measure(trials, embeddings, persons, seed, resamples, progress)


def _pair_trials(labels: IntArray, seed: int) -> list[_Trial]:
    first, second = all_pairs(labels, seed)
    one, other = labels[first], labels[second]
    genuine = int((one == other).sum())
    protocol = (
        f"{genuine:,} genuine pairs, all among up to {FACES_PER_PERSON} faces of a person, and "
        f"{len(first) - genuine:,} impostor pairs, drawn at random where there are more."
    )

    def trial(metric: Metric) -> _Trial:
        return _Trial(
            f"pairs/{metric}",
            f"Verification, all pairs, {metric}",
            protocol,
            lambda vectors: Verification(
                distances(vectors, first, second, metric), one == other, (one, other)
            ),
        )

    return [trial(metric) for metric in METRICS]


def _identification_trials(labels: IntArray, seed: int) -> list[_Trial]:
    strangers = draw_strangers(labels, seed)
    who = "who have one photo" if strangers is None else "a random half, and who has one photo"

    def trial(photos: int) -> _Trial:
        chosen = split(labels, photos, strangers)
        enrolled = "photo" if photos == 1 else f"{photos} photos, or fewer, as their mean"
        protocol = (
            f"{len(np.unique(labels[chosen.gallery])):,} persons are enrolled with their first "
            f"{enrolled}; {len(chosen.probes):,} further photos of them are looked for, and "
            f"{len(chosen.strangers):,} of {len(np.unique(labels[chosen.strangers])):,} strangers "
            f"({who}). Intervals are for other probes; the gallery stays."
        )
        return _Trial(
            f"identification/{photos}",
            f"Identification, {photos} photo{'s' if photos > 1 else ''} enrolled",
            protocol,
            lambda vectors: search(vectors, labels, chosen),
        )

    return [trial(photos) for photos in PHOTOS]


def _measure(
    trials: Sequence[_Trial],
    embeddings: Sequence[FloatArray],
    persons: int,
    seed: int,
    resamples: int,
    progress: bool,
) -> tuple[Section, ...]:
    """Run every trial for every model, under the same draws of persons.

    Args:
        persons: how many there are; too few for intervals are not drawn from.
    """
    vectors = [_unit(part) for part in embeddings]
    enough = persons >= LEAST_PERSONS
    weights = draws(persons, resamples, seed) if enough else np.empty((0, persons))
    sections = []
    for trial in track(trials, description="evaluating", disable=not progress):
        section = Section(key=trial.key, title=trial.title, protocol=trial.protocol)
        try:
            experiments = [trial.run(part) for part in vectors]
        except Unresolvable as error:
            sections.append(section.model_copy(update={"reason": str(error)}))
            continue
        samples = [resample(experiment, weights) for experiment in experiments]
        results = tuple(map(_result, experiments, samples))
        if trial.key.endswith("/cosine"):
            results = tuple(map(_as_similarity, results))
        differences = _compare(results, samples) if len(results) > 1 else {}
        sections.append(section.model_copy(update={"results": results, "differences": differences}))
    return tuple(sections)


def _unit(embeddings: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise Unresolvable("Some embeddings are not finite or have no direction.")
    return np.asarray(embeddings / lengths, np.float32)


def _result(experiment: Experiment, samples: Mapping[str, Array]) -> Result:
    found = result(experiment, samples)
    if not isinstance(experiment, Verification):
        return found
    values, highest = experiment.distances, float(experiment.distances[-1])
    densities = {
        "intra-class": density(values[experiment.same], 0, highest),
        "inter-class": density(values[~experiment.same], 0, highest),
    }
    return found.model_copy(update={"curves": found.curves | densities})


def _as_similarity(result: Result) -> Result:
    """Thresholds as the cosine itself, as in a model's calibration, not as a distance."""
    figures = {
        name: figure
        if figure.threshold is None
        else figure.model_copy(update={"threshold": number(1 - figure.threshold)})
        for name, figure in result.figures.items()
    }
    return result.model_copy(update={"figures": figures})


def _compare(
    results: Sequence[Result], samples: Sequence[Mapping[str, Array]]
) -> dict[str, Difference]:
    """The first minus the second, figure by figure."""
    differences = {}
    ours, theirs = (result.figures for result in results)
    for name in ours:
        a, b = ours[name].value, theirs[name].value
        if a is None or b is None:
            continue
        low, high, better = None, None, None
        if samples[0]:
            low, high = map(number, interval(samples[0][name] - samples[1][name]))
        higher = quantity(name).higher
        if low is not None and high is not None and (low > _ROUNDING or high < -_ROUNDING):
            better = None if higher is None else (low > 0) == higher
        differences[name] = Difference(value=a - b, low=low, high=high, better=better)
    return differences
