"""`faceid-train evaluate-service` against the service itself."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.service import running
from training import cli
from training.evaluation.service import ServiceReport


def changed(image: np.ndarray, number: int) -> np.ndarray:
    """Another photo of the same face: turned, darker, smaller."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 4 * number - 6, 1 - number / 20)
    turned = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return cv2.convertScaleAbs(turned, alpha=1 - number / 20)


@pytest.fixture
def photos(tmp_path: Path, hopper: bytes, collins: bytes) -> Path:
    """Two women, each under three names."""
    for name, data in (("hopper", hopper), ("collins", collins)):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for alias in range(3):
            folder = tmp_path / "people" / f"{name} {alias}"
            folder.mkdir(parents=True)
            for number in range(2):
                cv2.imwrite(str(folder / f"{number}.jpg"), changed(image, 2 * number + alias))
    (tmp_path / "people" / "hopper 0" / "2.jpg").write_bytes(b"no photo")
    return tmp_path / "people"


def test_from_photos_to_a_report(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running(tmp_path / "store") as client:
        words = ["evaluate-service", photos, "--output", tmp_path / "report"]
        words += ["--url", client.base_url]
        monkeypatch.setattr(sys, "argv", ["faceid-train", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code in (0, None)
        assert client.get("/galleries").json() == {"galleries": []}

    report = ServiceReport.model_validate_json((tmp_path / "report" / "report.json").read_text())
    assert report.service.store == "embedded"
    assert (report.photos, report.persons, report.target_fpir) == (13, 6, 0.01)
    figures = report.section("identification/1").results[0].figures
    assert figures["not enrolled"].value == 0
    assert figures["fnir@target=0.01"].value is not None
    # Each is enrolled, or a stranger, under three names: six pairs.
    assert len(report.duplicates) == 6
    for pair in report.duplicates:
        one, other = (name.split()[0] for name in pair.persons)
        assert one == other
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "FPIR with target 1 %" in shown
    assert "Identify, closed set" in shown
