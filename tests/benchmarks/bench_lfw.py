"""How well the service recognises Labeled Faces in the Wild.

    python -m tests.benchmarks.bench_lfw            # pairs, 1:N and open set, over HTTP

Every photo goes through `POST /embed` of a running service: its own decoding, detection,
alignment and embedder. The 6,000 pairs follow LFW's protocol (10 folds, the threshold chosen
on nine of them). Then 1,680 persons are enrolled with one photo each, and all their other
photos and one photo of each of the 4,069 remaining people are sent to `POST /identify`.
In a photo with several faces, the one nearest its centre is the person it is named after.
"""

import argparse
import concurrent.futures
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.conftest import SHARED
from tests.service import running
from training.evaluation import Identification, Verification, split

LFW = SHARED / "lfw"
JPEG = {"Content-Type": "image/jpeg"}
CENTRE = 125.0


def central(faces: list[dict]) -> dict | None:
    def distance(face: dict) -> float:
        box = face["box"]
        return abs(box["x"] + box["width"] / 2 - CENTRE) + abs(
            box["y"] + box["height"] / 2 - CENTRE
        )

    return min(faces, key=distance, default=None)


def pairs() -> list[tuple[Path, Path, bool]]:
    def photo(person: str, number: str) -> Path:
        return LFW / person / f"{person}_{int(number):04d}.jpg"

    found = []
    for line in (LFW / "pairs.txt").read_text().splitlines()[1:]:
        match line.split():
            case [person, first, second]:
                found.append((photo(person, first), photo(person, second), True))
            case [person, first, other, second]:
                found.append((photo(person, first), photo(other, second), False))
    return found


def send(call: Callable[[Path], dict], photos: Iterable[Path], what: str) -> dict[Path, dict]:
    photos = list(photos)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = threads.map(call, photos)
        return dict(zip(photos, track(answers, description=what, total=len(photos)), strict=True))


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not LFW.is_dir():
        sys.exit(f"LFW is not at {LFW}; set FACEID_TEST_DATA.")
    table = Table(title="LFW over HTTP")
    for column in ("what", "measured", "must be"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as store, running(Path(store)) as client:
        verification(client, table)
        identification(client, table)
    Console().print(table)


def verification(client: httpx.Client, table: Table) -> None:
    def embed(photo: Path) -> dict:
        faces = client.post("/embed", content=photo.read_bytes(), headers=JPEG).json()["faces"]
        return central(faces) or {}

    listed = pairs()
    used = sorted({photo for a, b, _ in listed for photo in (a, b)})
    found = send(embed, used, "6,000 pairs")
    vectors = {photo: np.array(face["embedding"]) for photo, face in found.items() if face}
    missed = len(used) - len(vectors)
    distances = np.array([1 - vectors[a] @ vectors[b] for a, b, _ in listed])
    same = np.array([together for *_, together in listed])
    folds = np.arange(len(listed)) // (len(listed) // 10)
    # LFW's 3,000 impostor pairs allow three false matches at 1e-3; everybody quotes it.
    figures = Verification(distances, same, fold=folds, expected=3).figures()
    table.add_row("photos without a face", f"{missed}", "")
    table.add_row("accuracy, 10 folds", f"{figures['accuracy']:.2%}", ">= 99.40%")
    table.add_row("EER", f"{figures['eer']:.2%}", "<= 0.75%")
    table.add_row("TAR at FAR 1e-3", f"{figures['tar@far=1e-03']:.2%}", ">= 99.00%")


def identification(client: httpx.Client, table: Table) -> None:
    photos = sorted(LFW.glob("*/*.jpg"))
    labels = np.unique([photo.parent.name for photo in photos], return_inverse=True)[1]
    chosen = split(labels)

    def enrol(photo: Path) -> dict:
        return client.post(
            f"/persons/{photo.parent.name}/faces?face=largest",
            content=photo.read_bytes(),
            headers=JPEG,
        ).json()

    def identify(photo: Path) -> dict:
        answer = client.post("/identify", content=photo.read_bytes(), headers=JPEG)
        return central(answer.raise_for_status().json()["faces"]) or {"candidates": []}

    enrolled = send(enrol, (photos[i] for i in chosen.gallery), "1,680 persons")
    failed = [photo for photo, answer in enrolled.items() if "person_id" not in answer]
    genuine = send(identify, (photos[i] for i in chosen.probes), "their other photos")
    impostor = send(identify, (photos[i] for i in chosen.strangers), "strangers")

    def best(face: dict) -> tuple[str | None, float]:
        first = next(iter(face["candidates"]), {"person_id": None, "similarity": -1.0})
        return first["person_id"], first["similarity"]

    found = Identification(
        rank=np.array([1 if best(f)[0] == p.parent.name else 2 for p, f in genuine.items()]),
        score=np.array([best(face)[1] for face in genuine.values()]),
        person=labels[chosen.probes],
        stranger_score=np.array([best(face)[1] for face in impostor.values()]),
        stranger=labels[chosen.strangers],
    )
    figures = found.figures()
    table.add_row("persons who could not be enrolled", f"{len(failed)}", "")
    table.add_row(
        f"rank-1, {len(chosen.gallery)} persons, {len(chosen.probes)} probes",
        f"{figures['rank-1']:.2%}",
        ">= 98.50%",
    )
    for name, threshold in found.thresholds.items():
        fpir = float(name.partition("=")[2])
        table.add_row(
            f"FNIR at FPIR {fpir:.0%}, {len(impostor)} strangers (threshold {threshold:.3f})",
            f"{figures[name]:.2%}",
            "",
        )
    decided = np.mean([face.get("decision") == "match" for face in impostor.values()])
    named = np.mean(
        [
            face.get("decision") == "match" and best(face)[0] == photo.parent.name
            for photo, face in genuine.items()
        ]
    )
    table.add_row("strangers called somebody, by default", f"{decided:.2%}", "")
    table.add_row("persons not recognised, by default", f"{1 - named:.2%}", "")


if __name__ == "__main__":
    main()
