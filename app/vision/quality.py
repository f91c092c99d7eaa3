"""What can be said about a face's usefulness from its pixels and its five landmarks."""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

# The part of the aligned face that is skin, eyes, nose and mouth whoever it is: hair and what
# is behind a head, or the black beyond the photo's border, say nothing about the face.
_INNER = (slice(36, 104), slice(26, 86))

# Centimetres; x to the right as the viewer sees it, y down, z away from them. Of MediaPipe's
# canonical face model (Apache-2.0; canonical_face_model.obj, whose axes y and z point the
# other way): the mean of the corners and lids of each eye (vertices 33, 133, 145, 159 and 263,
# 362, 374, 386), which is where a detector sees its centre, 1, 61 and 291.
_FACE_MODEL = np.array(
    [
        [-3.163631, -2.626850, -3.645822],
        [3.163631, -2.626850, -3.645822],
        [0.0, 1.126865, -7.475604],
        [-2.456206, 4.342621, -4.283884],
        [2.456206, 4.342621, -4.283884],
    ]
)
_DIRECTIONS = np.arange(8) * (np.pi / 8)
# The second derivative along a direction is a sum of these shares of d2/dx2, d2/dy2, d2/dxdy.
_ALONG = np.stack(
    [np.cos(_DIRECTIONS) ** 2, np.sin(_DIRECTIONS) ** 2, np.sin(2 * _DIRECTIONS)], axis=1
)

# Least squares: landmarks about their mean, times this, are the affine camera that took them.
_TO_CAMERA = np.linalg.pinv(_FACE_MODEL - _FACE_MODEL.mean(axis=0)).T


class Pose(NamedTuple):
    """How a head is turned, in degrees; a face that looks straight into the camera has zeros.

    Attributes:
        yaw: -90 to 90; above 0 the face looks to the right as the viewer sees it.
        pitch: -180 to 180; above 0 it looks up.
        roll: -180 to 180; above 0 the head is tilted clockwise as the viewer sees it.
    """

    yaw: float
    pitch: float
    roll: float


class Quality(NamedTuple):
    """
    Attributes:
        eye_distance_px: pixels between the eyes in the photo at full size.
        sharpness: variance of the second derivative of the aligned face's luminance along the
            direction in which it is least, in squared luminance levels per squared pixel.
        brightness: mean of that luminance, 0 to 255.
        contrast: standard deviation of that luminance, 0 to 127.5.
        yaw_degrees, pitch_degrees, roll_degrees: as in `Pose`.

    Luminance is measured where every aligned face is face: not hair, not background.
    """

    eye_distance_px: float
    sharpness: float
    brightness: float
    contrast: float
    yaw_degrees: float
    pitch_degrees: float
    roll_degrees: float


def eye_distance(landmarks: FloatArray) -> float:
    """Pixels between the first two of five (5, 2) points."""
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def estimate_pose(landmarks: FloatArray) -> Pose:
    """Turn a rigid mean face until it lies on the landmarks.

    Under weak perspective a landmark is A X + t, with A two rows of a scaled rotation. A is
    fitted by least squares without that constraint, then replaced by the nearest matrix with
    orthonormal rows, U V^T of its singular value decomposition (Schoenemann, Psychometrika
    1966). Turning the photo adds to roll and mirroring it flips yaw and roll, both exactly.
    Faces differ from the mean one, which shows in pitch most of all, by some degrees.

    Args:
        landmarks: (5, 2) float32, finite, in the order of `app.vision.geometry`. Points on
            one line give some finite pose, which means nothing.
    """
    camera = (landmarks - landmarks.mean(axis=0, dtype=np.float64)).T @ _TO_CAMERA
    u, _, vt = np.linalg.svd(camera, full_matrices=False)
    right, down = u @ vt
    away = np.cross(right, down)
    # The rotation is Rz(roll) Ry(-yaw) Rx(-pitch).
    return Pose(
        yaw=math.degrees(math.asin(min(1.0, max(-1.0, away[0])))),
        pitch=math.degrees(math.atan2(-away[1], away[2])),
        roll=math.degrees(math.atan2(down[0], right[0])),
    )


def measure(face: Image, landmarks: FloatArray) -> Quality:
    """
    Args:
        face: (112, 112, 3) uint8 RGB, aligned.
        landmarks: (5, 2) float32 in pixels of the full photo, finite.
    """
    luminance = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.uint8)
    mean, deviation = cv2.meanStdDev(luminance[_INNER])
    pose = estimate_pose(landmarks)
    return Quality(
        eye_distance_px=eye_distance(landmarks),
        sharpness=_sharpness(luminance),
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        yaw_degrees=pose.yaw,
        pitch_degrees=pose.pitch,
        roll_degrees=pose.roll,
    )


def _sharpness(luminance: Image) -> float:
    """The variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) with one direction at a
    time: a moving face keeps all its edges along the way it moves, and looks sharp to the sum.
    """
    rows, columns = _INNER
    face = luminance[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1]
    derivatives = np.stack(
        [
            cv2.Sobel(face, cv2.CV_32F, dx, dy, scale=0.25)[1:-1, 1:-1].ravel()
            for dx, dy in ((2, 0), (0, 2), (1, 1))
        ]
    )
    derivatives -= derivatives.mean(axis=1, keepdims=True)
    covariance = derivatives @ derivatives.T / derivatives.shape[1]
    return float(((_ALONG @ covariance) * _ALONG).sum(axis=1).min())
