"""How a run goes, for TensorBoard.

PyTorch's SummaryWriter writes in a thread, where nobody can catch the error of a full disk.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from training.files import full_disk_explained


class Events:
    """A file of scalars in `folder`, which is made if it is not there.

    Args:
        step: what an earlier file of the run says from there on no longer counts.

    Raises:
        NoSpace: the disk is full; `add_scalar` raises it too.
    """

    def __init__(self, folder: Path, step: int) -> None:
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        with full_disk_explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._write(step=step, file_version="brain.Event:2")
        self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """A point of the curve `name`, after so many steps of the optimiser."""
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))

    def _write(self, **content: Any) -> None:
        event = Event(wall_time=time.time(), **content)
        # Opened for each, a few times a minute: so there is nothing left to write at the end.
        with full_disk_explained(self._path), self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
