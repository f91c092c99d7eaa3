import cv2
import numpy as np
import pytest

from training.data import Augmentation

CHANGES = list(Augmentation.model_fields)


def only(change: str) -> Augmentation:
    return Augmentation(**(dict.fromkeys(CHANGES, 0.0) | {change: 1.0}))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sharpness(crop: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


@pytest.fixture
def textured(face) -> np.ndarray:
    """Fine detail to lose, and no value so near black or white that it would be clipped."""
    noise = generator().normal(0, 12, (128, 128, 3))
    return np.clip(64 + face(0) / 2 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_made_or_not_and_follows_from_its_generator(change, textured) -> None:
    before = textured.copy()
    centre = textured[8:120, 8:120]
    switched_off = dict.fromkeys(CHANGES, 1.0) | {change: 0.0}
    nothing = Augmentation(**dict.fromkeys(CHANGES, 0.0))
    np.testing.assert_array_equal(nothing(textured, 8, generator()), centre)
    changed = only(change)(textured, 8, generator(7))
    assert changed.shape == (112, 112, 3)
    assert changed.dtype == np.uint8
    assert changed.flags.c_contiguous
    assert not np.array_equal(changed, centre)
    np.testing.assert_array_equal(changed, only(change)(textured, 8, generator(7)))
    everything = Augmentation(**dict.fromkeys(CHANGES, 1.0))(textured, 8, generator(7))
    assert not np.array_equal(everything, Augmentation(**switched_off)(textured, 8, generator(7)))
    np.testing.assert_array_equal(textured, before)


def test_probabilities_are_shares() -> None:
    face = np.arange(112, dtype=np.uint8)[None, :, None] * np.ones((112, 1, 3), np.uint8)
    augmentation = Augmentation(flip=0.3)
    flipped = [augmentation(face, 0, generator(seed))[0, 0, 0] == 111 for seed in range(2000)]
    assert 0.26 < np.mean(flipped) < 0.34


def test_jitter_is_as_imprecise_as_landmarks() -> None:
    rows, columns = np.mgrid[:128, :128]
    face = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    faces = np.array([only("jitter")(face, 8, generator(seed)) for seed in range(400)], float)
    # Where the middle of the face came from, and how the pixels below and beside it did.
    middle = faces[:, 55:57, 55:57, :2].mean(axis=(1, 2))
    np.testing.assert_allclose(middle.mean(axis=0), 63.5, atol=0.3)
    np.testing.assert_allclose(middle.std(axis=0), 1.5, atol=0.25)
    down = (faces[:, 86, 55, :2] - faces[:, 25, 55, :2]) / 61
    degrees = np.degrees(np.arctan2(down[:, 1], down[:, 0]))
    assert 1.7 < degrees.std() < 2.4
    assert 0.02 < np.hypot(down[:, 0], down[:, 1]).std() < 0.031


def test_a_flip_mirrors(textured) -> None:
    np.testing.assert_array_equal(
        only("flip")(textured, 8, generator()), textured[8:120, 8:120][:, ::-1]
    )


def test_occlusion_is_a_rectangle_of_one_colour(textured) -> None:
    for seed in range(50):
        centre = textured[8:120, 8:120]
        changed = only("occlusion")(textured, 8, generator(seed))
        rows, columns, _ = np.nonzero(changed != centre)
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        patch = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(np.unique(patch.reshape(-1, 3), axis=0)) == 1
        assert 0.015 < area / 112**2 < 0.21


def test_colour_changes_every_channel_along_a_line() -> None:
    """Of a grey picture each channel becomes a linear function."""
    ramp = np.repeat(np.linspace(60, 190, 112 * 112).astype(np.uint8), 3).reshape(112, 112, 3)
    slopes = []
    for seed in range(40):
        changed = only("colour")(ramp, 0, generator(seed)).astype(float)
        for channel in range(3):
            line = np.polyfit(ramp[..., 0].ravel(), changed[..., channel].ravel(), 1)
            inside = (changed[..., channel] > 0) & (changed[..., channel] < 255)
            error = np.polyval(line, ramp[..., 0]) - changed[..., channel]
            assert np.abs(error[inside]).mean() < 2
            slopes.append(line[0])
    assert 0.6 < min(slopes) < 0.85
    assert 1.15 < max(slopes) < 1.45


def test_saturation_is_changed_too() -> None:
    face = np.full((112, 112, 3), (150, 120, 100), np.uint8)
    spread = [np.ptp(only("colour")(face, 0, generator(seed))[0, 0]) for seed in range(60)]
    assert min(spread) < 35
    assert max(spread) > 65


def test_grey_has_one_channel_three_times(textured) -> None:
    changed = only("grey")(textured, 8, generator())
    expected = textured[8:120, 8:120] @ np.array([0.299, 0.587, 0.114])
    assert np.all(changed == changed[..., :1])
    assert np.abs(changed[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("change", ["blur", "low_resolution", "jpeg"])
def test_detail_is_lost_and_the_rest_stays_in_place(change: str, textured) -> None:
    centre = textured[8:120, 8:120]
    for seed in range(20):
        changed = only(change)(textured, 8, generator(seed))
        assert sharpness(changed) < 0.9 * sharpness(centre)
        coarse = [cv2.resize(x, (14, 14), interpolation=cv2.INTER_AREA) for x in (changed, centre)]
        assert np.abs(coarse[0].astype(int) - coarse[1]).mean() < 6
