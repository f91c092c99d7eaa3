"""How well decisions keep their promises, on the people of Labeled Faces in the Wild.

faceid-train prepare lfw lfw-aligned
python -m tests.benchmarks.bench_promise --faces lfw-aligned

fusion    FNIR at a fixed FPIR: ways to make one score of a person's photos, with and without
          the cohort
promise   realised FPIR for a target, in galleries of several sizes, of people the calibration
          never saw: one half of the persons calibrates, the other is tested, and the reverse
closed    rank-1 and expected calibration error of the closed set
large     the threshold in galleries up to a million persons, drawn from a normal
          distribution fitted to LFW's templates
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.decision.closed_set import probabilities
from app.decision.identification import IdentificationThresholds
from app.inference.embedder import embed_batch
from app.inference.pool import available_cores
from app.inference.session import open_session
from app.models.spec import SHIPPED_EMBEDDER, Calibration, EmbedderSpec
from training.calibration import measure
from training.calibration.identification import cohort_normalised, nearest_of
from training.data import open_faces
from training.evaluation import embed_faces, split
from training.evaluation.closed_set import ClosedSet
from training.evaluation.scores import Scores

DRAWS = 20
TARGETS = (0.01, 0.05)
CELLS = ((100, 1), (500, 1), (2000, 1), (100, 3), (400, 3))
LEAST_STRANGERS = 800


def templates(embeddings: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    sums = np.stack([embeddings[group].sum(axis=0) for group in groups])
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def fusion(embeddings: np.ndarray, labels: np.ndarray, norms: np.ndarray) -> Table:
    """FNIR of every way to fuse, on LFW's usual split."""
    table = Table(title="FNIR at FPIR 1 % and 5 %, 1,680 persons, 4,069 strangers")
    for column in ("fusion", "cohort", "one photo", "", "up to three", ""):
        table.add_column(column, justify="right" if column not in ("fusion", "cohort") else "left")
    rows: dict[tuple[str, str], list[str]] = {}
    for photos in (1, 3):
        drawn = split(labels, photos)
        persons, index = np.unique(labels[drawn.gallery], return_inverse=True)
        probes = embeddings[np.concatenate([drawn.probes, drawn.strangers])]
        own = np.searchsorted(persons, labels[drawn.probes])
        faces = probes @ embeddings[drawn.gallery].T
        groups = [np.flatnonzero(index == person) for person in range(len(persons))]

        def per_person(
            combine: Callable[[np.ndarray], np.ndarray],
            faces: np.ndarray = faces,
            groups: list[np.ndarray] = groups,
        ) -> np.ndarray:
            return np.stack([combine(faces[:, group]) for group in groups], axis=1)

        weighted = embeddings * norms[:, None]
        enrolled = [drawn.gallery[group] for group in groups]
        scored = {
            "best single face": per_person(lambda s: s.max(axis=1)),
            "mean of the two best": per_person(lambda s: np.sort(s, axis=1)[:, -2:].mean(axis=1)),
            "mean of all scores": per_person(lambda s: s.mean(axis=1)),
            "mean template": probes @ templates(embeddings, enrolled).T,
            "template weighted by norm": probes @ templates(weighted, enrolled).T,
        }
        for name, similarity in scored.items():
            top = nearest_of(similarity)
            right = similarity[: len(own)].argmax(axis=1) == own
            for cohort in ("", "yes"):
                score = cohort_normalised(top) if cohort else top[:, 0].astype(np.float64)
                score[: len(own)][~right] = -np.inf
                mated = np.arange(len(score)) < len(own)
                curve = Scores(score, mated).curve()
                rows.setdefault((name, cohort), []).extend(
                    f"{1 - curve.tar_at_far(target):.2%}" for target in TARGETS
                )
    for (name, cohort), figures in rows.items():
        table.add_row(name, cohort, *figures)
    return table


def draw_gallery(
    embeddings: np.ndarray, labels: np.ndarray, persons: int, photos: int, rng: np.random.Generator
) -> np.ndarray:
    """The nearest similarities (s, k) of one face of each stranger to a random gallery."""
    able = np.flatnonzero(np.bincount(labels) >= photos)
    order = rng.permutation(len(labels))
    by_person = order[np.argsort(labels[order], kind="stable")]
    enrolled = rng.permutation(able)[:persons]
    first = np.searchsorted(labels[by_person], enrolled)
    groups = list(by_person[first[:, None] + np.arange(photos)])
    strangers = np.setdiff1d(labels, enrolled)
    assert len(enrolled) == persons
    assert len(strangers) >= LEAST_STRANGERS
    faces = by_person[np.searchsorted(labels[by_person], strangers)]
    return nearest_of(embeddings[faces] @ templates(embeddings, groups).T)


def halves(labels: np.ndarray) -> list[np.ndarray]:
    """Faces of either half of the persons."""
    persons = np.random.default_rng(0).permutation(labels.max() + 1)
    first = np.isin(labels, persons[: len(persons) // 2])
    return [np.flatnonzero(first), np.flatnonzero(~first)]


def promise(
    embeddings: np.ndarray,
    labels: np.ndarray,
    calibrations: list[tuple[Calibration, np.ndarray]],
    title: str,
) -> Table:
    """Realised FPIR of calibrations on the faces each is tested on."""
    table = Table(title=title)
    table.add_column("persons", justify="right")
    table.add_column("photos", justify="right")
    for target in TARGETS:
        table.add_column(f"target {target:.0%}", justify="right")
        table.add_column("draws from", justify="right")
        table.add_column("fixed threshold", justify="right")
    for persons, photos in CELLS:
        realised: dict[float, list[float]] = {target: [] for target in TARGETS}
        fixed: dict[float, list[float]] = {target: [] for target in TARGETS}
        for calibration, tested in calibrations:
            many = calibration.identification
            thresholds = IdentificationThresholds(
                many.fpir, many.photos, many.persons, many.similarity
            )
            vectors = embeddings[tested]
            own = np.unique(labels[tested], return_inverse=True)[1]
            rng = np.random.default_rng(1)
            # What a service with one cosine does: right for a hundred persons.
            hundred = np.concatenate(
                [draw_gallery(vectors, own, 100, 1, rng)[:, 0] for _ in range(DRAWS)]
            )
            for _ in range(DRAWS):
                top = draw_gallery(vectors, own, persons, photos, rng)
                score = cohort_normalised(top)
                for target in TARGETS:
                    least = thresholds.similarity(target, persons, photos)
                    realised[target].append(float((score >= least).mean()))
                    cosine = np.quantile(hundred, 1 - target)
                    fixed[target].append(float((top[:, 0] >= cosine).mean()))
        cells = []
        for target in TARGETS:
            rates = realised[target]
            kept = target / 2 <= np.mean(rates) <= 2 * target
            cells += [
                f"{np.mean(rates):.2%}{'' if kept else ' missed'}",
                f"{min(rates):.2%} to {max(rates):.2%}",
                f"{np.mean(fixed[target]):.2%}",
            ]
        table.add_row(f"{persons:,}", str(photos), *cells)
    return table


def closed(embeddings: np.ndarray, labels: np.ndarray, temperature: float) -> Table:
    table = Table(title="closed set, 1,680 persons")
    for column in ("photos", "rank-1", "expected calibration error"):
        table.add_column(column, justify="right")
    for photos in (1, 3):
        drawn = split(labels, photos)
        persons, index = np.unique(labels[drawn.gallery], return_inverse=True)
        groups = [drawn.gallery[index == person] for person in range(len(persons))]
        similarity = embeddings[drawn.probes] @ templates(embeddings, groups).T
        own = np.searchsorted(persons, labels[drawn.probes])
        shares = np.array([probabilities(row, temperature).max() for row in similarity])
        right = similarity.argmax(axis=1) == own
        figures = ClosedSet(right, shares, labels[drawn.probes]).figures()
        table.add_row(
            f"up to {photos}", f"{figures['rank-1']:.2%}", f"{figures['calibration error']:.2%}"
        )
    return table


def large(embeddings: np.ndarray, labels: np.ndarray) -> Table:
    """Similarities of 3,000 strangers in galleries of persons who look as LFW's do."""
    rng = np.random.default_rng(2)
    first = embeddings[np.unique(labels, return_index=True)[1]]
    mean = first.mean(axis=0)
    spread = np.linalg.cholesky(np.cov(first.T) + 1e-9 * np.eye(first.shape[1]))

    def persons(count: int) -> np.ndarray:
        drawn = (mean + rng.standard_normal((count, len(mean))) @ spread.T).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    table = Table(title="threshold at FPIR 1 %, and 5 %")
    for column in ("persons", "with the cohort", "", "similarity alone", ""):
        table.add_column(column, justify="right")
    strangers = persons(3000)
    top = np.empty((len(strangers), 0), np.float32)
    drawn = 0
    for size in track((100, 1000, 10_000, 100_000, 1_000_000), description="galleries"):
        while drawn < size:
            count = min(20_000, size - drawn)
            top = nearest_of(np.concatenate([top, strangers @ persons(count).T], axis=1))
            drawn += count
        score = cohort_normalised(top)
        figures = [np.quantile(s, 1 - t) for s in (score, top[:, 0]) for t in TARGETS]
        table.add_row(f"{size:,}", *(f"{figure:.3f}" for figure in figures))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="LFW, aligned")
    parser.add_argument("--model", type=Path, default=SHIPPED_EMBEDDER)
    chosen = parser.parse_args()
    console = Console()
    faces = open_faces(chosen.faces)
    session, spec = open_session(chosen.model, EmbedderSpec, "cpu", threads=available_cores())

    def embed(crops: np.ndarray) -> np.ndarray:
        found = embed_batch(session, list(crops))
        return np.stack([np.append(vector, norm) for vector, norm in found])

    embedded = embed_faces(embed, faces, progress="embedding")
    embeddings, norms, labels = embedded[:, :-1], embedded[:, -1], faces.labels
    console.print(fusion(embeddings, labels, norms))
    parts = halves(labels)
    measured = [measure(embeddings[part], relabelled(labels[part]), "half") for part in parts]
    console.print(
        promise(
            embeddings,
            labels,
            list(zip(measured, reversed(parts), strict=True)),
            "realised FPIR, one half of LFW calibrated for the other",
        )
    )
    if spec.calibration is not None:
        own = [(spec.calibration, part) for part in parts]
        console.print(promise(embeddings, labels, own, "realised FPIR, the model's calibration"))
        temperature = spec.calibration.identification.temperature
        console.print(closed(embeddings, labels, temperature))
    console.print(large(embeddings, labels))


def relabelled(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1]


if __name__ == "__main__":
    main()
