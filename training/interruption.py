"""Ending a run well when somebody asks it to."""

import signal
from typing import Any

import torch
import torch.distributed as dist

from training.place import Place


class Stop:
    """`asked` turns true on SIGINT or SIGTERM, on all processes in the same step; a second
    signal ends the process at once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self._came = True
        signal.signal(number, self._before[number])

    @property
    def asked(self) -> bool:
        if self._place.world == 1:
            return self._came
        came = torch.tensor(self._came, dtype=torch.int32, device=self._place.device)
        dist.all_reduce(came, dist.ReduceOp.MAX)
        return bool(came)
