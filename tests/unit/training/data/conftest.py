"""Faces nobody has: smooth noise, another for every number."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

MakeFace = Callable[..., np.ndarray]


def make_face(number: int, side: int = 128) -> np.ndarray:
    coarse = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def face() -> MakeFace:
    """(side, side, 3) uint8 RGB by its number."""
    return make_face


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ada with three faces, Bob with one, Cleo with two: numbers 0 to 5, margin 8."""
    root = tmp_path / "faces"
    number = 0
    for person, count in (("ada", 3), ("bob", 1), ("cleo", 2)):
        (root / person).mkdir(parents=True)
        for file in range(count):
            path = root / person / f"{file:04d}.png"
            cv2.imwrite(str(path), make_face(number)[..., ::-1])
            number += 1
    return root
