from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.errors import NoSpace
from training.events import Events


def test_tensorboard_shows_what_a_run_that_went_on_says(tmp_path: Path) -> None:
    before = Events(tmp_path / "events", 0)
    for step in (10, 20, 30):
        before.add_scalar("loss", 1.0, step)
    after = Events(tmp_path / "events", 21)
    after.add_scalar("loss", 0.5, 30)
    shown = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("loss")] == [(10, 1.0), (20, 1.0), (30, 0.5)]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    events = Events(tmp_path, 0)
    [file] = tmp_path.iterdir()
    file.unlink()
    file.symlink_to("/dev/full")
    with pytest.raises(NoSpace, match=r"No space left to write .*tfevents"):
        events.add_scalar("loss", 1.0, 10)
