"""From five points to the upright 112 x 112 face every embedder is fed with."""

import cv2
import numpy as np
import numpy.typing as npt

from app.vision.image import Image, Photo

FloatArray = npt.NDArray[np.float32]
FACE_SIZE = 112

ARCFACE_TEMPLATE: FloatArray = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
"""Where the eyes, the nose tip and the mouth corners belong, in pixels of the crop.

Left to right as the viewer sees them. Deng et al., "ArcFace", CVPR 2019, and its code.
"""


def similarity_transform(source: FloatArray, target: FloatArray) -> FloatArray:
    """The rotation, scale and shift that bring `source` nearest to `target`.

    Least squares over similarities without reflection (Umeyama, PAMI 1991); with points
    as complex numbers the closed form is one division.

    Args:
        source, target: (n, 2) float32, n >= 2.

    Returns:
        (2, 3) float32 matrix for column vectors (x, y, 1).

    Raises:
        ValueError: all points of `source` coincide, or one is not finite.
    """
    z = source[:, 0].astype(np.complex128) + 1j * source[:, 1]
    w = target[:, 0].astype(np.complex128) + 1j * target[:, 1]
    z0, w0 = z.mean(), w.mean()
    spread = float(np.sum(np.abs(z - z0) ** 2))
    if not (np.isfinite(spread) and spread > 0.0):
        raise ValueError("the points coincide or are not finite")
    turn = np.sum(np.conj(z - z0) * (w - w0)) / spread
    shift = w0 - turn * z0
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32
    )


def align(photo: Photo, landmarks: FloatArray) -> Image:
    """Cut one face out of a photo, upright and in the ArcFace position.

    Args:
        landmarks: (5, 2) float32 pixels of the upright photo at full size, in the
            template's order.

    Returns:
        (112, 112, 3) uint8 RGB; what lies outside the photo is black.

    Raises:
        ValueError: all landmarks coincide, or one is not finite.
        UnreadableImage: the pixels are corrupt.
    """
    return cut(photo, landmarks, ARCFACE_TEMPLATE, FACE_SIZE)[0]


def cut(
    photo: Photo, landmarks: FloatArray, target: FloatArray, size: int
) -> tuple[Image, FloatArray]:
    """Resample a square of a photo so that five landmarks come to lie on `target`.

    The photo is decoded at the least scale that has a pixel for each of the square's, and
    averaged down where it has more than two: bilinear sampling alone would skip pixels.

    Args:
        landmarks: (5, 2) float32 pixels of the upright photo at full size.
        target: (5, 2) float32 pixels of the square.

    Returns:
        (size, size, 3) uint8 RGB, and the (2, 3) similarity from the full-size photo to it.

    Raises:
        ValueError, UnreadableImage: as in `align`.
    """
    matrix = similarity_transform(landmarks, target)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    image, decoded = photo.pixels(min(1.0, scale))
    warping = similarity_transform(landmarks * np.float32(decoded), target)
    if scale / decoded < 0.5:
        image, warping = _shrink(image, warping, size, scale / decoded)
    square = cv2.warpAffine(image, warping, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(square, np.uint8), matrix


def _shrink(image: Image, matrix: FloatArray, size: int, scale: float) -> tuple[Image, FloatArray]:
    """Average down the region the square covers, and the matrix for what is left to do."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float32)
    region = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(region.min(axis=0)), 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(region.max(axis=0)), [left + 1, top + 1], [width, height])
    part = image[top : int(bottom), left : int(right)]
    shrunk_size = np.maximum(1, np.round(np.array(part.shape[1::-1]) * scale * 1.5)).astype(int)
    shrunk = cv2.resize(part, shrunk_size.tolist(), interpolation=cv2.INTER_AREA)
    ratio = shrunk_size / np.array(part.shape[1::-1])

    # OpenCV's pixels are sampled at their centres: shrinking also moves the origin.
    to_part = np.array(
        [
            [1 / ratio[0], 0, 0.5 / ratio[0] - 0.5 + left],
            [0, 1 / ratio[1], 0.5 / ratio[1] - 0.5 + top],
            [0, 0, 1],
        ]
    )
    return np.asarray(shrunk, np.uint8), np.asarray(matrix @ to_part, np.float32)
