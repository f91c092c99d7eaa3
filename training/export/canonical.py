"""The form of an embedder the service runs, see `app.models.spec.EmbedderSpec`: what every way
into it ends with."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from app.models.spec import EmbedderSpec
from training.export import graph

Describe = Callable[[str], EmbedderSpec]
"""From the digest of the weights to the specification."""


def take_faces(
    model: ModelProto, image: str, *, bgr: bool = False, mean: float = 0.0, scale: float = 1.0
) -> None:
    """Put uint8 RGB faces (n, 112, 112, 3) before a graph whose input is float (n, 3, 112, 112).

    Args:
        image: name of that input; it is to hold (x - mean) * scale.
    """
    # Each step with the name of what it makes, its weights and its attributes.
    steps: list[tuple[str, str, list[str], dict[str, Any]]] = [
        ("Transpose", "face.nchw", [], {"perm": [0, 3, 1, 2]}),
        ("Cast", "face.float", [], {"to": TensorProto.FLOAT}),
    ]
    if bgr:
        graph.set_weight(model, "bgr", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", "face.bgr", ["bgr"], {"axis": 1}))
    if mean != 0.0:
        graph.set_weight(model, "mean", np.array(mean, np.float32))
        steps.append(("Sub", "face.centred", ["mean"], {}))
    if scale != 1.0:
        graph.set_weight(model, "scale", np.array(scale, np.float32))
        steps.append(("Mul", "face.scaled", ["scale"], {}))
    nodes, here = [], "face"
    for kind, there, weights, attributes in steps:
        nodes.append(helper.make_node(kind, [here, *weights], [there], **attributes))
        here = there
    nodes[-1].output[0] = image
    graph.prepend(model, nodes)


def give_embeddings(model: ModelProto, raw: str) -> None:
    """Make `embedding`, of unit length, and `norm` of the tensor `raw` (n, d)."""
    graph.set_weight(model, "axis", np.array([1], np.int64))
    graph.set_weight(model, "tiny", np.array(1e-12, np.float32))
    model.graph.node.extend(
        [
            helper.make_node("ReduceL2", [raw, "axis"], ["norm"], keepdims=0),
            helper.make_node("ReduceL2", [raw, "axis"], ["norm_column"], keepdims=1),
            helper.make_node("Max", ["norm_column", "tiny"], ["divisor"]),
            helper.make_node("Div", [raw, "divisor"], ["embedding"]),
        ]
    )


def finish(model: ModelProto, describe: Describe, dimension: int) -> ModelProto:
    """A fresh, checked model of this graph, with its specification."""
    graph.drop_unused_initializers(model)
    return graph.finish(
        model,
        describe(graph.weights_sha256(model)),
        inputs={"face": (TensorProto.UINT8, ["n", 112, 112, 3])},
        outputs={
            "embedding": (TensorProto.FLOAT, ["n", dimension]),
            "norm": (TensorProto.FLOAT, ["n"]),
        },
    )
