"""Measure how similar strangers look to an embedder, and write it into the model file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from rich.progress import track

from app.models.spec import METADATA_KEY, Calibration, EmbedderSpec
from training.cleaning import inspect_labels
from training.data import FaceSet, first_faces, subset
from training.errors import Unresolvable
from training.evaluation import embed_faces, open_embedder
from training.files import replacing

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
PHOTOS_PER_PERSON = 25
LEAST_MATCHES = 10
"""Pairs of strangers that have to match at a rate before it is listed."""


def calibrate(model: Path, faces: FaceSet, dataset: str) -> Calibration:
    """Measure a model on faces of people it was not trained on, and write the result into it.

    Args:
        model: a canonical ONNX file; its weights and graph stay as they are.
        dataset: what the faces are, for the record.

    Raises:
        InvalidModel, InvalidFaces: a file is not what it should be.
        Unresolvable: too few people or faces.
        NoSpace: the disk is full; the model is what it was.
    """
    few = subset(faces, first_faces(faces.labels, PHOTOS_PER_PERSON))
    embeddings = embed_faces(open_embedder(model), few, progress="embedding")
    calibration = measure(embeddings, few.labels, f"{dataset} ({len(few.names)} folders)")
    write(model, calibration)
    return calibration


def measure(embeddings: FloatArray, labels: IntArray, dataset: str) -> Calibration:
    """Thresholds from the similarities of all pairs of different people.

    Wrong labels are left out, see `inspect_labels`: the few pairs that show one person under
    two names would decide every low rate. Rates are listed down to the last one with at least
    `LEAST_MATCHES` pairs beyond it.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face, 0 to p - 1.

    Raises:
        Unresolvable: there are too few pairs for two rates.
    """
    kept, same = inspect_labels(embeddings, labels)
    vectors, labels = embeddings[kept], labels[kept]

    furthest = max(40.0, 2 * embeddings.shape[1] ** 0.5)
    edges = {"cosine": np.linspace(-1, 1, 20_001), "manhattan": np.linspace(0, furthest, 20_001)}
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
    rates = [rate for rate in RATES if rate * pairs >= LEAST_MATCHES]
    if len(rates) < 2:
        raise Unresolvable(
            f"{pairs:,} pairs of different people are too few to calibrate: "
            f"{round(LEAST_MATCHES / RATES[1]):,} are needed. Add people, or leave the faces out: "
            "then every request has to name a threshold."
        )
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
    with replacing(model) as partial:
        partial.write_bytes(proto.SerializeToString(deterministic=True))
