import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.models.spec import METADATA_KEY, SHIPPED_EMBEDDER, EmbedderSpec
from training.errors import Unresolvable
from training.export.calibrate import measure, write


def population(persons: int, faces: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(persons), faces)
    vectors = rng.standard_normal((persons, 32))[labels] + 0.4 * rng.standard_normal(
        (persons * faces, 32)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_thresholds_accept_the_share_of_strangers_they_promise() -> None:
    vectors, labels = population(30, 5)
    found = measure(vectors, labels, "noise")
    first, second = np.triu_indices(len(vectors), 1)
    strange = labels[first] != labels[second]
    a, b = vectors[first[strange]], vectors[second[strange]]
    cosine, manhattan = (a * b).sum(axis=1), np.abs(a - b).sum(axis=1)
    # Persons who look like one are left out: nearly all pairs are there.
    assert 0.97 * len(a) <= found.impostor_pairs <= len(a)
    assert found.fmr == (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
    for fmr, least, most in zip(found.fmr, found.cosine, found.manhattan, strict=True):
        assert (cosine >= least).mean() == pytest.approx(fmr, rel=0.2, abs=1e-3)
        assert (manhattan <= most).mean() == pytest.approx(fmr, rel=0.2, abs=1e-3)


def test_a_person_under_two_names_is_no_pair_of_strangers() -> None:
    vectors, labels = population(30, 5)
    doubled = labels.copy()
    doubled[labels == 29] = np.array([29, 29, 30, 30, 30])
    plain, twice = measure(vectors, labels, "x"), measure(vectors, doubled, "x")
    assert twice.impostor_pairs == plain.impostor_pairs
    assert twice.cosine == plain.cosine


def test_too_few_people_are_refused() -> None:
    with pytest.raises(Unresolvable, match="too few to calibrate"):
        measure(*population(4, 2), "noise")


def test_writing_changes_the_calibration_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    shutil.copy(SHIPPED_EMBEDDER, path)
    calibration = measure(*population(30, 5), "noise")
    write(path, calibration)
    before, after = onnx.load(SHIPPED_EMBEDDER), onnx.load(path)
    assert after.graph == before.graph
    specs = [
        EmbedderSpec.model_validate_json(
            {entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY]
        )
        for model in (before, after)
    ]
    assert specs[1] == specs[0].model_copy(update={"calibration": calibration})
