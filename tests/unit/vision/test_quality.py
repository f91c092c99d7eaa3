import cv2
import numpy as np
import pytest

from app.vision.geometry import ARCFACE_TEMPLATE
from app.vision.quality import _FACE_MODEL, Pose, estimate_pose, measure

ANGLES = [
    (0, 0, 0),
    (40, 0, 0),
    (-40, 0, 0),
    (0, 25, 0),
    (0, -25, 0),
    (30, -20, 50),
    (-70, 10, -120),
]


def seen(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Landmarks of the mean face as a distant camera sees them."""
    a, b, c = np.radians([roll, -yaw, -pitch])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    turned = _FACE_MODEL @ (about_z @ about_y @ about_x).T
    return (turned[:, :2] * 7 + [80, 60]).astype(np.float32)


@pytest.mark.parametrize("angles", ANGLES)
def test_the_pose_of_the_mean_face_is_recovered(angles: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(estimate_pose(seen(*angles)), angles, atol=1e-3)


def test_a_face_that_turns_to_the_viewers_right_up_and_clockwise_has_positive_angles() -> None:
    nose = 2
    assert seen(30, 0, 0)[nose, 0] > seen(0, 0, 0)[nose, 0]
    assert seen(0, 30, 0)[nose, 1] < seen(0, 0, 0)[nose, 1]
    left_eye, right_eye = seen(0, 0, 30)[:2]
    assert left_eye[1] < right_eye[1]


@pytest.fixture
def odd_face() -> np.ndarray:
    """Nobody is the mean face."""
    return ARCFACE_TEMPLATE + np.random.default_rng(0).normal(0, 3, (5, 2)).astype(np.float32)


@pytest.mark.parametrize("turn", [-100, -20, 5, 90])
def test_turning_the_photo_adds_to_roll_alone(odd_face: np.ndarray, turn: float) -> None:
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    turned = (odd_face @ np.array([[c, -s], [s, c]]).T * 2.5 + 40).astype(np.float32)
    before, after = estimate_pose(odd_face), estimate_pose(turned)
    np.testing.assert_allclose(after, before._replace(roll=before.roll + turn), atol=1e-3)


def test_mirroring_the_photo_flips_yaw_and_roll(odd_face: np.ndarray) -> None:
    mirrored = (odd_face * [-1, 1] + [250, 0])[[1, 0, 2, 4, 3]].astype(np.float32)
    yaw, pitch, roll = estimate_pose(odd_face)
    np.testing.assert_allclose(estimate_pose(mirrored), Pose(-yaw, pitch, -roll), atol=1e-3)


@pytest.mark.parametrize(
    "landmarks",
    [np.zeros((5, 2)), np.full((5, 2), 7.0), np.outer(np.arange(5), [3, 1]), np.eye(5)[:, :2]],
)
def test_landmarks_without_a_pose_give_finite_angles(landmarks: np.ndarray) -> None:
    assert np.isfinite(estimate_pose(landmarks.astype(np.float32))).all()


@pytest.fixture
def texture() -> np.ndarray:
    grey = np.random.default_rng(0).integers(60, 180, (112, 112, 1), dtype=np.uint8)
    return np.repeat(grey, 3, axis=2)


def test_blur_lowers_sharpness_and_darkness_brightness(texture: np.ndarray) -> None:
    sharp = measure(texture, ARCFACE_TEMPLATE)
    blurred = measure(cv2.GaussianBlur(texture, (0, 0), 2), ARCFACE_TEMPLATE)
    dark = measure(texture // 4, ARCFACE_TEMPLATE)
    assert blurred.sharpness < sharp.sharpness / 10
    assert dark.brightness == pytest.approx(sharp.brightness / 4, abs=1)
    assert dark.contrast == pytest.approx(sharp.contrast / 4, rel=0.05)


def test_only_the_inside_of_the_face_is_measured(texture: np.ndarray) -> None:
    elsewhere = texture.copy()
    elsewhere[:30] = 255
    elsewhere[:, :20] = 0
    assert measure(elsewhere, ARCFACE_TEMPLATE) == measure(texture, ARCFACE_TEMPLATE)


def test_the_eye_distance_is_that_of_the_photo(texture: np.ndarray) -> None:
    assert measure(texture, ARCFACE_TEMPLATE * 3).eye_distance_px == pytest.approx(105.7, abs=0.1)
