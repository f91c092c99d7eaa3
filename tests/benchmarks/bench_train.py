"""Whether reading and changing faces keeps the training of SFace waiting.

    python -m tests.benchmarks.bench_train

Faces a second of the loop as it is (the recipe `sface-arcface`: JPEG files, all augmentations,
ArcFace, optimiser, progress), against forward and backward of the same net on one fixed batch,
measured before and after it in the same process. Without the data of `tests/conftest.py` the
faces are noise, in files of the same size.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn.modules.batchnorm import _BatchNorm

from tests.conftest import SHARED
from training import recipe as recipes
from training import train
from training.backbones import sface
from training.backbones.cpu import keep_freed_memory
from training.data import FaceSet, open_faces, subset
from training.place import Place, choose
from training.progress import TrainingBar

LEAST_RATIO = {"cpu": 0.85, "cuda": 0.8}
PERSONS, FACES = 50, 60
WARM_UP = 5
STEPS = 25


def few_faces(folder: Path) -> FaceSet:
    """`FACES` of `PERSONS`; noise is written to `folder` where there are no real ones."""
    if (SHARED / "faces").is_dir():
        faces = open_faces(SHARED / "faces")
        counts = np.bincount(faces.labels)
        chosen = [
            np.flatnonzero(faces.labels == person)[:FACES]
            for person in np.flatnonzero(counts >= FACES)[:PERSONS]
        ]
        if len(chosen) == PERSONS:
            return subset(faces, np.concatenate(chosen))
    rng = np.random.default_rng(0)
    for person in range(PERSONS):
        (folder / f"{person:03}").mkdir()
        for face in range(FACES):
            coarse = rng.integers(0, 256, (32, 32, 3), np.uint8)
            image = cv2.resize(coarse, (128, 128), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{person:03}" / f"{face:03}.jpg"), image)
    return open_faces(folder)


def measure_bare(place: Place, batch_size: int) -> float:
    """Faces a second, forward and backward on a fixed batch."""
    backbone = sface.load().to(place.device).train()
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    faces = torch.randint(0, 256, (batch_size, 112, 112, 3), dtype=torch.uint8)
    faces = faces.to(place.device)
    began = 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            began = _now(place)
        with place.autocast():
            embeddings = backbone(faces)
        embeddings.square().mean().backward()
        backbone.zero_grad(set_to_none=True)
    return STEPS * batch_size / (_now(place) - began)


def measure_loop(faces: FaceSet, place: Place, recipe: recipes.Recipe) -> float:
    """Faces a second, from the end of step `WARM_UP` to the last of the first epoch."""
    ends: list[float] = []

    class Watch(TrainingBar):
        def advance(self, epoch: int, done: int, batches: int, loss: float) -> None:
            super().advance(epoch, done, batches, loss)
            ends.append(_now(place))

    train.TrainingBar = Watch  # type: ignore[misc]
    try:
        with tempfile.TemporaryDirectory() as output:
            train.train(
                recipe,
                faces,
                Path(output),
                device=place.device.type,
                workers=place.workers,
                say=_ignore,
            )
    finally:
        train.TrainingBar = TrainingBar  # type: ignore[misc]
    steps = len(ends) - WARM_UP
    return steps * recipe.training.batch_size / (ends[-1] - ends[WARM_UP - 1])


def _now(place: Place) -> float:
    if not place.on_cpu:
        torch.cuda.synchronize()
    return time.perf_counter()


_ignore: Callable[[str], None] = lambda _: None  # noqa: E731


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    keep_freed_memory()
    recipe = recipes.load("sface-arcface", ["data.clean=false", "training.epochs=1"])
    place = choose(options.device, recipe.training.precision, None, print)
    size = recipe.training.batch_size
    with tempfile.TemporaryDirectory() as folder:
        faces = few_faces(Path(folder))
        first = measure_bare(place, size)
        loop = measure_loop(faces, place, recipe)
        second = measure_bare(place, size)
    bare = max(first, second)  # the slower one had company

    device = "CPU" if place.on_cpu else torch.cuda.get_device_name()
    table = Table(title=f"SFace, batch {size}, {place.precision}, {device}", title_justify="left")
    for column in ("", "faces/s"):
        table.add_column(column, justify="right")
    table.add_row("forward and backward, before", f"{first:.1f}")
    table.add_row("the loop", f"{loop:.1f}")
    table.add_row("forward and backward, after", f"{second:.1f}")
    Console().print(table)
    least = LEAST_RATIO[place.device.type]
    print(f"ratio {loop / bare:.3f}, at least {least}")
    sys.exit(loop / bare < least)


if __name__ == "__main__":
    main()
