"""InsightFace's verification sets, read without trusting them."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from app.vision.image import Image
from training.data.face import decode, decode_aligned, margin_of
from training.data.pairs import Pairs
from training.errors import InvalidPairs

_FOLDS = 10


def read_bin(file: Path) -> Pairs:
    """Read one of InsightFace's verification sets (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin` ...).

    Such a file is a pickle of two lists, of encoded images and of whether two neighbours are
    of one person. Nothing in it is executed: whatever is neither of these is refused.

    Raises:
        InvalidPairs: it is something else.
        InvalidFaces: the first image is broken or no aligned face.
    """
    try:
        loaded = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
    except Exception as error:  # Nonsense makes the unpickler raise whatever it hits.
        raise InvalidPairs(f"{file} is not a verification set: {error}") from None
    match loaded:
        case [list(images), list(same)] if (
            len(images) == 2 * len(same) > 0
            and all(isinstance(image, bytes) for image in images)
            and all(isinstance(value, bool) for value in same)
        ):
            count = len(same)
        case _:
            raise InvalidPairs(
                f"{file} is not a verification set: it has to hold a list of images and, half as "
                "long, a list of truth values."
            )
    return Pairs(
        faces=_EncodedFaces(images, str(file)),
        first=np.arange(0, 2 * count, 2),
        second=np.arange(1, 2 * count, 2),
        same=np.array(same),
        # As scikit-learn's KFold, with which these sets are evaluated.
        fold=np.repeat(np.arange(_FOLDS), [len(p) for p in np.array_split(range(count), _FOLDS)]),
        persons=None,
    )


class _EncodedFaces:
    def __init__(self, images: list[bytes], file: str) -> None:
        self._images = images
        self._file = file
        first = decode(images[0], self.source(0))
        self.margin = margin_of(first.shape[1], first.shape[0], self.source(0))

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Image:
        return decode_aligned(self._images[index], self.margin, self.source(index))

    def source(self, index: int) -> str:
        return f"{self._file}, image {index}"


class _Unpickler(pickle.Unpickler):
    """Lists, tuples, bytes and truth values, however they were written.

    Python 3 writes bytes for Python 2 as a call of `_codecs.encode`, and a truth value of NumPy
    as one of `scalar` with a `dtype`. Those names stand for functions here that can do nothing
    else; every other is refused.
    """

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "_codecs", "encode":
                return _encode_latin1
            case "numpy", "dtype":
                return _BoolType
            case "numpy.core.multiarray" | "numpy._core.multiarray", "scalar":
                return _bool
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image needs")


def _encode_latin1(text: str, _encoding: object) -> bytes:
    return text.encode("latin1")


class _BoolType:
    def __init__(self, code: object, *_: object) -> None:
        if code not in ("b1", b"b1"):
            raise pickle.UnpicklingError(f"it holds numbers of type {code!r}")

    def __setstate__(self, state: object) -> None: ...


def _bool(kind: object, value: bytes) -> bool:
    if not isinstance(kind, _BoolType):
        raise pickle.UnpicklingError("it holds numbers")
    return value != b"\0"
