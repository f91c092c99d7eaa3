import hashlib
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import helper
from onnx.external_data_helper import set_external_data

from app.errors import InvalidModel
from app.inference.session import open_session
from app.models.spec import (
    METADATA_KEY,
    SHIPPED_DETECTOR,
    SHIPPED_EMBEDDER,
    DetectorSpec,
    EmbedderSpec,
)


def test_the_shipped_files_say_what_they_are() -> None:
    _, detector = open_session(SHIPPED_DETECTOR, DetectorSpec, "cpu", 1)
    _, embedder = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", 1)
    assert (detector.name, detector.licence) == ("yunet-2023mar", "MIT")
    assert (embedder.name, embedder.licence, embedder.dimension) == (
        "sface-2021dec",
        "Apache-2.0",
        128,
    )


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="No model file"):
        open_session(tmp_path / "none.onnx", EmbedderSpec, "cpu", 1)


def test_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(InvalidModel, match="cannot be loaded"):
        open_session(path, EmbedderSpec, "cpu", 1)


def test_a_detector_is_no_embedder() -> None:
    with pytest.raises(InvalidModel, match="specification"):
        open_session(SHIPPED_DETECTOR, EmbedderSpec, "cpu", 1)


@pytest.fixture
def embedder() -> onnx.ModelProto:
    return onnx.load(SHIPPED_EMBEDDER)


def test_a_file_without_a_specification(embedder: onnx.ModelProto, tmp_path: Path) -> None:
    del embedder.metadata_props[:]
    onnx.save(embedder, tmp_path / "x.onnx")
    with pytest.raises(InvalidModel, match="no faceid specification"):
        open_session(tmp_path / "x.onnx", EmbedderSpec, "cpu", 1)


def test_a_specification_that_contradicts_the_graph(
    embedder: onnx.ModelProto, tmp_path: Path
) -> None:
    spec = EmbedderSpec.model_validate_json(embedder.metadata_props[0].value)
    wrong = spec.model_copy(update={"dimension": 512})
    helper.set_model_props(embedder, {METADATA_KEY: wrong.model_dump_json()})
    onnx.save(embedder, tmp_path / "x.onnx")
    with pytest.raises(InvalidModel, match="is not what its specification says"):
        open_session(tmp_path / "x.onnx", EmbedderSpec, "cpu", 1)


def test_another_digest_than_the_settings_ask_for() -> None:
    right = hashlib.sha256(SHIPPED_EMBEDDER.read_bytes()).hexdigest()
    open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", 1, right.upper())
    with pytest.raises(InvalidModel, match=f"{right}.*{'0' * 64}"):
        open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", 1, "0" * 64)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "absolute"])
def test_weights_that_are_not_in_the_file(
    embedder: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.chdir(folder)
    weights = max(embedder.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    for path in (folder / "weights.bin", tmp_path / "weights.bin"):
        path.write_bytes(weights.raw_data)
    set_external_data(weights, str(path) if location == "absolute" else location)
    weights.ClearField("raw_data")
    (folder / "x.onnx").write_bytes(embedder.SerializeToString())
    with pytest.raises(InvalidModel, match="External data path"):
        open_session(folder / "x.onnx", EmbedderSpec, "cpu", 1)


def test_an_operator_from_elsewhere(embedder: onnx.ModelProto, tmp_path: Path) -> None:
    embedder.graph.node[0].domain = "elsewhere"
    embedder.opset_import.append(helper.make_opsetid("elsewhere", 1))
    onnx.save(embedder, tmp_path / "x.onnx")
    with pytest.raises(InvalidModel, match="elsewhere"):
        open_session(tmp_path / "x.onnx", EmbedderSpec, "cpu", 1)


@pytest.mark.parametrize("package", ["app", "training"])
def test_onnx_runtime_reports_to_nobody(tmp_path: Path, package: str) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    script = (
        f"import {package}, onnxruntime, time\n"
        f"onnxruntime.InferenceSession({str(SHIPPED_DETECTOR)!r})\n"
        "time.sleep(0.5)"
    )
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    # It would keep there what is still to be sent.
    assert list(tmp_path.rglob("*")) == []
