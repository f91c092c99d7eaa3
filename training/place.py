"""Where a process computes, in what precision and in what company."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, default_collate

from training.backbones.cpu import has_bfloat16
from training.data.dataset import Item, TrainingFaces
from training.errors import DataError, TrainingError


@dataclass(frozen=True)
class Place:
    """
    Attributes:
        precision: "float32", "bfloat16" or "float16", of a backbone's convolutions in training.
        workers: processes that read faces.
        rank, world: number of this process, and how many there are.
    """

    device: torch.device
    precision: str
    workers: int
    rank: int = 0
    world: int = 1

    @property
    def on_cpu(self) -> bool:
        return self.device.type == "cpu"

    def autocast(self) -> torch.autocast:
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def loader(self, dataset: TrainingFaces, batches: Sequence[list[int]]) -> Iterator[Any]:
        """Batches of the items at these indices, as `TrainingFaces` gives them: faces, labels and
        indices, each with the batch in front.

        Raises:
            DataError: a face cannot be read.
        """
        read = DataLoader(
            _ErrorsReturned(dataset),
            batch_sampler=batches,
            num_workers=min(self.workers, len(batches)),
            collate_fn=_collate,
            pin_memory=not self.on_cpu,
            worker_init_fn=_begin_worker,
        )
        for batch in read:
            if isinstance(batch, DataError):
                raise batch
            yield batch


class _ErrorsReturned(Dataset[Item]):
    """Raised in a process that reads faces, an error would come with that process's traceback
    in its text."""

    def __init__(self, faces: TrainingFaces) -> None:
        self._faces = faces

    def __len__(self) -> int:
        return len(self._faces)

    def __getitems__(self, indices: list[int]) -> list[Item] | DataError:
        try:
            return [self._faces[i] for i in indices]
        except DataError as error:
            return error


def _collate(read: list[Item] | DataError) -> Any:
    return read if isinstance(read, DataError) else default_collate(read)


def choose(device: str, precision: str, workers: int | None, say: Callable[[str], None]) -> Place:
    """
    Args:
        device: "cpu", "cuda", or "auto".
        precision: wished for; one this device can only imitate gives way to float32.
        workers: None for as many as there is use for.

    Raises:
        TrainingError: there is no such device.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError("PyTorch finds no CUDA device here; use --device cpu.")
    chosen = torch.device(kind)
    if kind == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    elif precision == "bfloat16" and not has_bfloat16():
        say("This CPU has no bfloat16 arithmetic; computing in float32.")
        precision = "float32"
    if workers is None:
        workers = min(os.cpu_count() or 1, 2 if kind == "cpu" else 8)
    # torchrun says how many processes there are.
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    return Place(chosen, precision, workers, rank, world)


def _begin_worker(_: int) -> None:
    # Ctrl-C reaches them too, but it is for the loop to end well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
