"""The commands; what they do is tested where it is done."""

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.unit.training.tiny import TinyFaces
from training import checkpoint, cli

TRAIN = [
    "train", "arcface", "--device=cpu", "--workers=0", "--set=model.backbone=tiny",
    "--set=model.start=random", "--set=model.frozen_batch_norm=false", "--set=data.held_out=0.25",
    "--set=training.head_epochs=0", "--set=training.batch_size=12", "--set=training.epochs=1",
]  # fmt: skip


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["faceid-train", *map(str, words)])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    return int(raised.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    faces = TinyFaces()
    for i, person in enumerate(faces.labels):
        path = tmp_path / "faces" / faces.names[person] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), faces.read(i)[..., ::-1])
    return tmp_path / "faces"


def test_from_faces_to_a_model_file(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert call(monkeypatch, *TRAIN, "--faces", folder, "--output", run) == 0
    assert "36 faces of 6 persons to train on" in capsys.readouterr().out
    assert checkpoint.load(run / "best.pt").recipe.training.epochs == 1

    model = tmp_path / "mine.onnx"
    words = ["--name=mine", "--licence=MIT", "--training-data=noise"]
    assert call(monkeypatch, "export", run / "best.pt", model, *words) == 0
    card = model.with_suffix(".md").read_text()
    assert "faceid-train export best.pt mine.onnx --name=mine" in card
    assert str(tmp_path) not in card

    report = tmp_path / "report"
    assert call(monkeypatch, "evaluate", run / "best.pt", folder, "--output", report) == 1
    assert "2 persons with a second face" in capsys.readouterr().err  # those held out

    known = checkpoint.load(run / "best.pt").known
    held_out = sorted({path.name for path in folder.iterdir()} - set(known))
    pairs = tmp_path / "pairs.txt"
    for (one, other), message in (
        (held_out, "2 persons with a second face"),
        (known[:2], "are not judged, as the model knows their persons"),
    ):
        a, b = (
            sorted(path.stem for path in (folder / person).iterdir()) for person in (one, other)
        )
        pairs.write_text(f"1\n{one} {a[0]} {a[1]}\n{one} {a[0]} {other} {b[0]}\n")
        words = ["--pairs", pairs, "--output", report]
        assert call(monkeypatch, "evaluate", run / "best.pt", folder, *words) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "arcfase", "--faces=.", "--output=x"], "did you mean 'arcface'?"),
        (["train", "arcface", "--faces=nowhere", "--output=x"], "nowhere is neither a folder"),
        (["export", "no.pt", "x.onnx", "--name=x", "--licence=x", "--training-data=x"],
         "no.pt: No such file"),
        (["import", "no.onnx", "x.onnx", "--preset=arc", "--name=x", "--licence=x",
          "--training-data=x"], "no preset 'arc'"),
        (["evaluate", "no.onnx", ".", "--output=x"], "no.onnx"),
        (["evaluate-service", "nowhere", "--output=x"], "nowhere is no folder"),
        (["calibrate", "no.onnx", "--faces=nowhere"], "nowhere is neither a folder"),
        (["prepare", "nowhere", "x"], "nowhere"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("faceid-train: ")
    assert message in error
    assert "Traceback" not in error


def test_without_the_extra_it_is_named() -> None:
    code = (
        "import sys\nfrom training import cli\nsys.modules['torch'] = None\n"
        "sys.argv = ['faceid-train', 'train', 'arcface', '--faces=.', '--output=x']\ncli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "torch is not installed; pip install -e '.[training]' in the project's folder brings it.\n"
    )


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom training import cli\nsys.argv = ['faceid-train', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'onnx', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
