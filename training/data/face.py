"""One aligned face: decoded, measured and cropped."""

import cv2
import numpy as np

from app.vision.geometry import FACE_SIZE
from app.vision.image import Image
from training.errors import InvalidFaces

# With more around it, it is a photo that nobody has aligned.
LARGEST_MARGIN = 32


def decode(data: bytes, source: str) -> Image:
    """Decode a JPEG, PNG, WebP or BMP file to (h, w, 3) uint8 RGB.

    Raises:
        InvalidFaces: the pixels are corrupt or cut off; names `source`.
    """
    try:
        face = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # of no bytes at all
        face = None
    if face is None:
        raise InvalidFaces(f"{source} is corrupt or cut off; replace or delete it.")
    return np.asarray(face, np.uint8)


def decode_aligned(data: bytes, margin: int, source: str) -> Image:
    """Decode a face that has to have this margin, as all of its set have.

    Raises:
        InvalidFaces: it has not, or its pixels are corrupt or cut off; names `source`.
    """
    face = decode(data, source)
    side = FACE_SIZE + 2 * margin
    if face.shape[:2] != (side, side):
        height, width = face.shape[:2]
        raise InvalidFaces(
            f"{source} has {width} x {height} pixels, the faces before it {side} x {side}; aligned "
            "faces are all of one size. Run `faceid-train prepare` on the photos."
        )
    return face


def margin_of(width: int, height: int, source: str) -> int:
    """Pixels around the 112 x 112 crop, the same on all sides.

    Raises:
        InvalidFaces: not a square, or smaller or larger than an aligned face can be.
    """
    margin, odd = divmod(width - FACE_SIZE, 2)
    if width != height or odd or not 0 <= margin <= LARGEST_MARGIN:
        largest = FACE_SIZE + 2 * LARGEST_MARGIN
        raise InvalidFaces(
            f"{source} has {width} x {height} pixels; aligned faces are squares of an even side "
            f"from {FACE_SIZE} to {largest}. Run `faceid-train prepare` on the photos first."
        )
    return margin


def centre_crop(face: Image, margin: int) -> Image:
    """The (112, 112, 3) face without its margin; a view."""
    return face[margin : margin + FACE_SIZE, margin : margin + FACE_SIZE]
