"""Every loss on the same faces, with the same budget, from the same start.

    faceid-train compare faces/ --output runs/losses

The trunk of the shipped SFace stays as it is; what it makes of every face is computed once and
kept in the output folder. On these features each loss trains a new head, BN - FC - BN like
SFace's own, from the same random weights and over the same number of faces. A fifth of the persons
is never trained on: they are who the heads are judged by.

The rate that suits one loss ruins another. So each is tried with all of `RATES`, for half as
many steps on four fifths of the persons to train on, and keeps the one with which it tells the
others apart best; then it starts over with all of them. (Musgrave, Belongie and Lim, "A Metric
Learning Reality Check", ECCV 2020: much of what separates losses in print is how well each was
tuned.)

Left in the output folder: `compare.json`, `losses.png`, `distances.png`, and the features, with
which the next run begins.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from training import losses
from training.backbones.cpu import keep_freed_memory
from training.backbones.layers import Backbone, embedding_norm
from training.cleaning import believable
from training.comparison import Comparison, Contrast, Row, draw_distances, draw_losses
from training.data import FaceSet, PersonBatches, ShuffledBatches, split_persons
from training.errors import Diverged, TooFewPersons
from training.evaluation import Verification, all_pairs, distances, search
from training.evaluation.bootstrap import LEAST_PERSONS, Experiment, draws, interval, resample
from training.evaluation.identification import draw_split, mean_over_draws
from training.evaluation.report import Curve, Difference, Figure, quantity
from training.evaluation.retrieval import retrieve
from training.evaluation.verification import FACES_PER_PERSON, at_most
from training.features import Features, autocast, cache_features
from training.files import replacing
from training.progress import ComparisonBars

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


class Variant(NamedTuple):
    """A loss of `training.losses`, its parameters those of its paper but for these."""

    loss: str
    parameters: Mapping[str, Any] = {}


VARIANTS = {
    "softmax": Variant("softmax"),
    "softmax + center": Variant("center"),
    "normalised softmax": Variant("normalised-softmax"),
    "A-Softmax": Variant("a-softmax"),
    "CosFace": Variant("cosface"),
    "ArcFace": Variant("arcface"),
    "sub-center ArcFace": Variant("subcenter-arcface"),
    "contrastive": Variant("contrastive"),
    "triplet, random": Variant("triplet", {"mining": "random"}),
    "triplet, all": Variant("triplet", {"mining": "all"}),
    "triplet, semi-hard": Variant("triplet", {"mining": "semihard"}),
    "triplet, hard": Variant("triplet", {"mining": "hard"}),
    "triplet, batch-hard": Variant("triplet", {"mining": "batch-hard"}),
}
UNTRAINED, SHIPPED = "untrained head", "shipped head"

CONTRASTS = (
    *((f"triplet, {mining}", "triplet, random")
      for mining in ("all", "semi-hard", "hard", "batch-hard")),
    ("softmax + center", "softmax"),
    ("ArcFace", "softmax"),
    ("ArcFace", "normalised softmax"),
    *((name, UNTRAINED) for name in VARIANTS),
)  # fmt: skip
"""Which two are compared on the same draws of persons."""

RATES = (1e-4, 3e-4, 1e-3)
"""Of the head; with Adam the size of a step, whatever a loss is scaled by."""
CLASS_RATE = 1e-2
"""Of the losses' own weights, vectors of 128 components where those of the head have 50,176."""
HELD_OUT = 0.2
STEPS = 120
BATCH_SIZE = 128
RESAMPLES = 500

GALLERIES = 5
"""Draws of who is enrolled, and with which photo: one alone says more about the draw."""
IMPOSTORS = 150_000
FIGURES = (
    "tar@far=1e-03", "tar@far=1e-04", "eer", "auc", "rank-1", "fnir@fpir=1e-02", "MAP@R",
    "intra-class mean", "inter-class mean", "intra / inter", "d-prime",
)  # fmt: skip

_WARM_UP = 0.1
_EPS = 2e-5  # of SFace's own head
_FACES_PER_BATCH = 4  # of a person, where a loss compares the faces of a batch
_AT_ONCE = 128
_EDGES = np.linspace(0, 1.6, 81)


def compare(
    faces: FaceSet,
    backbone: Backbone,
    output: Path,
    *,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    resamples: int = RESAMPLES,
    seed: int = 0,
    variants: Mapping[str, Variant] = VARIANTS,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Train a head with each loss, and judge all of them.

    Args:
        backbone: a trained one, whose trunk all heads share.
        output: folder; made if it is not there.
        steps: of each training.
        batch_size: faces in a step.
        resamples: draws of persons for each interval.
        say: told what happened, in a line.

    Raises:
        DataError: the faces cannot be trained with, or the persons are too few.
        Diverged: a loss is not finite.
        NoSpace: the disk is full.
    """
    keep_freed_memory()
    output.mkdir(parents=True, exist_ok=True)
    file = cache_features(faces, backbone, output)
    everything = Features(file, np.arange(len(faces)), faces.labels)
    own = embed(backbone.head, everything)

    kept = np.flatnonzero(believable(own, faces.labels, least=2))
    train_on, held_out = split_persons(faces.labels[kept], HELD_OUT, seed)
    learnt, judged = everything.only(kept[train_on]), everything.only(kept[held_out])
    fit_on, try_on = split_persons(learnt.labels, HELD_OUT, seed)
    fitted, tried = learnt.only(fit_on), learnt.only(try_on)
    rng = np.random.default_rng(seed)
    tried = tried.only(at_most(tried.labels, FACES_PER_PERSON, rng))
    trial_steps = math.ceil(steps / 2)
    say(
        f"{len(faces) - len(kept):,} of {len(faces):,} faces are left out, their labels look "
        f"wrong. {len(learnt):,} of {learnt.persons:,} persons to train on, {len(judged):,} of "
        f"{judged.persons:,} others to judge by."
    )

    start, early_start = (new_head(part, backbone.dimension, seed) for part in (learnt, fitted))
    judge, trial = Judge(judged.labels, seed), Judge(tried.labels, seed)
    embeddings = {UNTRAINED: embed(start, judged)}
    about: dict[str, dict[str, Any]] = {UNTRAINED: {}, SHIPPED: {}}
    console = Console(stderr=True)
    with ComparisonBars(len(variants) * (len(RATES) * trial_steps + steps), console) as bars:
        for name, variant in variants.items():
            scores = {}
            for rate in RATES:
                told = bars.begin(f"{name}, rate {rate:g}", trial_steps)
                head = fit(variant, early_start, fitted, rate, trial_steps, batch_size, seed, told)
                scores[rate] = trial.tail(embed(head, tried))
            best = max(RATES, key=lambda rate: scores[rate])
            told = bars.begin(f"{name}, all persons", steps)
            then = time.monotonic()
            head = fit(variant, start, learnt, best, steps, batch_size, seed, told)
            about[name] = {
                "loss": variant.loss,
                "parameters": dict(variant.parameters),
                "rate": best,
                "tried": {f"{rate:g}": score for rate, score in scores.items()},
                "seconds": round(time.monotonic() - then, 1),
            }
            embeddings[name] = embed(head, judged)
            say(f"{name}: TAR at FAR 1e-3 {judge.tail(embeddings[name]):.1%}, rate {best:g}.")
    embeddings[SHIPPED] = own[judged.rows]

    weights = draws(judged.persons, resamples, seed)
    values = {name: judge.figures(vectors) for name, vectors in embeddings.items()}
    samples = {
        name: judge.resample(embeddings[name], weights)
        for name in track(embeddings, "judging", console=console, disable=not console.is_terminal)
    }
    comparison = Comparison(
        trained_on=(len(learnt), learnt.persons),
        judged_by=(len(judged), judged.persons),
        steps=steps,
        batch_size=batch_size,
        resamples=resamples,
        seed=seed,
        rows=tuple(
            Row(
                name=name,
                figures={f: _figure(value, samples[name][f]) for f, value in values[name].items()},
                **judge.histograms(embeddings[name]),
                **about[name],
            )
            for name in embeddings
        ),
        contrasts=tuple(
            Contrast(
                model=a,
                baseline=b,
                differences={
                    f: _difference(f, values[a][f] - values[b][f], samples[a][f] - samples[b][f])
                    for f in values[a]
                },
            )
            for a, b in CONTRASTS
            if {a, b} <= values.keys()
        ),
    )
    with replacing(output / "compare.json") as partial:
        partial.write_text(comparison.model_dump_json(indent=1) + "\n", "utf-8")
    draw_losses(comparison, output / "losses.png")
    draw_distances(comparison, output / "distances.png")
    return comparison


@torch.no_grad()
def new_head(faces: Features, dimension: int, seed: int) -> nn.Sequential:
    """BN - FC - BN with random weights, the statistics of both normalisations from `faces`.

    Those of the features stay: with a frozen trunk they have nothing to follow. Without scale
    and shift, which the fully connected layer makes up for, the first normalisation needs no
    gradient, and a step costs a third less.
    """
    torch.manual_seed(seed)
    channels, *sides = faces.file.shape[1:]
    first = nn.BatchNorm2d(channels, _EPS, momentum=None, affine=False)
    fc = nn.Linear(channels * math.prod(sides), dimension)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(at_most(faces.labels, FACES_PER_PERSON, rng))
    batches = np.array_split(chosen, math.ceil(len(chosen) / _AT_ONCE))
    for batch in batches:
        first(faces.read(batch).float())
    first.eval()
    raw = torch.cat([fc(first(faces.read(batch).float()).flatten(1)) for batch in batches])
    last = embedding_norm(dimension, _EPS)
    last.running_mean, last.running_var = raw.mean(dim=0), raw.var(dim=0)
    return nn.Sequential(first, nn.Flatten(), fc, last)


@torch.inference_mode()
def embed(head: nn.Module, faces: Features) -> FloatArray:
    """(n, d) float32 of unit length."""
    head.eval()
    batches = np.array_split(np.arange(len(faces)), math.ceil(len(faces) / _AT_ONCE))
    with autocast():
        vectors = torch.cat([head(faces.read(batch).float()) for batch in batches]).float()
    return np.asarray(nn.functional.normalize(vectors).numpy(), np.float32)


def fit(
    variant: Variant,
    start: nn.Sequential,
    faces: Features,
    rate: float,
    steps: int,
    batch_size: int,
    seed: int,
    told: Callable[[float], None] = lambda _: None,
) -> nn.Sequential:
    """A head that began as `start` and has learnt from `faces`.

    Args:
        rate: peak rate of the head; it rises over a tenth of the steps and falls along a
            cosine.
        told: the loss of each step.

    Raises:
        TooFewPersons: batches cannot be made of these faces.
        Diverged: the loss is not finite.
    """
    torch.manual_seed(seed)
    head = copy.deepcopy(start)
    dimension = cast(nn.Linear, start[2]).out_features
    loss = losses.build(
        variant.loss, dimension=dimension, classes=faces.persons, **variant.parameters
    )
    batches: PersonBatches | ShuffledBatches
    if loss.batches == "person":
        persons = batch_size // _FACES_PER_BATCH
        batches = PersonBatches(faces.labels, persons, _FACES_PER_BATCH, seed)
    else:
        batches = ShuffledBatches(faces.labels, batch_size, seed)

    groups: list[dict[str, Any]] = [
        {"params": [p for p in head.parameters() if p.requires_grad], "max_lr": rate},
        {"params": list(loss.parameters()), "max_lr": CLASS_RATE},
    ]
    groups = [group for group in groups if group["params"]]
    optimiser = torch.optim.Adam(groups, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [g["max_lr"] for g in groups], steps, pct_start=_WARM_UP, cycle_momentum=False
    )
    head.train()
    first, flatten, fc, last = head
    first.eval()
    plan = (batch for epoch in itertools.count() for batch in batches.batches(epoch))
    for step, batch in enumerate(itertools.islice(plan, steps)):
        loss.progress(step / steps)
        features = flatten(first(faces.read(batch).float()))
        with autocast():
            raw = fc(features)
        value = loss(last(raw.float()), torch.from_numpy(faces.labels[batch]))
        current = value.item()
        if not math.isfinite(current):
            raise Diverged(f"{variant.loss} is {current} at step {step:,}, at a rate of {rate:g}.")
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        told(current)
    return head


class Judge:
    """Persons nobody trained on, and what is asked of them: the same for every head.

    Raises:
        TooFewPersons: fewer than `LEAST_PERSONS`.
    """

    def __init__(self, labels: IntArray, seed: int) -> None:
        """
        Args:
            labels: (n,) person of each face.
        """
        if (persons := int(labels.max()) + 1) < LEAST_PERSONS:
            raise TooFewPersons(
                f"{persons} persons to judge by; a comparison needs {LEAST_PERSONS}, about 65 "
                "in all."
            )
        self._labels = labels
        self._first, self._second = all_pairs(labels, seed, impostors=IMPOSTORS)
        self._galleries = [draw_split(labels, [seed, draw]) for draw in range(GALLERIES)]

    def verification(self, embeddings: FloatArray) -> Verification:
        one, other = self._labels[self._first], self._labels[self._second]
        apart = distances(embeddings, self._first, self._second, "cosine")
        return Verification(apart, one == other, (one, other))

    def tail(self, embeddings: FloatArray) -> float:
        """What rates are chosen by: TAR at FAR 1e-3; where that is not resolved, 1 - EER."""
        figures = self.verification(embeddings).figures()
        return float(figures.get("tar@far=1e-03", 1 - figures["eer"]))

    def figures(self, embeddings: FloatArray) -> dict[str, float]:
        """Those of `FIGURES` that the faces resolve."""
        found: dict[str, float] = self._measure(embeddings, lambda e: e.figures())
        return {name: float(value) for name, value in found.items()}

    def resample(self, embeddings: FloatArray, weights: Array) -> dict[str, Array]:
        """The same under each row of `weights`, (resamples,) by name."""
        found: dict[str, Array] = self._measure(embeddings, lambda e: resample(e, weights))
        return found

    def _measure(self, embeddings: FloatArray, measure: Callable[[Experiment], Any]) -> Any:
        searches = [measure(search(embeddings, self._labels, g)) for g in self._galleries]
        found: dict[str, Any] = dict(mean_over_draws(searches))
        found |= measure(retrieve(embeddings, self._labels))
        found |= measure(self.verification(embeddings))
        return {name: found[name] for name in FIGURES if name in found}

    def histograms(self, embeddings: FloatArray) -> dict[str, Curve]:
        """Densities of the cosine distances of genuine and of impostor pairs."""
        pairs = self.verification(embeddings)
        centres = ((_EDGES[1:] + _EDGES[:-1]) / 2).round(4).tolist()
        return {
            name: Curve(
                x=centres,
                y=np.histogram(pairs.distances[chosen], _EDGES, density=True)[0].round(4).tolist(),
            )
            for name, chosen in (("genuine", pairs.same), ("impostor", ~pairs.same))
        }


def _figure(value: float, samples: Array) -> Figure:
    low, high = interval(samples)
    return Figure(value=_short(value), low=_short(low), high=_short(high))


def _difference(name: str, value: float, samples: Array) -> Difference:
    low, high = (_short(end) for end in interval(samples))
    higher = quantity(name).higher
    shown = higher is not None and (low > 0 or high < 0)
    better = (low > 0) == higher if shown else None
    return Difference(value=_short(value), low=low, high=high, better=better)


def _short(value: float | Array) -> float:
    return float(f"{value:.6g}")
