"""From five points to the upright 112 x 112 face every embedder is fed with."""

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

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
        ValueError: all points of `source` coincide.
    """
    z = source[:, 0].astype(np.complex128) + 1j * source[:, 1]
    w = target[:, 0].astype(np.complex128) + 1j * target[:, 1]
    z0, w0 = z.mean(), w.mean()
    spread = float(np.sum(np.abs(z - z0) ** 2))
    if not spread > 0.0:
        raise ValueError("all points coincide")
    turn = np.sum(np.conj(z - z0) * (w - w0)) / spread
    shift = w0 - turn * z0
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32
    )


def align(image: Image, landmarks: FloatArray) -> Image:
    """Cut one face out of a photo, upright and in the ArcFace position.

    Args:
        image: (h, w, 3) uint8.
        landmarks: (5, 2) float32 pixels of `image`, in the template's order.

    Returns:
        (112, 112, 3) uint8; what lies outside the photo is black.

    Raises:
        ValueError: all landmarks coincide.
    """
    matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE)
    return warp(image, matrix, FACE_SIZE)


def warp(image: Image, matrix: FloatArray, size: int) -> Image:
    """Resample a similarity of the photo into a (size, size, 3) uint8 square."""
    return cv2.warpAffine(  # type: ignore[return-value]
        image, matrix, (size, size), flags=cv2.INTER_LINEAR
    )
