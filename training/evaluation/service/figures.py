"""From what a service answered to the sections of its report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from training.errors import Unresolvable
from training.evaluation.bootstrap import LEAST_PERSONS, Array, Experiment, Means, draws, resample
from training.evaluation.closed_set import ClosedSet
from training.evaluation.evaluate import RESAMPLES
from training.evaluation.identification import Identification, IntArray
from training.evaluation.report import Curve, Figure, Result, Section, show
from training.evaluation.results import density, result, row
from training.evaluation.service.observe import Observed, Pass, photo_name
from training.evaluation.service.plan import Plan, with_photos
from training.evaluation.service.report import (
    Enrolment,
    Latency,
    RefusedPhoto,
    ServiceFacts,
    ServiceReport,
)
from training.evaluation.service.session import CANDIDATES, Answer

_UNPLACED = 10**6
_PERCENTILES = (50, 90, 99)


def compile_report(
    service: ServiceFacts,
    dataset: str,
    plan: Plan,
    galleries: Sequence[Observed],
    at_once: int,
    seed: int,
    resamples: int = RESAMPLES,
) -> ServiceReport:
    """
    Args:
        galleries: with one photo of each person, and with several.
        resamples: draws of persons for each interval; 0 for none.

    Raises:
        Unresolvable: none of the photos that were looked for could be used.
    """
    looked_for = galleries[-1].probes.answers + galleries[-1].strangers.answers
    not_acquired = counts(answer.code for answer in looked_for if answer.code is not None)
    target = next((a.target_fpir for a in looked_for if a.target_fpir is not None), None)
    if target is None:
        raise Unresolvable(
            "The service could say nothing about any photo; it answered: "
            f"{', '.join(not_acquired)}."
        )
    enough = len(plan.people) >= LEAST_PERSONS
    weights = draws(len(plan.people), resamples if enough else 0, seed)
    sections = [_open_section(plan, gallery, target, weights) for gallery in galleries]
    sections += [_closed_section(plan, g, g.closed, weights) for g in galleries if g.closed]
    return ServiceReport(
        service=service,
        verdict=_verdict(sections[len(galleries) - 1].results[0].figures, target),
        dataset=dataset,
        photos=len(plan.photos),
        persons=len(plan.people),
        left_out=counts(left.code for left in plan.left_out),
        target_fpir=target,
        seed=seed,
        resamples=len(weights),
        at_once=at_once,
        sections=tuple(sections),
        enrolments=tuple(e for gallery in galleries for e in _enrolments(plan, gallery)),
        not_acquired=not_acquired,
        duplicates=tuple(pair for gallery in galleries for pair in gallery.duplicates),
        inconsistent=tuple(photo for gallery in galleries for photo in gallery.inconsistent),
        latencies=tuple(_latencies(galleries)),
    )


def at_target(rate: str, target: float) -> str:
    """Name of the figure `fpir` or `fnir` with a target."""
    return f"{rate}@target={target:g}"


def _open_section(plan: Plan, seen: Observed, target: float, weights: Array) -> Section:
    split, labels = seen.split, plan.labels
    probes, strangers = seen.probes.answers, seen.strangers.answers
    own = [plan.person_id(label) for label in labels[split.probes]]
    rank = np.array([_rank(answer, person) for answer, person in zip(probes, own, strict=True)])
    margin = np.array([answer.margin for answer in probes])
    stranger_margin = np.array([answer.margin for answer in strangers])
    offsets = {target: 0.0} | {t: o for t, o in seen.offsets.items() if t != target}
    resolved = {t: o for t, o in sorted(offsets.items()) if isinstance(o, float)}
    missed = {
        at_target("fnir", t): (rank != 1) | (margin < offset) for t, offset in resolved.items()
    }
    named = {at_target("fpir", t): stranger_margin >= offset for t, offset in resolved.items()}
    everybody = np.concatenate([labels[split.probes], labels[split.strangers]])
    unusable = [answer.code is not None for answer in probes + strangers]
    enrolled = _enrolled(plan, seen)
    experiments: list[Experiment] = [
        Identification(
            rank,
            margin,
            labels[split.probes],
            stranger_margin,
            labels[split.strangers],
            last_rank=CANDIDATES,
        ),
        Means(named, labels[split.strangers]),
        Means(missed, labels[split.probes]),
        Means({"not enrolled": ~enrolled}, np.array(seen.persons)),
        Means({"not acquired": unusable}, everybody),
    ]
    unresolved = {
        at_target(rate, t): Figure(value=None, reason=reason)
        for t, reason in offsets.items()
        if isinstance(reason, str)
        for rate in ("fpir", "fnir")
    }
    measured = _together([result(e, resample(e, weights)) for e in experiments], unresolved)
    curves = measured.curves | _margins(rank, margin, stranger_margin) | _growth(seen)
    enrolled_with = with_photos(seen.photos)
    return Section(
        key=f"identification/{seen.photos}",
        title=f"Open set, {enrolled_with}",
        protocol=(
            f"{len(seen.persons):,} persons were to be enrolled with {enrolled_with}; "
            f"{len(probes):,} further photos of them are looked for, and {len(strangers):,} of "
            f"{len(np.unique(labels[split.strangers])):,} strangers."
        ),
        results=(Result(figures=measured.figures, curves=curves),),
    )


def _closed_section(plan: Plan, seen: Observed, asked: Pass, weights: Array) -> Section:
    person = plan.labels[seen.split.probes]
    own = [plan.person_id(label) for label in person]
    right = [_rank(answer, name) == 1 for answer, name in zip(asked.answers, own, strict=True)]
    probability = np.array([answer.probability for answer in asked.answers], np.float64)
    experiment = ClosedSet(right, probability, person)
    return Section(
        key=f"closed/{seen.photos}",
        title=f"Closed set, {with_photos(seen.photos)}",
        protocol=(
            f"The same {len(right):,} photos of enrolled persons, asked for with mode=closed: "
            "everybody gets a name, and a probability that it is right."
        ),
        results=(result(experiment, resample(experiment, weights)),),
    )


def _rank(answer: Answer, person_id: str) -> int:
    """At which place the person came, from 1; beyond all places if they did not."""
    if person_id not in answer.candidates:
        return _UNPLACED
    return answer.candidates.index(person_id) + 1


def _enrolled(plan: Plan, seen: Observed) -> npt.NDArray[np.bool_]:
    """Of which persons a photo was enrolled."""
    sent = np.bincount(plan.labels[seen.split.gallery])[seen.persons]
    return sent > np.array([len(person.refused) for person in seen.enrolled])


def _together(results: Sequence[Result], unresolved: Mapping[str, Figure]) -> Result:
    """All in one, rates of one kind beside each other and rising."""
    figures: dict[str, Figure] = {}
    curves: dict[str, Curve] = {}
    for part in results:
        figures |= part.figures
        curves |= part.curves
    figures |= unresolved
    kinds = [name.partition("=")[0] for name in figures]

    def place(name: str) -> tuple[int, float]:
        kind, _, rate = name.partition("=")
        return kinds.index(kind), float(rate or 0)

    return Result(
        figures={name: figures[name] for name in sorted(figures, key=place)}, curves=curves
    )


def _margins(rank: IntArray, margin: Array, stranger_margin: Array) -> dict[str, Curve]:
    """Densities of the margin of probes who came first, and of strangers."""
    mates = margin[(rank == 1) & np.isfinite(margin)]
    strangers = stranger_margin[np.isfinite(stranger_margin)]
    both = np.concatenate([mates, strangers])
    if not len(mates) or not len(strangers) or both.min() == both.max():
        return {}
    low, high = float(both.min()), float(both.max())
    return {
        "margin of persons": density(mates, low, high),
        "margin of strangers": density(strangers, low, high),
    }


def _growth(seen: Observed) -> dict[str, Curve]:
    """Threshold and best similarity of the watched strangers over the size of the gallery:
    the median, between the least and the most."""
    grown = [[a for a in answers if np.isfinite(a.margin)] for answers in seen.grown]
    grown = [answers for answers in grown if answers]
    if not grown:
        return {}
    sizes = [answers[0].gallery_size for answers in grown]
    curves = {}
    for name, values in {
        "threshold": [[a.threshold for a in answers] for answers in grown],
        "similarity": [[a.similarity for a in answers] for answers in grown],
    }.items():
        low, middle, high = (
            np.array([np.quantile(np.array(at, np.float64), q) for at in values])
            for q in (0, 0.5, 1)
        )
        curves[f"{name} by size"] = Curve(
            x=tuple(map(float, sizes)), y=row(middle), low=row(low), high=row(high)
        )
    return curves


def _enrolments(plan: Plan, seen: Observed) -> Iterable[Enrolment]:
    photos_each = with_photos(seen.photos)
    split, labels = seen.split, plan.labels
    strangers = np.minimum(np.bincount(labels[split.strangers]), seen.photos).sum()
    for what, photos, enrolled in (
        (f"Persons, {photos_each}", len(split.gallery), seen.enrolled),
        (f"Strangers, {photos_each}, for the duplicates", int(strangers), seen.others),
    ):
        if enrolled:
            yield Enrolment(
                what=what,
                persons=len(enrolled),
                photos=photos,
                refused=tuple(
                    RefusedPhoto(photo=photo_name(path), code=code)
                    for person in enrolled
                    for path, code in person.refused
                ),
            )


def counts(codes: Iterable[str]) -> dict[str, int]:
    """How often each came, the most frequent first."""
    return dict(Counter(codes).most_common())


def _latencies(galleries: Sequence[Observed]) -> Iterable[Latency]:
    opened = [part for gallery in galleries for part in (gallery.probes, gallery.strangers)]
    closed = [gallery.closed for gallery in galleries if gallery.closed is not None]
    calls = {
        f"Enrol, {with_photos(gallery.photos)}": (
            [person.seconds for person in gallery.enrolled],
            gallery.filling,
        )
        for gallery in galleries
    }
    for name, passes in (("Identify", opened), ("Identify, closed set", closed)):
        seconds = [answer.seconds for part in passes for answer in part.answers]
        calls[name] = (seconds, sum(part.elapsed for part in passes))
    for name, (seconds, elapsed) in calls.items():
        p50, p90, p99 = 1000 * np.percentile(seconds, _PERCENTILES)
        yield Latency(
            call=name,
            requests=len(seconds),
            p50_ms=round(p50, 1),
            p90_ms=round(p90, 1),
            p99_ms=round(p99, 1),
            per_second=round(len(seconds) / elapsed, 1),
        )


def _verdict(figures: Mapping[str, Figure], target: float) -> str:
    named, missed = figures[at_target("fpir", target)], figures[at_target("fnir", target)]
    return (
        f"With its own target of {100 * target:g} % the service calls {show(named.value, True)} of "
        f"the strangers somebody and misses {show(missed.value, True)} of the persons enrolled; "
        f"{show(figures['rank-1'].value, True)} come first."
    )
