from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.training.test_checkpoint import a_checkpoint
from tests.unit.training.tiny import Tiny, TinyFaces, recipe
from training import checkpoint, interpolate
from training.errors import InvalidCheckpoint


def test_the_best_mix_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = torch.arange(6, 18)
    ends = [
        a_checkpoint(weights=Tiny(16).state_dict(), held_out=held_out, known=known)
        for known in (["person-0", "person-7"], ["person-0", "person-3"])
    ]
    for name, end in zip("ab", ends, strict=True):
        checkpoint.save(end, tmp_path / f"{name}.pt")
    shares = iter([0.5, 0.7, 0.9, 0.8, 0.6])
    judged = []

    def judge(embeddings: np.ndarray, labels: np.ndarray, _: int) -> dict[str, float]:
        judged.append((embeddings, labels))
        return {"eer": 0.0, "tar@far=1e-02": next(shares)}

    monkeypatch.setattr(interpolate, "judge", judge)
    rows = {}
    best = interpolate.interpolate(
        tmp_path / "a.pt",
        tmp_path / "b.pt",
        TinyFaces(),
        tmp_path / "mix.pt",
        alphas=[0.0, 0.25, 0.5, 0.75, 1.0],
        device="cpu",
        report=rows.__setitem__,
    )
    assert best == 0.5
    assert [row["tar@far=1e-02"] for row in rows.values()] == [0.5, 0.7, 0.9, 0.8, 0.6]
    assert judged[0][1].tolist() == [0] * 6 + [1] * 6  # the persons held out

    written = checkpoint.load(tmp_path / "mix.pt")
    assert written.figures == rows[0.5]
    assert written.progress is None
    assert written.known == ["person-0", "person-3", "person-7"]
    assert written.recipe.about == "tiny; 50% of the way there from a.pt"
    a, b = (end.weights for end in ends)
    for name, value in written.weights.items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2, check_dtype=False)


def test_the_ends_are_the_ends() -> None:
    a, b = Tiny(4).state_dict(), Tiny(4).state_dict()
    for alpha, end in ((0.0, a), (1.0, b)):
        mixed = interpolate.mix(a, b, alpha)
        assert all(torch.equal(mixed[name], value) for name, value in end.items())


def test_two_architectures_cannot_be_mixed(tmp_path: Path) -> None:
    checkpoint.save(a_checkpoint(), tmp_path / "a.pt")
    narrow = replace(
        a_checkpoint(weights=Tiny(8).state_dict()), recipe=recipe(model={"dimension": 8})
    )
    checkpoint.save(narrow, tmp_path / "b.pt")
    with pytest.raises(InvalidCheckpoint, match=r"of two architectures: head.2.bias is \(16,\)"):
        interpolate.interpolate(
            tmp_path / "a.pt",
            tmp_path / "b.pt",
            TinyFaces(),
            tmp_path / "mix.pt",
            alphas=[0.5],
            device="cpu",
            report=print,
        )


def test_a_mix_with_one_that_cannot_say_whom_it_knows_cannot_say_either(tmp_path: Path) -> None:
    for name, known in (("a", None), ("b", ["person-0"])):
        end = a_checkpoint(weights=Tiny(16).state_dict(), held_out=torch.arange(6, 18), known=known)
        checkpoint.save(end, tmp_path / f"{name}.pt")
    interpolate.interpolate(
        tmp_path / "a.pt",
        tmp_path / "b.pt",
        TinyFaces(),
        tmp_path / "mix.pt",
        alphas=[0.5],
        device="cpu",
        report=lambda *_: None,
    )
    assert checkpoint.load(tmp_path / "mix.pt").known is None
