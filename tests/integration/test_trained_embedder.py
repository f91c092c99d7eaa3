"""One ONNX file between the two halves: what training computes is what the service answers."""

from pathlib import Path

import numpy as np
import torch

from tests.conftest import PHOTOS
from tests.service import running
from training import backbones
from training.data.face import centre_crop, decode
from training.data.prepare import prepare
from training.export.embedder import to_onnx
from training.export.publish import describer

DESCRIBE = describer(
    name="own", licence="none", origin="a test", training_data="none", dimension=128
)


def test_an_exported_embedder_answers_as_torch_does(tmp_path: Path) -> None:
    backbone = backbones.sface.load()
    torch.manual_seed(0)
    with torch.no_grad():  # not the shipped one any more
        for parameter in backbone.head.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn_like(parameter))
    model = tmp_path / "own.onnx"
    model.write_bytes(to_onnx(backbone, DESCRIBE).SerializeToString())

    photos = tmp_path / "photos"
    for name in ("grace_hopper.jpg", "astronaut.png"):
        person = photos / Path(name).stem
        person.mkdir(parents=True)
        (person / name).write_bytes((PHOTOS / name).read_bytes())
    prepare(photos, tmp_path / "faces")

    with running(tmp_path / "store", model={"embedder": model}) as client:
        for photo in photos.glob("*/*"):
            answer = client.post("/embed", files={"image": photo.read_bytes()})
            assert answer.status_code == 200
            (face,) = answer.json()["faces"]
            aligned = tmp_path / "faces" / photo.parent.name / f"{photo.stem}.png"
            crop = centre_crop(decode(aligned.read_bytes(), "a face"), margin=8).copy()
            with torch.no_grad():
                raw = backbone.eval()(torch.from_numpy(crop[None]))[0].double().numpy()
            np.testing.assert_allclose(face["norm"], np.linalg.norm(raw), rtol=1e-3)
            assert np.dot(face["embedding"], raw) / np.linalg.norm(raw) >= 0.99999
