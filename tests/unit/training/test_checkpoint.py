import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.unit.training.tiny import Tiny, TinyFaces, recipe
from training import checkpoint
from training.checkpoint import Checkpoint
from training.errors import InvalidCheckpoint, NoSpace


def a_checkpoint(**changes: object) -> Checkpoint:
    content = {
        "recipe": recipe(),
        "weights": Tiny(16).state_dict(),
        "figures": {"eer": 0.1},
        "faces_sha256": checkpoint.digest(TinyFaces()),
        "held_out": torch.tensor([0, 1, 5]),
        "progress": {"position": [1, 2, 3], "history": {"loss": [[0.5, 1.0]]}},
    }
    return Checkpoint(**(content | changes))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = a_checkpoint()
    checkpoint.save(written, tmp_path / "a.pt")
    read = checkpoint.load(tmp_path / "a.pt")
    assert (read.recipe, read.figures, read.progress) == (
        written.recipe,
        written.figures,
        written.progress,
    )
    assert torch.equal(read.held_out, written.held_out)
    for name, value in written.weights.items():
        assert torch.equal(read.weights[name], value)


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(a_checkpoint(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match=r"No space left to write .*last\.pt"):
        checkpoint.save(a_checkpoint(figures={"eer": 0.0}), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Malice:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("malice",)


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "recipe": Malice()}, tmp_path / "zip.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Malice(), protocol=2))
    for name in ("zip.pt", "pickle.pt"):
        with pytest.raises(InvalidCheckpoint, match="damaged, or no checkpoint"):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "malice").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(InvalidCheckpoint, match="No such file"):
        checkpoint.load(path)
    checkpoint.save(a_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InvalidCheckpoint, match="damaged"):
        checkpoint.load(path)
    torch.save({"format": checkpoint.FORMAT + 1}, path)
    with pytest.raises(InvalidCheckpoint, match="has format 2; this version reads 1"):
        checkpoint.load(path)


def test_another_architecture_is_told_by_what_differs() -> None:
    weights = Tiny(16).state_dict()
    weights["more"] = weights.pop("trunk.3.weight")
    with pytest.raises(InvalidCheckpoint) as raised:
        checkpoint.build(recipe(model={"dimension": 8}).model, weights, "a.pt")
    assert str(raised.value) == (
        "a.pt does not fit tiny-8: head.2.bias is (16,), not (8,); "
        "head.2.weight is (16, 392), not (8, 392); more is unknown; trunk.3.weight is missing."
    )


def test_strangers_are_whom_nobody_was_trained_on() -> None:
    faces = TinyFaces()
    one = a_checkpoint(held_out=torch.arange(12))
    other = a_checkpoint(held_out=torch.arange(6, 18))
    elsewhere = a_checkpoint(faces_sha256="0" * 64)
    assert len(checkpoint.strangers(faces, elsewhere)) == len(faces)
    unseen = checkpoint.strangers(faces, one, elsewhere, other)
    assert [unseen.source(i) for i in range(len(unseen))] == [f"photo-{i}" for i in range(6, 12)]
