"""A network and faces small enough to be trained in a second."""

import cv2
import numpy as np
from torch import nn

from training.backbones import BACKBONES
from training.backbones.layers import Backbone, Standardise
from training.recipe import Recipe


class Tiny(Backbone):
    def __init__(self, dimension: int, dropout: float = 0.0) -> None:
        trunk = nn.Sequential(
            Standardise(), nn.Conv2d(3, 8, 16, stride=16), nn.BatchNorm2d(8), nn.PReLU(8)
        )
        head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * 49, dimension))
        super().__init__(trunk, head, dimension)


class TinyFaces:
    """Persons are coarse noise, their faces the same with some more noise."""

    margin = 0

    def __init__(self, persons: int = 8, faces: int = 6) -> None:
        self.labels = np.repeat(np.arange(persons), faces)
        self.names = tuple(f"person-{person}" for person in range(persons))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> np.ndarray:
        person = np.random.default_rng(int(self.labels[index])).integers(40, 216, (7, 7, 3))
        face = person + np.random.default_rng(1000 + index).integers(-40, 40, (7, 7, 3))
        return cv2.resize(face.astype(np.uint8), (112, 112), interpolation=cv2.INTER_NEAREST)

    def source(self, index: int) -> str:
        return f"photo-{index}"


def recipe(**tables: dict[str, object]) -> Recipe:
    """Two epochs of three steps with ArcFace; each table with changes, None takes a key away."""
    known: dict[str, dict[str, object]] = {
        "model": {"backbone": "tiny", "dimension": 16},
        "loss": {"name": "arcface", "scale": 16.0, "margin": 0.2},
        "data": {"held_out": 0.25},
        "training": {
            "epochs": 2, "batch_size": 12, "rate": 0.05, "loss_rate": 0.5, "warm_up": 0.5,
            "precision": "float32",
        },
    }  # fmt: skip
    merged = {
        name: {
            k: v for k, v in (known.get(name, {}) | tables.get(name, {})).items() if v is not None
        }
        for name in known | tables
    }
    return Recipe.model_validate({"about": "tiny", **merged})


BACKBONES.setdefault("tiny", Tiny)
