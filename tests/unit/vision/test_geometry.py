import cv2
import numpy as np
import pytest

from app.vision.geometry import ARCFACE_TEMPLATE, FACE_SIZE, align, cut, similarity_transform
from app.vision.image import Photo

LIMIT = 50_000_000


def test_a_similarity_is_recovered_exactly() -> None:
    angle, scale = 0.7, 3.2
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = ARCFACE_TEMPLATE @ turn.T + [40, -7]
    matrix = similarity_transform(ARCFACE_TEMPLATE, moved.astype(np.float32))
    np.testing.assert_allclose(matrix, np.column_stack([turn, [40, -7]]), atol=1e-4)


def test_no_other_similarity_fits_noisy_points_better() -> None:
    rng = np.random.default_rng(0)
    source = ARCFACE_TEMPLATE + rng.normal(0, 4, (5, 2)).astype(np.float32)
    matrix = similarity_transform(source, ARCFACE_TEMPLATE)

    def error(m: np.ndarray) -> float:
        return float(((source @ m[:, :2].T + m[:, 2] - ARCFACE_TEMPLATE) ** 2).sum())

    for _ in range(200):
        a, b, x, y = rng.normal(0, 0.02, 4)
        other = matrix + np.array([[a, -b, x], [b, a, y]])
        assert error(other) > error(matrix)


@pytest.mark.parametrize("points", [np.full((5, 2), 3.0), np.full((5, 2), np.nan)])
def test_points_without_extent_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(points.astype(np.float32), ARCFACE_TEMPLATE)


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes(), LIMIT)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_large_faces_are_averaged_down_without_a_shift(factor: int) -> None:
    """A photo enlarged by repeating pixels gives the crop of the original."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (15, 15, 3), dtype=np.uint8)
    small = cv2.resize(coarse, (150, 150), interpolation=cv2.INTER_CUBIC)
    large = np.repeat(np.repeat(small, factor, axis=0), factor, axis=1)
    landmarks = ARCFACE_TEMPLATE + 20
    enlarged = (landmarks + 0.5) * factor - 0.5
    expected = align(photo_of(small), landmarks).astype(int)
    crop = align(photo_of(large), enlarged.astype(np.float32)).astype(int)
    assert np.abs(crop - expected).mean() < 3


def test_what_lies_outside_the_photo_is_black() -> None:
    photo = photo_of(np.full((80, 80, 3), 200, np.uint8))
    crop = align(photo, ARCFACE_TEMPLATE - 40)
    assert crop.shape == (FACE_SIZE, FACE_SIZE, 3)
    assert crop[0, 0].tolist() == [0, 0, 0]
    assert crop[-1, -1].tolist() == [200, 200, 200]


def test_the_matrix_leads_from_the_full_photo_to_the_square(hopper: bytes) -> None:
    landmarks = ARCFACE_TEMPLATE * 2 + [100, 60]
    _, matrix = cut(Photo(hopper, LIMIT), landmarks, ARCFACE_TEMPLATE, FACE_SIZE)
    np.testing.assert_allclose(
        landmarks @ matrix[:, :2].T + matrix[:, 2], ARCFACE_TEMPLATE, atol=1e-3
    )
