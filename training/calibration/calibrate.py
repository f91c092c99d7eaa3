"""Measure a model on labelled faces, and write what was found into its file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from app.models.spec import METADATA_KEY, Calibration, EmbedderSpec
from training.calibration import identification, verification
from training.cleaning import believable, inspect_labels
from training.data import FaceSet, first_faces, subset
from training.errors import Unresolvable
from training.evaluation import embed_faces, open_embedder
from training.files import replacing

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

PHOTOS_PER_PERSON = 25
LEAST_PERSONS = 15
RESAMPLES = 200


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
    calibration = measure(embeddings, few.labels, dataset)
    write(model, calibration)
    return calibration


def measure(
    embeddings: FloatArray, labels: IntArray, dataset: str, *, seed: int = 0
) -> Calibration:
    """What similarities mean, from labelled embeddings.

    Wrong labels are left out, see `training.cleaning`: the few pairs that show one person under
    two names would decide every low rate.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face, 0 to p - 1.

    Raises:
        Unresolvable: too few people or faces.
    """
    kept, same = inspect_labels(embeddings, labels)
    alone = believable(embeddings, labels, least=1)
    persons, index = np.unique(labels[alone], return_inverse=True)
    if len(persons) < LEAST_PERSONS:
        raise Unresolvable(
            f"{len(persons)} people are too few to calibrate: {LEAST_PERSONS} are needed. Add "
            "people, or leave the faces out: then every request has to name a threshold."
        )
    verified = verification.measure(embeddings[kept], labels[kept], same, seed, RESAMPLES)
    return Calibration(
        dataset=dataset,
        persons=len(persons),
        faces=int(alone.sum()),
        verification=verified,
        identification=identification.measure(embeddings[alone], index, seed, RESAMPLES),
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
