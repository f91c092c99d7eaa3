import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.models.spec import METADATA_KEY, SHIPPED_EMBEDDER, EmbedderSpec
from tests.unit.training.calibration.population import population
from training.calibration import measure, write
from training.errors import Unresolvable


def test_a_person_under_two_names_is_no_pair_of_strangers() -> None:
    vectors, labels = population(40, 6)
    doubled = labels.copy()
    doubled[labels == 39] = np.array([39, 39, 39, 40, 40, 40])
    plain, twice = measure(vectors, labels, "x"), measure(vectors, doubled, "x")
    assert twice.verification.impostor_pairs == plain.verification.impostor_pairs
    assert twice.verification.cosine[0] == pytest.approx(plain.verification.cosine[0], abs=0.01)
    assert twice.persons == plain.persons
    assert twice.id != plain.id


@pytest.mark.parametrize(("persons", "faces"), [(4, 2), (12, 30), (20, 2), (200, 1)])
def test_too_few_people_or_photos_are_refused(persons: int, faces: int) -> None:
    with pytest.raises(Unresolvable, match="too few to calibrate"):
        measure(*population(persons, faces), "noise")


def test_writing_changes_the_calibration_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    shutil.copy(SHIPPED_EMBEDDER, path)
    calibration = measure(*population(40, 4), "noise")
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
