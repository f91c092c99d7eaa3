"""The loop, on faces and a network small enough for a test; the real ones differ in size only."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.benchmarks import bench_train
from tests.unit.training.tiny import Tiny, TinyFaces, recipe
from training import checkpoint, train
from training.backbones import BACKBONES
from training.errors import (
    Diverged,
    Interrupted,
    InvalidCheckpoint,
    InvalidFaces,
    TooFewPersons,
    TrainingError,
)
from training.place import choose
from training.progress import TrainingBar
from training.recipe import Recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Several would wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(output: Path, chosen: Recipe, faces: TinyFaces | None = None, **options: object) -> Path:
    """Train in this process; the way to the last checkpoint."""
    faces = faces or TinyFaces()
    train.train(chosen, faces, output, device="cpu", workers=0, say=lambda _: None, **options)
    return output / "last.pt"


def in_another_process(code: str, output: Path, **environment: str) -> subprocess.Popen[str]:
    begin = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from tests.unit.training.tiny import TinyFaces, recipe\n"
        "from training import checkpoint, train\n"
        f"output = Path({str(output)!r})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", begin + code],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_equal(one: Path, other: Path) -> None:
    """To the bit: weights, loss head, optimiser, and every loss on the way."""

    def compare(a: object, b: object, where: str) -> None:
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f"{where}.{key}")
        elif isinstance(a, list):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{where}.{i}")
        else:
            assert a == b, where

    first, second = checkpoint.load(one), checkpoint.load(other)
    compare(first.weights, second.weights, "weights")
    compare(first.progress, second.progress, "progress")


class Interrupting(TinyFaces):
    """Somebody presses Ctrl-C while face number `at` is read."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def read(self, index: int) -> np.ndarray:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().read(index)


FULL = recipe(
    training={"epochs": 3, "precision": "bfloat16"},
    augmentation={"jitter": 1.0, "colour": 0.5, "blur": 0.3},
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:  # noqa: ARG001
    return run(tmp_path_factory.mktemp("run"), FULL)


def test_what_ctrl_c_stopped_goes_on_as_if_nothing_had_been(
    tmp_path: Path, uninterrupted: Path
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    validated, epoch = 12, 36  # faces read before the first epoch, and in each
    with pytest.raises(Interrupted, match="Stopped after step 5"):
        run(tmp_path, FULL, Interrupting(at=2 * validated + epoch + 13))
    assert signal.getsignal(signal.SIGINT) is handler
    assert checkpoint.load(tmp_path / "last.pt").progress["position"] == [1, 2, 5]
    assert_equal(run(tmp_path, FULL, resume=True), uninterrupted)


def test_what_was_killed_while_it_saved_goes_on_as_if_nothing_had_been(
    tmp_path: Path, uninterrupted: Path
) -> None:
    """SIGKILL in the middle of writing the checkpoint of step 5."""
    code = """
from tests.unit.training.test_train import FULL
real = os.fsync
def kill_at_the_sixth(number, calls=[]):
    calls.append(number)
    if len(calls) == 7:  # best.pt was the first
        os.truncate(next(output.glob(".last.pt*")), 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    real(number)
os.fsync = kill_at_the_sixth
train.train(FULL, TinyFaces(), output, device="cpu", workers=0, save_minutes=0)
"""
    killed = in_another_process(code, tmp_path)
    _, errors = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, errors
    epoch, _, step = checkpoint.load(tmp_path / "last.pt").progress["position"]
    assert (epoch, step) == (1, 4)
    assert_equal(run(tmp_path, FULL, resume=True), uninterrupted)


def test_readers_of_faces_do_not_change_the_result(tmp_path: Path, uninterrupted: Path) -> None:
    train.train(FULL, TinyFaces(), tmp_path, device="cpu", workers=2, say=lambda _: None)
    assert_equal(tmp_path / "last.pt", uninterrupted)


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    """Also where faces are compared with each other, of which each process has only a part.

    Batch-norm statistics are frozen: those of a part are not those of the whole.
    """
    chosen = recipe(
        model={"start": str(run(tmp_path / "start", recipe())), "frozen_batch_norm": True},
        loss={"name": "triplet", "mining": "all", "scale": None, "margin": 1.0},
    )
    (tmp_path / "recipe.json").write_text(chosen.model_dump_json())
    code = (
        "from training.recipe import Recipe\n"
        "chosen = Recipe.model_validate_json((output.parent / 'recipe.json').read_text())\n"
        "train.train(chosen, TinyFaces(), output, device='cpu', workers=0)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [
        in_another_process(
            code,
            tmp_path / "two",
            RANK=rank,
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in "01"
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    one = checkpoint.load(run(tmp_path / "one", chosen))
    two = checkpoint.load(tmp_path / "two" / "last.pt")
    assert one.progress["position"] == two.progress["position"]
    before = checkpoint.load(tmp_path / "start" / "last.pt").weights
    assert not torch.allclose(before["head.2.weight"], one.weights["head.2.weight"], atol=1e-3)
    for name, value in one.weights.items():
        torch.testing.assert_close(two.weights[name], value, rtol=1e-4, atol=1e-5)


def test_the_loss_falls(tmp_path: Path) -> None:
    last = run(tmp_path, recipe(training={"epochs": 14}))
    losses = [value for _, value in checkpoint.load(last).progress["history"]["loss"]]
    assert losses[-1] < 0.5 * losses[0]
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.pt", "curves.png", "events", "last.pt",
    }  # fmt: skip


def test_the_best_weights_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.2, 0.5, 0.9, 0.7])
    judged = []

    def judge(embeddings: np.ndarray, *_: object) -> dict[str, float]:
        judged.append(embeddings)
        return {"eer": 0.0, "tar@far=1e-01": 1.0, "tar@far=1e-02": next(shares)}

    monkeypatch.setattr(train, "judge", judge)
    best = train.train(
        recipe(training={"epochs": 3}),
        TinyFaces(),
        tmp_path,
        device="cpu",
        workers=0,
        say=lambda _: None,
    )
    assert best["tar@far=1e-02"] == 0.9
    kept = checkpoint.load(tmp_path / "best.pt")
    assert kept.figures == best
    assert checkpoint.load(tmp_path / "last.pt").figures["tar@far=1e-02"] == 0.7
    backbone = checkpoint.build(kept.recipe.model, kept.weights, "best.pt").eval()
    unseen = checkpoint.strangers(TinyFaces(), kept)
    assert set(kept.known) == set(TinyFaces().names) - set(unseen.names)
    faces = torch.from_numpy(np.stack([unseen.read(i) for i in range(len(unseen))]))
    with torch.no_grad():
        again = functional.normalize(backbone(faces)).numpy()
    np.testing.assert_allclose(again, judged[2], atol=1e-5)


def test_the_head_comes_first_and_statistics_stay(tmp_path: Path) -> None:
    start = run(tmp_path / "start", recipe())
    chosen = recipe(
        model={"start": str(start), "frozen_batch_norm": True},
        training={"head_epochs": 1, "epochs": 1},
    )
    begun = checkpoint.load(start)
    checkpoint.save(replace(begun, known=["Ann"]), start)
    before = begun.weights
    means, validated = 36, 12  # faces read for class means, and for each validation
    with pytest.raises(Interrupted):
        run(tmp_path / "fine", chosen, Interrupting(at=means + validated + 25))
    stage = checkpoint.load(tmp_path / "fine" / "last.pt")
    assert stage.progress["position"] == [0, 3, 3]
    moved = {name for name in before if not torch.equal(before[name], stage.weights[name])}
    assert moved == {"head.2.weight", "head.2.bias"}
    ended = checkpoint.load(run(tmp_path / "fine", chosen, resume=True))
    assert ended.known == ["Ann", *begun.known]
    end = ended.weights
    moved = {name for name in before if not torch.equal(before[name], end[name])}
    assert "trunk.1.weight" in moved
    assert not {name for name in moved if "running" in name}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"The loss is (nan|inf) at step [1-5] .*photo-\d+, photo-"):
        run(tmp_path, recipe(training={"rate": 1e30, "clip": 1e30, "warm_up": 0.0}))


class Failing(Tiny):
    """In the last step of the second epoch the loss is finite, and what follows from it is not."""

    def __init__(self, part: str, begins: Callable[[], None]) -> None:
        super().__init__(16)
        self._part, self._begins, self._left = part, begins, 6

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        embeddings = super().forward(faces)
        self._left -= self.training
        if self.training and self._left == 0:
            self._begins()
            if self._part == "gradient":
                embeddings.register_hook(lambda gradient: gradient * torch.nan)
            else:
                self.trunk[2].running_mean = torch.full((8,), torch.nan)
        return embeddings


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("gradient", r"norm of the gradient is nan at step 5 \(epoch 2\).* photo-\d+, photo-"),
        ("statistics", r"12 of 12 embeddings are not finite .* at step 6\."),
    ],
)
def test_a_step_that_diverges_leaves_the_checkpoints_before(
    part: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {}

    def read() -> None:
        good.update({name: (tmp_path / name).read_bytes() for name in ("best.pt", "last.pt")})

    monkeypatch.setitem(BACKBONES, "tiny", lambda *_: Failing(part, read))
    with pytest.raises(Diverged, match=message):
        run(tmp_path, recipe())
    assert good == {name: (tmp_path / name).read_bytes() for name in ("best.pt", "last.pt")}
    assert checkpoint.load(tmp_path / "last.pt").progress["position"] == [1, 0, 3]


@pytest.mark.parametrize(
    ("chosen", "faces", "message"),
    [
        (recipe(training={"rate": 0.1}), TinyFaces(), "training.rate was 0.05, is 0.1"),
        (recipe(model={"dimension": 8}), TinyFaces(), "model.dimension was 16, is 8"),
        (recipe(), TinyFaces(persons=9), "on other faces"),
    ],
)
def test_another_run_is_not_gone_on_with(
    tmp_path: Path, chosen: Recipe, faces: TinyFaces, message: str
) -> None:
    run(tmp_path, recipe())
    content = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(InvalidCheckpoint, match=message):
        run(tmp_path, chosen, faces, resume=True)
    with pytest.raises(TrainingError, match="--resume goes on with it"):
        run(tmp_path, chosen, faces)
    assert (tmp_path / "last.pt").read_bytes() == content


def test_weights_of_another_architecture_are_no_start(tmp_path: Path) -> None:
    start = run(tmp_path, recipe())
    wider = recipe(model={"start": str(start), "dimension": 8})
    with pytest.raises(InvalidCheckpoint, match=r"head.2.bias is \(16,\), not \(8,\)"):
        run(tmp_path / "wider", wider)


class Cut(TinyFaces):
    """One of the faces is cut off."""

    def read(self, index: int) -> np.ndarray:
        if index == 40:
            raise InvalidFaces(f"{self.source(index)} is corrupt or cut off; replace or delete it.")
        return super().read(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_face_that_is_cut_off_is_named(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InvalidFaces) as raised:
        train.train(recipe(), Cut(), tmp_path, device="cpu", workers=workers, say=lambda _: None)
    assert str(raised.value) == "photo-40 is corrupt or cut off; replace or delete it."


def test_persons_with_one_face_are_no_use(tmp_path: Path) -> None:
    with pytest.raises(TooFewPersons, match="0 of 9 persons have 2 faces"):
        run(tmp_path, recipe(), TinyFaces(persons=9, faces=1))


def test_the_benchmark_measures_this_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "WARM_UP", 2)
    place = choose("cpu", "float32", 0, lambda _: None)
    assert bench_train.measure_loop(TinyFaces(), place, recipe()) > 0
    assert train.TrainingBar is TrainingBar


def test_the_pull_to_the_start_is_the_gradient_of_a_quadratic() -> None:
    backbone = Tiny(4)
    anchors = [torch.randn_like(p) for p in backbone.parameters()]
    penalty = sum(
        (p - a).square().sum() for p, a in zip(backbone.parameters(), anchors, strict=True)
    )
    (0.3 / 2 * penalty).backward()
    wanted = [p.grad.clone() for p in backbone.parameters()]
    for p in backbone.parameters():
        p.grad.zero_()
    train._pull(backbone, anchors, 0.3)
    for p, gradient in zip(backbone.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [train._rate(at, 10, 2.0) for at in (0, 1, 2, 6, 10)]
    np.testing.assert_allclose(rates, [0.01, 0.505, 1, 0.5, 0], atol=1e-12)
