"""What the quality gate costs and saves: where the thresholds of `app.decision.gate` come from.

    python -m tests.benchmarks.bench_quality --plot quality.png       # ten minutes on two cores

Labeled Faces in the Wild holds good photos, so those to be enrolled are spoilt in steps before
the detector sees them: shrunk, shrunk and enlarged again, out of focus, in motion, too little or
too much light with a sensor's noise and clipping, flattened contrast, compressed. Turned heads
come from the photos as they are, and from the aligned press photos of `faces/`. Everything goes
through the service's own decoding, detector, alignment, measures and embedder.

A photo is enrolled alone, and all other photos of its person are probes. *Missed* is the share of
probes below the similarity that the embedder's calibration gives for FMR 1e-4 (1:1), or for 1 % of
strangers among LFW's 1,680 persons, FMR 6e-6 (1:N, without a cohort); every enrolled photo counts
once. *False matches* are LFW's other people above the first of the two. In a photo with several
faces the one nearest its centre counts.
"""

import argparse
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.decision import gate
from app.decision.verification import VerificationThresholds
from app.inference.detector import Detector
from app.inference.embedder import embed_batch
from app.inference.pool import available_cores
from app.inference.session import open_session
from app.models.spec import SHIPPED_DETECTOR, SHIPPED_EMBEDDER, DetectorSpec, EmbedderSpec
from app.settings import EnrolmentSettings
from app.vision.geometry import align
from app.vision.image import Photo
from app.vision.quality import measure
from tests.conftest import SHARED

LFW, FACES = SHARED / "lfw", SHARED / "faces"
# The median of LFW's photos as they are.
LFW_EYE_DISTANCE = 42.9
GALLERY = 1680
FEWEST = 15


def shrink(image: np.ndarray, eye_distance: float, _: np.random.Generator) -> np.ndarray:
    scale = eye_distance / LFW_EYE_DISTANCE
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def enlarge(image: np.ndarray, eye_distance: float, rng: np.random.Generator) -> np.ndarray:
    small = shrink(image, eye_distance, rng)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def defocus(image: np.ndarray, sigma: float, _: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def move(image: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """Along a straight line of `length` pixels in a random direction."""
    side = round(length)
    angle = rng.uniform(0, np.pi)
    half = np.array([np.cos(angle), np.sin(angle)]) * (side - 1) / 2
    start, end = (np.round((side - 1) / 2 + sign * half).astype(int) for sign in (-1, 1))
    path = np.zeros((side, side), np.float32)
    cv2.line(path, start.tolist(), end.tolist(), 1.0)
    return cv2.filter2D(image, -1, path / path.sum())


def expose(image: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    """As a sensor of 4,000 electrons and a read noise of 16 sees it, gamma 2.2, 8 bits."""
    light = (image / 255) ** 2.2 * gain
    noise = np.sqrt(light / 4000 + 0.004**2) * rng.normal(size=image.shape)
    return (np.clip(light + noise, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def flatten(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    mean = image.mean()
    noise = rng.normal(0, 1.5, image.shape)
    return np.clip((image - mean) * share + mean + noise, 0, 255).astype(np.uint8)


def keep(image: np.ndarray, _: float, __: np.random.Generator) -> np.ndarray:
    return image


Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
# What is done to a photo, and the levels it is done at.
SPOILT: dict[str, tuple[Change, Sequence[float]]] = {
    "shrunk": (shrink, (8, 10, 12, 14, 16, 20, 24, 32)),
    "enlarged": (enlarge, (6, 8, 10, 12, 16, 24)),
    "out of focus": (defocus, (1, 2, 3, 4, 5, 6)),
    "in motion": (move, (7, 11, 15, 21, 27)),
    "dark": (expose, (0.3, 0.1, 0.05, 0.025)),
    "bright": (expose, (2, 4, 8, 16)),
    "flattened": (flatten, (0.3, 0.15, 0.08)),
    "compressed": (keep, (20, 10, 5, 3)),
}

# Measure, its bins, and the photos it is looked at in.
STUDIES: list[tuple[str, Sequence[float], Sequence[str]]] = [
    ("eye_distance_px", (7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 24, 30), ["shrunk"]),
    (
        "sharpness",
        (0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30),
        ["out of focus", "in motion", "enlarged"],
    ),
    (
        "brightness",
        (15, 20, 25, 30, 35, 40, 50, 60, 80, 160, 180, 190, 200, 210, 220, 230, 240, 250),
        ["dark", "bright", "LFW", "faces"],
    ),
    ("yaw_degrees", (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60), ["LFW", "faces"]),
    ("pitch_degrees", (0, 3, 6, 9, 12, 15, 20), ["LFW", "faces"]),
    (
        "detection_score",
        (0.65, 0.75, 0.8, 0.82, 0.84, 0.86, 0.87, 0.88, 0.89, 0.9, 0.91, 0.92, 0.95),
        ["compressed", "dark", "bright", "faces"],
    ),
    ("contrast", (3, 4, 5, 6, 8, 10, 12, 15, 20, 30), ["flattened", "LFW"]),
    ("norm", (6, 7, 8, 8.5, 9, 9.5, 10, 10.5, 11, 12, 13, 15), [*SPOILT, "LFW"]),
]
LIMITS: dict[str, Sequence[float]] = {
    "eye_distance_px": [EnrolmentSettings().min_eye_distance_px],
    "sharpness": [gate.MIN_SHARPNESS],
    "brightness": [gate.MIN_BRIGHTNESS, gate.MAX_BRIGHTNESS],
    "yaw_degrees": [gate.MAX_YAW_DEGREES],
    "pitch_degrees": [gate.MAX_PITCH_DEGREES],
    "detection_score": [gate.MIN_DETECTION_SCORE],
}


class Job(NamedTuple):
    file: Path
    kind: str | None = None
    level: float = 0.0


class Seen(NamedTuple):
    """What the service sees of a photo: an embedding, the measures, the gate's reasons."""

    vector: np.ndarray
    measures: dict[str, float]
    codes: list[str]


def start_worker() -> None:
    global detector, embedder
    cv2.setNumThreads(1)
    detector = Detector(*open_session(SHIPPED_DETECTOR, DetectorSpec, "cpu", threads=1))
    embedder, _ = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", threads=1)


def look(job: Job) -> Seen | None:
    data = job.file.read_bytes()
    if job.kind is not None:
        change, levels = SPOILT[job.kind]
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        rng = np.random.default_rng([len(data), levels.index(job.level)])
        jpeg_quality = int(job.level) if job.kind == "compressed" else 95
        data = cv2.imencode(
            ".jpg", change(image, job.level, rng), [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
        )[1].tobytes()
    photo = Photo(data, 10**8)
    centre = np.array(photo.size) / 2
    face = min(
        detector.detect(photo),
        key=lambda found: np.abs(found.box[:2] + found.box[2:] / 2 - centre).sum(),
        default=None,
    )
    if face is None:
        return None
    crop = align(photo, face.landmarks)
    quality = measure(crop, face.landmarks)
    ((vector, norm),) = embed_batch(embedder, [crop])
    reasons = gate.reasons_against(
        eye_distance_px=quality.eye_distance_px,
        sharpness=quality.sharpness,
        brightness=quality.brightness,
        yaw_degrees=quality.yaw_degrees,
        pitch_degrees=quality.pitch_degrees,
        detection_score=face.score,
        min_eye_distance_px=EnrolmentSettings().min_eye_distance_px,
    )
    measures = quality._asdict() | {"detection_score": face.score, "norm": norm}
    return Seen(vector, measures, [reason.code for reason in reasons])


class Enrolled:
    """Photos enrolled alone, and how often their persons are missed.

    Attributes:
        seen: the photos with a face.
        missed, missed_1n: (n,) share of each one's probes, 1:1 and 1:N; NaN without probes.
        false_matches: (n,) share of LFW's other people that each one matches.
        faceless: how many photos had no face.
    """

    def __init__(self, photos: Sequence[Seen | None]) -> None:
        self.seen = [photo for photo in photos if photo is not None]
        self.faceless = len(photos) - len(self.seen)
        self.missed, self.missed_1n, self.false_matches = np.full((3, len(self.seen)), np.nan)

    def compare(
        self, i: int, mates: np.ndarray, strangers: np.ndarray, at: tuple[float, float]
    ) -> None:
        similarity = mates @ self.seen[i].vector
        if len(similarity):
            self.missed[i] = (similarity < at[0]).mean()
            self.missed_1n[i] = (similarity < at[1]).mean()
        if len(strangers):
            self.false_matches[i] = (strangers @ self.seen[i].vector >= at[0]).mean()

    def values(self, name: str) -> np.ndarray:
        values = np.array([photo.measures[name] for photo in self.seen])
        return np.abs(values) if name.endswith("degrees") else values

    def rejected(self, code: str | None = None) -> np.ndarray:
        return np.array([code in s.codes if code else bool(s.codes) for s in self.seen])


def thresholds() -> tuple[float, float]:
    _, spec = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", threads=1)
    assert spec.calibration is not None
    one = spec.calibration.verification
    calibrated = VerificationThresholds(one.fmr, one.photos, one.cosine, one.manhattan)
    return 1 - calibrated.distance(1e-4, "cosine"), 1 - calibrated.distance(
        0.01 / GALLERY, "cosine"
    )


def study(persons: int, faces_of_each: int) -> dict[str, Enrolled]:
    """Every group of photos by its name: `LFW`, `faces`, and those of `SPOILT`."""
    at = thresholds()
    rng = np.random.default_rng(0)
    context = multiprocessing.get_context("spawn")
    with context.Pool(available_cores(), start_worker) as pool:

        def see(jobs: list[Job], what: str) -> list[Seen | None]:
            answers = pool.imap(look, jobs, chunksize=8)
            return list(track(answers, description=what, total=len(jobs), transient=True))

        files = sorted(LFW.glob("*/*.jpg"))
        photos = see([Job(file) for file in files], "LFW as it is")
        assert all(photos), "no photo of LFW is without a face"
        vectors = np.stack([photo.vector for photo in photos])
        names, labels, counts = np.unique(
            [file.parent.name for file in files], return_inverse=True, return_counts=True
        )
        first = np.searchsorted(labels, np.arange(len(names)))

        def compare(group: Enrolled, i: int, index: int) -> None:
            mates = np.flatnonzero(labels == labels[index])
            strangers = np.delete(first, labels[index])
            group.compare(i, vectors[mates[mates != index]], vectors[strangers], at)

        groups = {"LFW": Enrolled(photos)}
        for index in range(len(files)):
            compare(groups["LFW"], index, index)

        several = np.flatnonzero(counts > 1)
        chosen = [
            int(rng.choice(np.flatnonzero(labels == person)))
            for person in rng.permutation(several)[:persons]
        ]
        for kind, (_, levels) in SPOILT.items():
            jobs = [Job(files[index], kind, level) for index in chosen for level in levels]
            indices = [index for index in chosen for _ in levels]
            spoilt = see(jobs, kind)
            groups[kind] = Enrolled(spoilt)
            kept = (index for index, photo in zip(indices, spoilt, strict=True) if photo)
            for i, index in enumerate(kept):
                compare(groups[kind], i, index)

        crops = [
            file
            for person in sorted(FACES.glob("*"))
            for file in sorted(person.glob("*.jpg"))[:faces_of_each]
        ]
        aligned = see([Job(file) for file in crops], "faces")
    found = [(f.parent.name, photo) for f, photo in zip(crops, aligned, strict=True) if photo]
    groups["faces"] = Enrolled(aligned)
    owners = np.array([name for name, _ in found])
    matrix = np.stack([photo.vector for _, photo in found])
    for i in range(len(found)):
        mates = np.flatnonzero(owners == owners[i])
        groups["faces"].compare(i, matrix[mates[mates != i]], matrix[:0], at)
    return groups


def percent(values: np.ndarray) -> str:
    return f"{np.nanmean(values):.1%}" if np.isfinite(values).any() else "-"


def costs(groups: dict[str, Enrolled]) -> Table:
    table = Table(title="What each reason costs of good photos")
    for column in ("reason", "LFW rejected", "missed 1:1 if enrolled", "faces rejected", "missed"):
        table.add_column(column, justify="left" if column == "reason" else "right")
    codes = ("too_small", "blurred", "too_dark", "too_bright", "extreme_pose")
    for code in (*codes, "low_detection_score", None):
        row = [code or "any"]
        for name in ("LFW", "faces"):
            group = groups[name]
            rejected = group.rejected(code)
            row += [
                f"{rejected.mean():.2%} ({rejected.sum()})",
                percent(group.missed[rejected]),
            ]
        table.add_row(*row)
    table.add_row(
        "none", *(cell for n in ("LFW", "faces") for cell in ("", percent(groups[n].missed)))
    )
    return table


def savings(groups: dict[str, Enrolled]) -> Table:
    table = Table(title="What the gate saves: photos enrolled without it and with it")
    columns = ("photos", "n", "no face", "rejected", "missed 1:1", "1:N", "false matches")
    for column in columns:
        table.add_column(column, justify="left" if column == "photos" else "right")
    for name, group in groups.items():
        rejected = group.rejected()
        for passed, label in ((np.full(len(rejected), True), name), (~rejected, "  that pass")):
            false = group.false_matches[passed]
            table.add_row(
                label,
                f"{passed.sum():,}",
                f"{group.faceless}" if label == name else "",
                f"{rejected.mean():.1%}" if label == name else "",
                percent(group.missed[passed]),
                percent(group.missed_1n[passed]),
                f"{np.nanmean(false):.1e}" if np.isfinite(false).any() else "-",
            )
    return table


def by_bin(
    group: Enrolled, name: str, edges: Sequence[float]
) -> list[tuple[float, float, float | None, int]]:
    """From, to, missed 1:1 and the number of photos of each bin; None where there are few."""
    values = group.values(name)
    found = []
    for low, high in itertools.pairwise(edges):
        here = group.missed[(values >= low) & (values < high) & np.isfinite(group.missed)]
        found.append((low, high, float(here.mean()) if len(here) >= FEWEST else None, len(here)))
    return found


def curve(
    groups: dict[str, Enrolled], name: str, edges: Sequence[float], kinds: Sequence[str]
) -> Table:
    limits = " and ".join(f"{limit:g}" for limit in LIMITS.get(name, []))
    table = Table(title=f"Missed 1:1 by {name}; threshold: {limits or 'none'}")
    table.add_column("from")
    for kind in kinds:
        table.add_column(kind, justify="right")
    binned = [by_bin(groups[kind], name, edges) for kind in kinds]
    for row in zip(*binned, strict=True):
        cells = ["" if missed is None else f"{missed:.1%} ({n})" for *_, missed, n in row]
        if any(cells):
            table.add_row(f"{row[0][0]:g}", *cells)
    return table


def draw(groups: dict[str, Enrolled], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(16, 7), layout="constrained")
    for axis, (name, edges, kinds) in zip(axes.flat, STUDIES, strict=True):
        for kind in kinds:
            points = [
                ((low + high) / 2, 100 * missed)
                for low, high, missed, _ in by_bin(groups[kind], name, edges)
                if missed is not None
            ]
            axis.plot(*zip(*points, strict=True), marker=".", label=kind)
        for limit in LIMITS.get(name, []):
            axis.axvline(limit, color="black", linestyle=":")
        axis.set_xlabel(name)
        axis.set_ylim(0)
        axis.legend(fontsize="small")
    for axis in axes[:, 0]:
        axis.set_ylabel("probes missed at FMR 1e-4, %")
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=350, help="whose photos are spoilt")
    parser.add_argument("--faces", type=int, default=20, help="of each person of faces/")
    parser.add_argument("--plot", type=Path, help="where to draw the curves")
    options = parser.parse_args()
    if not LFW.is_dir() or not FACES.is_dir():
        sys.exit(f"lfw/ and faces/ are not at {SHARED}; set FACEID_TEST_DATA.")
    groups = study(options.persons, options.faces)
    console = Console()
    for name in ("yaw_degrees", "pitch_degrees", "roll_degrees"):
        angles = [photo.measures[name] for photo in groups["LFW"].seen]
        console.print(f"LFW's median of {name}: {np.median(angles):.1f}")
    console.print(costs(groups), savings(groups))
    for name, edges, kinds in STUDIES:
        console.print(curve(groups, name, edges, kinds))
    if options.plot:
        draw(groups, options.plot)


if __name__ == "__main__":
    main()
