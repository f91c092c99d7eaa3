import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.unit.training.tiny import Tiny, TinyFaces, recipe
from training import checkpoint
from training.checkpoint import Checkpoint
from training.data import FaceSet, subset
from training.errors import InvalidCheckpoint, NoSpace, TooFewPersons


def a_checkpoint(**changes: object) -> Checkpoint:
    content = {
        "recipe": recipe(),
        "weights": Tiny(16).state_dict(),
        "figures": {"eer": 0.1},
        "faces_sha256": checkpoint.digest(TinyFaces()),
        "held_out": torch.tensor([0, 1, 5]),
        "known": ["person-1", "Zo\udce9"],
        "progress": {"position": [1, 2, 3], "history": {"loss": [[0.5, 1.0]]}},
    }
    return Checkpoint(**(content | changes))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = a_checkpoint()
    checkpoint.save(written, tmp_path / "a.pt")
    read = checkpoint.load(tmp_path / "a.pt")
    assert (read.recipe, read.figures, read.known, read.progress) == (
        written.recipe,
        written.figures,
        written.known,
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
    with pytest.raises(InvalidCheckpoint, match="has format 3; this version reads up to 2"):
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


def test_one_of_the_first_format_is_read(tmp_path: Path) -> None:
    checkpoint.save(a_checkpoint(), tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["known"]
    torch.save(content | {"format": 1}, tmp_path / "a.pt")
    read = checkpoint.load(tmp_path / "a.pt")
    assert read.known is None
    assert read.recipe == recipe()


def who(faces: FaceSet) -> list[str]:
    return [faces.source(i) for i in range(len(faces))]


def test_strangers_are_whom_nobody_was_trained_on() -> None:
    faces = TinyFaces()
    one = a_checkpoint(held_out=torch.arange(12), known=[f"person-{i}" for i in range(2, 8)])
    other = a_checkpoint(held_out=torch.arange(6, 18), known=None)
    said: list[str] = []
    unseen = checkpoint.strangers(faces, one, other, say=said.append)
    assert who(unseen) == [f"photo-{i}" for i in range(6, 12)]
    assert said == ["7 of 8 persons are left out: the checkpoint knows them."]


def test_more_photos_make_no_strangers() -> None:
    more = TinyFaces(persons=10, faces=9)
    trained = a_checkpoint(held_out=torch.arange(12), known=[f"person-{i}" for i in range(2, 8)])
    said: list[str] = []
    unseen = checkpoint.strangers(more, trained, say=said.append)
    assert unseen.names == ("person-0", "person-1", "person-8", "person-9")
    assert said == ["6 of 10 persons are left out: the checkpoint knows them."]
    with pytest.raises(TooFewPersons, match="knows all 4 persons"):
        checkpoint.strangers(subset(more, range(18, 54)), trained)


def test_that_nobody_is_left_out_is_said() -> None:
    more = TinyFaces(persons=10)
    others, silent = a_checkpoint(known=["Ann"]), a_checkpoint(known=None)
    said: list[str] = []
    assert len(checkpoint.strangers(more, others, say=said.append)) == len(more)
    assert said.pop() == "None of the 10 persons bears a name that the checkpoint knows."
    assert len(checkpoint.strangers(more, others, silent, say=said.append)) == len(more)
    [warning] = said
    assert warning.startswith("Warning: a checkpoint of an earlier version does not say")
