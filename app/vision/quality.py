"""What can be said about a face's usefulness from its pixels."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


class Quality(NamedTuple):
    """
    Attributes:
        eye_distance_px: pixels between the eyes in the photo at full size.
        sharpness: variance of the Laplacian of the aligned face's luminance
            (Pech-Pacheco et al., ICPR 2000); below about 50 a face looks blurred.
        brightness: mean luminance of the aligned face, 0 to 255.
        contrast: standard deviation of that luminance, 0 to 127.5.
    """

    eye_distance_px: float
    sharpness: float
    brightness: float
    contrast: float


def eye_distance(landmarks: FloatArray) -> float:
    """Pixels between the first two of five (5, 2) points."""
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def measure(face: Image, landmarks: FloatArray) -> Quality:
    """
    Args:
        face: (112, 112, 3) uint8 RGB, aligned.
        landmarks: (5, 2) float32 in pixels of the full photo.
    """
    luminance = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(luminance)
    return Quality(
        eye_distance_px=eye_distance(landmarks),
        sharpness=float(cv2.Laplacian(luminance, cv2.CV_32F).var()),
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
    )
