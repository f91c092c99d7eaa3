"""Opening a model file: its digest, its graph, its specification and the device have to agree."""

import hashlib
import os
from pathlib import Path
from typing import TypeVar

import onnxruntime as ort
from pydantic import ValidationError

from app.errors import DeviceUnavailable, InvalidModel
from app.inference.device import Device
from app.models.spec import METADATA_KEY, DetectorSpec, EmbedderSpec

Spec = TypeVar("Spec", DetectorSpec, EmbedderSpec)


def open_session(
    path: Path, kind: type[Spec], device: Device, threads: int, sha256: str | None = None
) -> tuple[ort.InferenceSession, Spec]:
    """Load an ONNX file and the specification inside it.

    Args:
        threads: CPU threads that share one inference.
        sha256: of the file, in hexadecimal digits; None: any file.

    Raises:
        InvalidModel: no such file, another digest, not ONNX, weights that are not in the file,
            without a specification of this kind, or with a graph that does not match it.
        DeviceUnavailable: CUDA was chosen and ONNX Runtime fell back to the CPU.
    """
    if not path.is_file():
        raise InvalidModel(f"No model file at {path}.")
    model = path.read_bytes()
    digest = hashlib.sha256(model).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise InvalidModel(
            f"{path} has the SHA-256 {digest}, but the settings ask for {sha256.lower()}; put the "
            "file in place that was meant, or correct the setting."
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # A graph can name other files to take weights from, which no digest covers. None lie in here.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if device == "cuda":
        # Without kSameAsRequested the arena doubles at each growth and never gives back.
        providers.insert(
            0, ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
        )
    try:
        # Not the path: it could lead to another file by now.
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # The exceptions of ONNX Runtime share no public base class.
        raise InvalidModel(f"{path} cannot be loaded: {error}") from None
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceUnavailable(
            f"ONNX Runtime could not start CUDA for {path} and fell back to the CPU; "
            "its own message is on standard error. Set FACEID_MODEL__DEVICE=cpu to run there."
        )
    return session, _read_spec(path, session, kind)


def _read_spec(path: Path, session: ort.InferenceSession, kind: type[Spec]) -> Spec:
    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if metadata is None:
        raise InvalidModel(
            f"{path} carries no faceid specification; convert it with faceid-train import first."
        )
    try:
        spec = kind.model_validate_json(metadata)
    except ValidationError as error:
        raise InvalidModel(f"The specification in {path} is invalid: {error}") from None

    inputs = [(i.type, i.shape[1:]) for i in session.get_inputs()]
    outputs = {o.name: o.shape[1:] for o in session.get_outputs()}
    if isinstance(spec, EmbedderSpec):
        matches = (
            inputs == [("tensor(uint8)", [112, 112, 3])]
            and outputs.get("embedding") == [spec.dimension]
            and outputs.get("norm") == []
        )
    else:
        matches = (
            len(inputs) == 1
            and inputs[0][0] == "tensor(uint8)"
            and inputs[0][1][-1] == 3
            and {"score", "box", "landmarks"} <= outputs.keys()
        )
    if not matches:
        raise InvalidModel(
            f"The graph of {path} ({inputs} to {outputs}) is not what its specification says."
        )
    return spec
