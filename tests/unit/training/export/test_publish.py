import hashlib
from pathlib import Path

import onnx
import pytest

from app.models.spec import SHIPPED_EMBEDDER, EmbedderSpec
from tests.unit.training.tiny import TinyFaces, recipe
from training.errors import TrainingError, Unresolvable
from training.export.publish import describer, publish
from training.recipe import load


def test_the_card_says_what_the_file_is(tmp_path: Path) -> None:
    output = tmp_path / "models" / "mine.onnx"
    chosen = recipe()
    spec = publish(
        onnx.load(SHIPPED_EMBEDDER),
        output,
        faces=None,
        dataset="",
        made_with="faceid-train export best.pt mine.onnx",
        recipe=chosen,
        figures={"eer": 0.0123},
    )
    card = output.with_suffix(".md").read_text()
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    for part in (
        "# mine.onnx: face embedder",
        f"| licence | {spec.licence} |",
        f"| training data | {spec.training_data} |",
        f"`{digest}`",
        "faceid-train export best.pt mine.onnx",
        "| eer | 1.23 % |",
        f"{spec.calibration.verification.impostor_pairs:,} pairs of different ones",
    ):
        assert part in card
    # The recipe in it can be trained by.
    (tmp_path / "again.toml").write_text(card.partition("```toml\n")[2].partition("```")[0])
    assert load(str(tmp_path / "again.toml")) == chosen


def test_what_cannot_be_calibrated_is_not_written(tmp_path: Path) -> None:
    output = tmp_path / "mine.onnx"
    output.write_bytes(b"before")
    with pytest.raises(Unresolvable):
        publish(
            onnx.load(SHIPPED_EMBEDDER),
            output,
            faces=TinyFaces(persons=2, faces=2),
            dataset="noise",
            made_with="",
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"mine.onnx": b"before"}


def test_a_name_that_is_not_allowed_is_told() -> None:
    about = {"licence": "MIT", "origin": "here", "training_data": "none", "dimension": 8}
    with pytest.raises(TrainingError, match="name: String should match pattern"):
        describer(name="My Model", **about)
    assert isinstance(describer(name="mine", **about)("0" * 64), EmbedderSpec)
