"""`faceid model` against a running service."""

import base64
import subprocess
from pathlib import Path

from app.models.spec import SHIPPED_EMBEDDER
from tests import commands
from tests.service import JPEG, running

NEW = SHIPPED_EMBEDDER.with_name("sface-arcface.onnx")


def faceid(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return commands.faceid("model", *arguments, "--url", url, env=commands.environment())


def test_a_swap_its_rollback_and_the_end_of_the_former_model(tmp_path: Path, hopper: bytes) -> None:
    kept = {"keep_crops": True, "crops_key": base64.b64encode(bytes(32)).decode()}
    with running(tmp_path, store={"path": tmp_path} | kept) as client:
        url = str(client.base_url)
        client.post("/persons/grace/faces", content=hopper, headers=JPEG)
        swapped = faceid("swap", str(NEW), url=url)
        assert swapped.returncode == 0, swapped.stderr
        assert "1 of 1 persons carried over, with 1 of 1 faces; 0 faces need" in swapped.stdout
        assert swapped.stdout.endswith("sface-arcface is in use.\n")
        back = faceid("rollback", url=url)
        assert "sface-2021dec is in use, sface-arcface can take over." in back.stdout
        assert "other\tsface-arcface" in faceid("status", url=url).stdout
        assert faceid("remove", "--yes", url=url).returncode == 0
        gone = faceid("switch", url=url)
        assert (gone.returncode, "model_conflict" in gone.stderr) == (2, True)


def test_who_needs_a_new_photo_is_named_and_keeps_the_switch_from_happening(
    tmp_path: Path, hopper: bytes
) -> None:
    with running(tmp_path) as client:
        url = str(client.base_url)
        client.post("/persons/grace/faces", content=hopper, headers=JPEG)
        refused = faceid("swap", str(NEW), url=url)
        assert refused.returncode == 1
        assert "need new photos\tdefault\tgrace\t0\t1" in refused.stdout
        assert "1 persons would not be found" in refused.stderr
        assert client.get("/model").json()["active"]["model"] == "sface-2021dec"
        assert faceid("swap", str(NEW), "--accept-loss", url=url).returncode == 0
        assert client.get("/model").json()["active"]["model"] == "sface-arcface"
