from pathlib import Path

import cv2
import numpy as np
import pytest

from app.errors import InvalidModel
from app.models.spec import SHIPPED_DETECTOR, SHIPPED_EMBEDDER
from training.data import centre_crop, open_faces, open_pairs, subset
from training.errors import InvalidPairs
from training.evaluation import Report, embed_faces, open_embedder, run

MARGIN = 8


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crops each of five blurs, which an embedder takes for people."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    side = 112 + 2 * MARGIN
    for person in range(5):
        coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.float32)
        face = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        folder = root / f"P{person}"
        folder.mkdir()
        for number in (1, 2):
            noisy = face + rng.normal(0, 6, face.shape)
            cv2.imwrite(
                str(folder / f"P{person}_{number:04d}.png"), np.clip(noisy, 0, 255).astype(np.uint8)
            )
    return root


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists") / "pairs.txt"
    path.write_text("2\t2\nP0\t1\t2\nP1\t1\t2\nP0\t1\tP1\t1\nP2\t1\tP3\t1\n"
                    "P2\t1\t2\nP3\t1\t2\nP2\t2\tP4\t1\nP4\t2\tP0\t2\n")  # fmt: skip
    return path


def test_the_centre_of_a_face_is_embedded_whatever_the_batch(faces: Path) -> None:
    labelled, embed = open_faces(faces), open_embedder(SHIPPED_EMBEDDER)
    vectors = embed_faces(embed, labelled)
    assert vectors.shape == (10, embed.spec.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = embed(centre_crop(labelled.read(7), MARGIN)[None])[0]
    assert alone @ vectors[7] > 0.99999


def test_a_file_that_is_no_embedder_is_refused() -> None:
    with pytest.raises(InvalidModel):
        open_embedder(SHIPPED_DETECTOR)


def test_a_folder_and_a_list_of_its_pairs_give_one_report(
    faces: Path, pairs: Path, tmp_path: Path
) -> None:
    report = run(
        SHIPPED_EMBEDDER,
        faces,
        baseline=SHIPPED_EMBEDDER,
        pairs=open_pairs(pairs, faces),
        output=tmp_path / "new" / "report",
        progress=False,
    )
    assert [model.name for model in report.models] == ["sface", "sface (baseline)"]
    assert (report.faces, report.persons) == (10, 5)
    assert report.models[0].licence == "Apache-2.0"
    assert {"pairs/cosine", "list/cosine"} <= {section.key for section in report.sections}
    assert report.section("list/cosine").protocol.startswith("4 genuine and 4 impostor pairs")
    written = (tmp_path / "new" / "report" / "report.json").read_text()
    assert Report.model_validate_json(written) == report
    assert (tmp_path / "new" / "report" / "report.html").stat().st_size > 10_000


def test_pairs_of_whom_is_not_judged_are_refused(faces: Path, pairs: Path, tmp_path: Path) -> None:
    part = subset(open_faces(faces), range(2, 10))  # not P0
    listed = open_pairs(pairs, faces)
    with pytest.raises(InvalidPairs, match=r"2 of 10 faces .* the first is .*P0_0001\.png"):
        run(SHIPPED_EMBEDDER, part, pairs=listed, output=tmp_path, progress=False)

    without = tmp_path / "pairs.txt"
    without.write_text("1\t2\nP1\t1\t2\nP2\t1\t2\nP2\t1\tP3\t1\nP2\t2\tP4\t1\n")
    report = run(
        SHIPPED_EMBEDDER, part, pairs=open_pairs(without, faces), output=tmp_path, progress=False
    )
    assert (report.faces, report.persons) == (8, 4)
    assert report.section("list/cosine").results
