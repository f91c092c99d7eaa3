"""Measure how similar strangers look to an embedder, and write it into the model file.

    python -m training.export.calibrate FACES [--model app/models/sface.onnx]

FACES holds a folder for each person with aligned faces, 112 x 112 or larger with an equal
margin on all sides, of people the embedder was not trained on.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.models.spec import METADATA_KEY, SHIPPED_EMBEDDER, Calibration, EmbedderSpec
from app.vision.geometry import FACE_SIZE

FloatArray = npt.NDArray[np.float32]

RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
PHOTOS_PER_PERSON = 25

# Labels collected from the web are wrong here and there, and the few pairs that show one
# person under two names would decide every low rate. Two folders whose mean faces are this
# similar are taken for one person; a face nearer to another folder's mean is left out.
SAME_PERSON = 0.55
STRAY_FACE = 0.40


def embed_folder(model: Path, faces: Path) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Embed up to `PHOTOS_PER_PERSON` faces of each folder.

    Returns:
        (n, d) float32 of unit length, and (n,) the number of the folder.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    folders = sorted(folder for folder in faces.iterdir() if folder.is_dir())
    vectors, labels = [], []
    for label, folder in enumerate(track(folders, description="embedding")):
        for file in sorted(folder.iterdir())[:PHOTOS_PER_PERSON]:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
            if image is None or min(image.shape[:2]) < FACE_SIZE:
                continue
            top, left = ((side - FACE_SIZE) // 2 for side in image.shape[:2])
            crop = image[top : top + FACE_SIZE, left : left + FACE_SIZE]
            vectors.append(session.run(["embedding"], {name: crop[None]})[0][0])
            labels.append(label)
    if len(set(labels)) < 2:
        sys.exit(f"{faces} holds faces of fewer than two people; one folder each is needed.")
    return np.array(vectors, np.float32), np.array(labels)


def calibrate(vectors: FloatArray, labels: npt.NDArray[np.int64], dataset: str) -> Calibration:
    """Thresholds from the similarities of all pairs of different people.

    Rates are listed down to the last one with at least ten pairs beyond it.
    """
    people, labels = np.unique(labels, return_inverse=True)
    means = np.stack([vectors[labels == person].mean(axis=0) for person in range(len(people))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    same = means @ means.T > SAME_PERSON

    to_means = vectors @ means.T
    own = to_means[np.arange(len(vectors)), labels]
    to_means[same[labels]] = -1.0
    kept = (own > STRAY_FACE) & (own > to_means.max(axis=1))
    vectors, labels = vectors[kept], labels[kept]

    edges = {"cosine": np.linspace(-1, 1, 20_001), "manhattan": np.linspace(0, 40, 20_001)}
    counts = {metric: np.zeros(20_000, np.int64) for metric in edges}
    for start in track(range(0, len(vectors), 32), description="comparing"):
        block = vectors[start : start + 32]
        # Every pair once: only with what comes after.
        later = np.arange(len(vectors)) > np.arange(start, start + len(block))[:, None]
        impostor = later & ~same[labels[start : start + 32]][:, labels]
        distances = {
            "cosine": block @ vectors.T,
            "manhattan": np.abs(block[:, None] - vectors[None]).sum(axis=2),
        }
        for metric, values in distances.items():
            counts[metric] += np.histogram(values[impostor], edges[metric])[0]

    pairs = int(counts["cosine"].sum())
    rates = [rate for rate in RATES if rate * pairs >= 10]
    accepted = {
        "cosine": np.cumsum(counts["cosine"][::-1]) / pairs,
        "manhattan": np.cumsum(counts["manhattan"]) / pairs,
    }
    return Calibration(
        dataset=dataset,
        impostor_pairs=pairs,
        fmr=tuple(rates),
        cosine=tuple(
            round(float(edges["cosine"][::-1][np.searchsorted(accepted["cosine"], rate)]), 4)
            for rate in rates
        ),
        manhattan=tuple(
            round(float(edges["manhattan"][np.searchsorted(accepted["manhattan"], rate)]), 3)
            for rate in rates
        ),
    )


def write(model: Path, calibration: Calibration) -> None:
    """Replace the calibration in a model's specification; weights and graph stay."""
    proto = onnx.load(model)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    spec = EmbedderSpec.model_validate_json(properties[METADATA_KEY])
    calibrated = spec.model_copy(update={"calibration": calibration})
    helper.set_model_props(proto, properties | {METADATA_KEY: calibrated.model_dump_json()})
    model.write_bytes(proto.SerializeToString(deterministic=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED_EMBEDDER)
    parser.add_argument("--dataset", default="aligned public photos of people not in LFW")
    options = parser.parse_args()
    vectors, labels = embed_folder(options.model, options.faces)
    dataset = f"{options.dataset} ({len(np.unique(labels))} folders)"
    calibration = calibrate(vectors, labels, dataset)
    write(options.model, calibration)
    table = Table(title=f"{calibration.impostor_pairs:,} pairs of strangers")
    for column in ("FMR", "cosine >=", "manhattan <="):
        table.add_column(column, justify="right")
    for row in zip(calibration.fmr, calibration.cosine, calibration.manhattan, strict=True):
        table.add_row(*(f"{value:g}" for value in row))
    Console().print(table)


if __name__ == "__main__":
    main()
