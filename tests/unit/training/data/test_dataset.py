from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from training.data import Augmentation, PersonBatches, ShuffledBatches, open_faces
from training.data.dataset import TrainingFaces

AUGMENTATION = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.5))


@pytest.fixture
def training(folder: Path) -> TrainingFaces:
    return TrainingFaces(open_faces(folder), np.arange(6), AUGMENTATION, seed=1)


def load(
    faces: TrainingFaces, workers: int, epochs: range, begin: int = 0
) -> list[tuple[torch.Tensor, ...]]:
    """All batches of some epochs, in the first of them from the one numbered `begin`."""
    labels = np.array([0, 0, 0, 1, 2, 2])
    sampler: list[np.ndarray] = []
    loader = DataLoader(
        faces, batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    loaded = []
    for epoch in epochs:
        batches = ShuffledBatches(labels, 2, seed=1).batches(epoch)
        sampler[:] = batches[begin if epoch == epochs[0] else 0 :]
        faces.set_epoch(epoch)
        loaded += [tuple(batch) for batch in loader]
    return loaded


def equal(one: list[tuple[torch.Tensor, ...]], other: list[tuple[torch.Tensor, ...]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_and_resuming_change_nothing(training: TrainingFaces) -> None:
    alone = load(training, workers=0, epochs=range(3))
    assert equal(load(training, workers=1, epochs=range(3)), alone)
    assert equal(load(training, workers=2, epochs=range(3)), alone)
    assert equal(load(training, workers=2, epochs=range(1, 3), begin=2), alone[5:])


def test_an_item_is_a_face_its_person_and_its_place(training: TrainingFaces) -> None:
    face, label, index = training[4]
    assert (face.shape, face.dtype) == ((112, 112, 3), torch.uint8)
    assert (label, index) == (2, 4)


def test_pixels_depend_on_seed_epoch_and_item(folder: Path, training: TrainingFaces) -> None:
    def pixels(faces: TrainingFaces, epoch: int) -> torch.Tensor:
        faces.set_epoch(epoch)
        return torch.stack([face for face, _, _ in faces])

    first = pixels(training, 0)
    assert not torch.equal(first, pixels(training, 1))
    assert torch.equal(first, pixels(training, 0))
    other = TrainingFaces(open_faces(folder), np.arange(6), AUGMENTATION, seed=2)
    assert not torch.equal(first, pixels(other, 0))


def test_without_augmentation_it_is_the_centre(folder: Path, face) -> None:
    plain = TrainingFaces(open_faces(folder), np.array([5, 3]), None, seed=1)
    assert len(plain) == 2
    pixels, label, index = plain[0]
    np.testing.assert_array_equal(pixels.numpy(), face(5)[8:120, 8:120])
    assert (label, index) == (2, 5)


def test_batches_of_persons_go_into_a_loader(training: TrainingFaces) -> None:
    batches = PersonBatches(np.array([0, 0, 0, 1, 2, 2]), persons=2, faces=2, seed=0).batches(0)
    [(faces, labels, _)] = DataLoader(training, batch_sampler=batches)
    assert faces.shape == (4, 112, 112, 3)
    assert sorted(labels.tolist()) == [0, 0, 2, 2]
