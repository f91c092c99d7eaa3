"""Labelled faces for training and evaluation.

Here is what needs neither PyTorch (`dataset`) nor the detector (`prepare`).
"""

from training.data.augmentation import Augmentation
from training.data.batches import PersonBatches, ShuffledBatches
from training.data.face import centre_crop
from training.data.faces import Faces, FaceSet, open_faces, subset
from training.data.pairs import Pairs, open_pairs
from training.data.splits import first_faces, split_persons
from training.data.verification import read_bin

__all__ = [
    "Augmentation",
    "FaceSet",
    "Faces",
    "Pairs",
    "PersonBatches",
    "ShuffledBatches",
    "centre_crop",
    "first_faces",
    "open_faces",
    "open_pairs",
    "read_bin",
    "split_persons",
    "subset",
]
