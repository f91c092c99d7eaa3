"""Whether a converted model computes what its source computes."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

from training.errors import ParityError

MINIMUM_COSINE = 0.99999
BATCHES = (1, 2, 7)
_NORM_TOLERANCE = 1e-2

FloatArray = npt.NDArray[np.float32]
Faces = npt.NDArray[np.uint8]


def compare(model: ModelProto, reference: Callable[[Faces], FloatArray]) -> float:
    """Run a canonical embedder beside its source, on noise in batches of 1, 2 and 7.

    Args:
        reference: (n, 112, 112, 3) uint8 RGB to (n, d) raw embeddings.

    Returns:
        The lowest cosine of two embeddings.

    Raises:
        ParityError: the norms differ by more than 1 %.
    """
    lowest = 1.0
    for count in BATCHES:
        faces = noise((count, 112, 112, 3))
        embeddings, norms = run(model, faces)
        for expected, embedding, norm in zip(reference(faces), embeddings, norms, strict=True):
            lowest = min(lowest, cosine(expected, embedding))
            wanted = float(np.linalg.norm(expected))
            if not abs(norm - wanted) <= _NORM_TOLERANCE * wanted:
                raise ParityError(
                    f"The norm is {norm:.4f}, the source's {wanted:.4f}; nothing was written."
                )
    return lowest


def require(cosine: float) -> None:
    """
    Raises:
        ParityError: this lowest cosine is below `MINIMUM_COSINE`.
    """
    if not cosine >= MINIMUM_COSINE:
        raise ParityError(
            f"The lowest cosine to the source is {cosine:.7f}, below {MINIMUM_COSINE}; nothing "
            "was written."
        )


def noise(shape: tuple[int, int, int, int]) -> Faces:
    """Blocky noise (n, h, w, c): unlike white noise it drives the deep layers over their whole
    range."""
    rng = np.random.default_rng(0)
    n, height, width, channels = shape
    coarse = rng.integers(0, 256, (n, height // 16, width // 16, channels), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8))


def run(model: ModelProto, image: npt.NDArray[np.generic]) -> list[FloatArray]:
    """All outputs for the one input."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[FloatArray] = session.run(None, {session.get_inputs()[0].name: image})
    return outputs


def cosine(a: FloatArray, b: FloatArray) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    with np.errstate(invalid="ignore"):
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
