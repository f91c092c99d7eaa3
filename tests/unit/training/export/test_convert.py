import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from app.models.spec import METADATA_KEY, SHIPPED_DETECTOR, SHIPPED_EMBEDDER, EmbedderSpec
from training.export import convert, graph


@pytest.fixture
def quantised() -> ModelProto:
    """y = x @ W + b with W block-quantised and b quantised with one scale, all listed as
    inputs, as the published files are."""
    rng = np.random.default_rng(0)
    weights = {
        "w_q": rng.integers(-127, 128, (64, 8), dtype=np.int8),
        "w_scale": rng.uniform(0.01, 0.02, (4, 8)).astype(np.float32),
        "w_zero": np.zeros((4, 8), np.int8),
        "b_q": rng.integers(-127, 128, 8, dtype=np.int8),
        "b_scale": np.array([0.05], np.float32),
        "b_zero": np.zeros(1, np.int8),
    }
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["w_q", "w_scale", "w_zero"], ["w"], axis=0, block_size=16
        ),
        helper.make_node(
            "DequantizeLinear", ["b_q", "b_scale", "b_zero"], ["b"], axis=0, block_size=8
        ),
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("Dropout", ["z"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])]
    inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 8]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])
    return helper.make_model(
        helper.make_graph(nodes, "toy", inputs, [output], tensors),
        opset_imports=[helper.make_opsetid("", graph.OPSET)],
        ir_version=graph.IR_VERSION,
    )


def expected(model: ModelProto, x: np.ndarray) -> np.ndarray:
    scale = np.repeat(graph.weight(model, "w_scale"), 16, axis=0)
    w = graph.weight(model, "w_q") * scale
    b = graph.weight(model, "b_q") * graph.weight(model, "b_scale")
    return x @ w + b


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_quantised_weights_become_plain_ones(quantised: ModelProto) -> None:
    x = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    wanted = expected(quantised, x)
    graph.drop_initializers_from_inputs(quantised, "x")
    graph.drop_block_size_of_scalars(quantised)
    graph.drop_identities(quantised)
    graph.fold_constants(quantised)
    quantised.graph.node[-1].output[0] = "y"
    assert [node.op_type for node in quantised.graph.node] == ["Gemm"]
    assert {tensor.name for tensor in quantised.graph.initializer} == {"w", "b"}
    np.testing.assert_allclose(run(quantised, x), wanted, rtol=1e-5)


def test_half_precision_storage_is_not_half_precision_arithmetic(quantised: ModelProto) -> None:
    x = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    graph.drop_initializers_from_inputs(quantised, "x")
    graph.drop_block_size_of_scalars(quantised)
    graph.fold_constants(quantised)
    w, b = graph.weight(quantised, "w"), graph.weight(quantised, "b")
    graph.store_as_float16(quantised, minimum_size=64)
    types = {t.name: t.data_type for t in quantised.graph.initializer}
    assert types == {"w.float16": TensorProto.FLOAT16, "b": TensorProto.FLOAT}
    np.testing.assert_allclose(
        run(quantised, x), x @ w.astype(np.float16).astype(np.float32) + b, rtol=1e-5
    )


def test_the_digest_is_of_the_weights_and_nothing_else(quantised: ModelProto) -> None:
    digest = graph.weights_sha256(quantised)
    tensors = list(quantised.graph.initializer)
    del quantised.graph.initializer[:]
    quantised.graph.initializer.extend(reversed(tensors))
    quantised.producer_name = "somebody"
    assert graph.weights_sha256(quantised) == digest
    graph.set_weight(quantised, "b_scale", np.array([0.06], np.float32))
    assert graph.weights_sha256(quantised) != digest


FINE_TUNED = SHIPPED_EMBEDDER.with_name("sface-arcface.onnx")


@pytest.mark.parametrize("path", [SHIPPED_DETECTOR, SHIPPED_EMBEDDER, FINE_TUNED])
def test_the_shipped_files_are_in_the_form_the_service_runs(path: Path) -> None:
    model = onnx.load(path)
    assert path.stat().st_size <= 20_000_000
    assert model.producer_name == "faceid"
    spec = model.metadata_props[0]
    assert spec.key == METADATA_KEY
    assert f'"{graph.weights_sha256(model)}"' in spec.value
    onnx.checker.check_model(model, full_check=True)
    if path != SHIPPED_DETECTOR:
        assert EmbedderSpec.model_validate_json(spec.value).calibration is not None


def test_a_model_that_differs_from_its_source_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped embedder stands in for the source; the conversion spoils one layer."""

    def spoil(source: ModelProto) -> ModelProto:
        model = ModelProto()
        model.CopyFrom(source)
        name = "pre_fc1_weight_dequantized.float16"
        noise = np.random.default_rng(0).normal(0, 0.01, (128, 50176)).astype(np.float16)
        graph.set_weight(model, name, graph.weight(model, name) + noise)
        return model

    def compare(source: ModelProto, converted: ModelProto) -> float:
        face = np.full((1, 112, 112, 3), 90, np.uint8)
        first, second = (
            ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
                ["embedding"], {"face": face}
            )[0][0]
            for m in (source, converted)
        )
        return float(first @ second)

    output = tmp_path / "out.onnx"
    monkeypatch.setattr(convert, "CONVERSIONS", {"sface": (spoil, compare, output)})
    monkeypatch.setattr(sys, "argv", ["convert", "sface", str(SHIPPED_EMBEDDER)])
    with pytest.raises(SystemExit, match="nothing was written"):
        convert.main()
    assert not output.exists()


def test_the_specification_round_trips() -> None:
    spec = EmbedderSpec(
        name="x",
        licence="MIT",
        origin="here",
        training_data="none",
        dimension=512,
        weights_sha256="0" * 64,
    )
    assert EmbedderSpec.model_validate_json(spec.model_dump_json()) == spec
