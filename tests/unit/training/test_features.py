"""Features of a frozen trunk, kept in a file."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.backbones.layers import Backbone, Standardise
from training.data import subset
from training.features import Features, cache_features


class Faces:
    """Noise, 2 px larger than a face on each side."""

    margin = 2
    labels = np.repeat(np.arange(3), 30)
    names = ("ada", "bob", "cyd")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> np.ndarray:
        return np.random.default_rng([self.seed, index]).integers(0, 256, (116, 116, 3), np.uint8)

    def source(self, index: int) -> str:
        return f"face {index}"


def backbone(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    trunk = nn.Sequential(Standardise(), nn.Conv2d(3, 4, 16, stride=16), nn.BatchNorm2d(4))
    return Backbone(trunk, nn.Sequential(nn.Flatten(), nn.Linear(4 * 49, 8)), 8)


def test_they_are_what_the_trunk_makes_of_the_centres(tmp_path: Path) -> None:
    faces, net = Faces(), backbone()
    found = cache_features(faces, net, tmp_path)
    crops = np.stack([faces.read(i)[2:-2, 2:-2] for i in range(len(faces))])
    with torch.no_grad():
        expected = net.eval().trunk(torch.from_numpy(crops)).numpy()
    assert found.shape == (90, 4, 7, 7)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_they_are_computed_once(tmp_path: Path) -> None:
    first = cache_features(Faces(), backbone(), tmp_path)
    written = (tmp_path / "features.npy").stat().st_mtime_ns
    again = cache_features(Faces(), backbone(), tmp_path)
    assert (tmp_path / "features.npy").stat().st_mtime_ns == written
    np.testing.assert_array_equal(first, again)


def test_other_faces_or_another_trunk_are_computed_anew(tmp_path: Path) -> None:
    cache_features(Faces(), backbone(), tmp_path)
    fewer = subset(Faces(), np.arange(0, 90, 2))
    assert len(cache_features(fewer, backbone(), tmp_path)) == 45
    before = np.array(cache_features(fewer, backbone(), tmp_path))
    assert not np.array_equal(before, cache_features(fewer, backbone(seed=1), tmp_path))
    replaced = subset(Faces(seed=1), np.arange(0, 90, 2))  # other photos, the same names
    assert not np.array_equal(before, cache_features(replaced, backbone(), tmp_path))


def test_some_of_them_keep_their_rows_and_number_persons_anew() -> None:
    file = np.arange(6, dtype=np.float16).reshape(6, 1, 1, 1)
    features = Features(file, np.arange(6), np.array([0, 0, 1, 1, 2, 2]))
    some = features.only(np.array([5, 2, 3])).only(np.array([0, 2]))
    assert some.labels.tolist() == [1, 0]
    assert some.persons == 2
    assert some.read(np.array([0, 1])).flatten().tolist() == [5.0, 3.0]
