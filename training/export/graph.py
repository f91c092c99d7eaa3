"""Surgery on ONNX graphs: what every conversion to the canonical form is made of."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from app.models.spec import METADATA_KEY, DetectorSpec, EmbedderSpec

OPSET = 21
IR_VERSION = 10


def drop_initializers_from_inputs(model: ModelProto, image_input: str) -> None:
    """Leave the image as the only graph input.

    Exporters of the ONNX 1.3 era listed every weight as an input too; ONNX Runtime then
    waits for them to be fed.
    """
    image = next(i for i in model.graph.input if i.name == image_input)
    del model.graph.input[:]
    model.graph.input.append(image)


def drop_block_size_of_scalars(model: ModelProto) -> None:
    """Leave out `block_size` where a DequantizeLinear has one scale for the whole tensor.

    Block quantisers write it all the same, and ONNX Runtime refuses the pair.
    """
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and weight(model, node.input[1]).shape in {(), (1,)}:
            kept = [attribute for attribute in node.attribute if attribute.name != "block_size"]
            del node.attribute[:]
            node.attribute.extend(kept)


def fold_constants(model: ModelProto) -> None:
    """Replace every node that depends on weights alone by the weight it computes."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer} | {""}
    constant = []
    for node in graph.node:
        if all(name in known for name in node.input):
            constant.append(node)
            known.update(node.output)
    if not constant:
        return

    computed = {name for node in constant for name in node.output}
    needed = sorted(computed & {name for n in graph.node if n not in constant for name in n.input})
    if needed:
        graph.initializer.extend(_compute(model, constant, needed))
    kept = [node for node in graph.node if node not in constant]
    del graph.node[:]
    graph.node.extend(kept)
    drop_unused_initializers(model)


def _compute(model: ModelProto, nodes: list[NodeProto], names: list[str]) -> list[TensorProto]:
    """The values of these names, which `nodes` make of weights alone."""
    import onnxruntime as ort

    weights = helper.make_model(
        helper.make_graph(
            nodes,
            "weights",
            [],
            [helper.make_empty_tensor_value_info(name) for name in names],
            initializer=model.graph.initializer,
        ),
        opset_imports=model.opset_import,
        ir_version=IR_VERSION,
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        weights.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(names, {})
    return [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in zip(names, values, strict=True)
    ]


def drop_unused_nodes(model: ModelProto) -> None:
    """Leave out whatever no output of the graph depends on."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # a node comes after those it reads from
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def drop_unused_initializers(model: ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def drop_identities(model: ModelProto) -> None:
    """Leave out what gives back what it was given; at inference a Dropout does too."""
    graph = model.graph
    for node in [node for node in graph.node if node.op_type in {"Identity", "Dropout"}]:
        rename(model, node.output[0], node.input[0])
        graph.node.remove(node)


def rename(model: ModelProto, old: str, new: str) -> None:
    """Rename one tensor wherever a node reads or writes it."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def weight(model: ModelProto, name: str) -> npt.NDArray[np.generic]:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


def set_weight(model: ModelProto, name: str, value: npt.ArrayLike) -> None:
    """Replace a weight, or add it where there is none of that name."""
    tensors = model.graph.initializer
    kept = [tensor for tensor in tensors if tensor.name != name]
    del tensors[:]
    tensors.extend([*kept, numpy_helper.from_array(np.asarray(value), name)])


def prepend(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def round_kernels(model: ModelProto) -> None:
    """Round the weights of convolutions to numbers that float16 has, keeping their sums.

    Rounding each weight by itself shifts what a channel gives on average, by the sum of its
    rounding errors times the mean of its inputs; through thirty layers such shifts add up. Here
    each weight makes up for the errors of those before it (error diffusion), by no more than
    one step. On a fine-tuned SFace 1 - cos to the source falls from 1.1e-5 to 0.2e-5.
    """
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        kernels = weight(model, node.input[1])
        exact = kernels.reshape(len(kernels), -1).astype(np.float64)
        rounded = np.empty_like(exact)
        owed = np.zeros(len(exact))
        with np.errstate(over="ignore", invalid="ignore"):  # infinity does not pass for parity
            for i, column in enumerate(exact.T):
                step = np.spacing(np.abs(column.astype(np.float16))).astype(np.float64)
                wanted = np.clip(column - owed, column - step, column + step)
                rounded[:, i] = wanted.astype(np.float16)
                owed += rounded[:, i] - column
        set_weight(model, node.input[1], rounded.reshape(kernels.shape).astype(np.float32))


def store_as_float16(model: ModelProto, minimum_size: int = 1024) -> None:
    """Keep large weights as float16 behind a Cast.

    ONNX Runtime folds the Cast when it loads the file, so arithmetic stays float32.
    Small tensors stay as they are: batch-norm variances would lose too much.
    """
    casts = []
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < minimum_size:
            continue
        name = tensor.name
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    prepend(model, casts)


def weights_sha256(model: ModelProto) -> str:
    """Digest of the names, types, shapes and bytes of all weights, whatever their order."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        value = numpy_helper.to_array(tensor)
        digest.update(f"{tensor.name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def finish(
    model: ModelProto,
    spec: DetectorSpec | EmbedderSpec,
    inputs: dict[str, tuple[int, list[str | int]]],
    outputs: dict[str, tuple[int, list[str | int]]],
) -> ModelProto:
    """The same graph as a fresh, checked model that carries its specification.

    Args:
        inputs, outputs: name to ONNX element type and shape; a string is a free dimension.
    """
    graph = helper.make_graph(
        model.graph.node,
        spec.name,
        [helper.make_tensor_value_info(name, *declared) for name, declared in inputs.items()],
        [helper.make_tensor_value_info(name, *declared) for name, declared in outputs.items()],
        initializer=model.graph.initializer,
    )
    finished = helper.make_model(
        graph,
        producer_name="faceid",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(finished, {METADATA_KEY: spec.model_dump_json()})
    onnx.checker.check_model(finished, full_check=True)
    return finished
