"""How well the service tells whether two photos of Labeled Faces in the Wild show one person.

    python -m tests.benchmarks.bench_lfw

Every photo that its list names goes through `POST /embed` of a running service: its own
decoding, detection, alignment and embedder. The 6,000 pairs follow LFW's protocol (10 folds, the
threshold chosen on nine of them). In a photo with several faces, the one nearest its centre is
the person it is named after. Identification is measured by `bench_service`.
"""

import argparse
import concurrent.futures
import sys
import tempfile
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.progress import track

from tests.benchmarks.marks import finish
from tests.conftest import SHARED
from tests.service import running
from training.evaluation import Verification
from training.evaluation.service.session import central

LFW = SHARED / "lfw"
JPEG = {"Content-Type": "image/jpeg"}

MARKS = (
    ("accuracy, 10 folds", "accuracy", ">=", 0.994),
    ("EER", "eer", "<=", 0.0075),
    ("TAR at FAR 1e-3", "tar@far=1e-03", ">=", 0.99),
)


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


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not LFW.is_dir():
        sys.exit(f"LFW is not at {LFW}; set FACEID_TEST_DATA.")
    with tempfile.TemporaryDirectory() as store, running(Path(store)) as client:
        figures = verification(client)
    rows = [(what, figures[name], sign, mark) for what, name, sign, mark in MARKS]
    finish("LFW over HTTP", rows, Console())


def verification(client: httpx.Client) -> dict[str, float]:
    def embed(photo: Path) -> dict | None:
        data = photo.read_bytes()
        faces = client.post("/embed", content=data, headers=JPEG).json()["faces"]
        return central(faces, data) if faces else None

    listed = pairs()
    used = sorted({photo for a, b, _ in listed for photo in (a, b)})
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(track(threads.map(embed, used), "6,000 pairs", len(used)))
    vectors = {
        photo: np.array(face["embedding"]) for photo, face in zip(used, found, strict=True) if face
    }
    missed = len(used) - len(vectors)
    distances = np.array([1 - vectors[a] @ vectors[b] for a, b, _ in listed])
    same = np.array([together for *_, together in listed])
    folds = np.arange(len(listed)) // (len(listed) // 10)
    # LFW's 3,000 impostor pairs allow three false matches at 1e-3; everybody quotes it.
    print(f"{missed} of {len(used):,} photos without a face")
    return Verification(distances, same, fold=folds, expected=3).figures()


if __name__ == "__main__":
    main()
