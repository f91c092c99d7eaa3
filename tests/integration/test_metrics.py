"""The metrics as Prometheus itself judges them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import running


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus)")
def test_promtool_has_nothing_to_say(tmp_path: Path, hopper: bytes, group: bytes) -> None:
    with running(tmp_path) as client:
        client.post("/persons/grace/faces", files={"image": hopper})
        client.post("/persons/grace/faces", files={"image": group})
        client.post("/identify", files={"image": group})
        client.post("/verify", files={"image_a": hopper, "image_b": hopper})
        client.get("/nothing/here")
        metrics = client.get("/metrics").text
    judged = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True
    )
    assert judged.stdout + judged.stderr == ""
    assert judged.returncode == 0


def test_every_metric_has_been_fed(tmp_path: Path, hopper: bytes, group: bytes) -> None:
    with running(tmp_path, enrolment={"min_eye_distance_px": 100}) as client:
        client.post("/persons/grace/faces", files={"image": hopper})
        client.post("/persons/grace/faces", files={"image": group})
        client.post("/identify", files={"image": group})
        client.post("/verify", files={"image_a": hopper, "image_b": hopper})
        metrics = client.get("/metrics").text
    for line in (
        'faceid_http_requests_total{method="POST",route="/identify",status="200"} 1.0',
        'faceid_stage_duration_seconds_count{stage="search"} 1.0',
        'faceid_stage_duration_seconds_count{stage="decode"} 5.0',
        'faceid_rejected_images_total{code="multiple_faces"} 1.0',
        'faceid_enrolment_warnings_total{code="too_small"} 1.0',
        'faceid_failed_enrolments_total{code="multiple_faces"} 1.0',
        'faceid_decisions_total{call="identify",decision="match"} 1.0',
        'faceid_decisions_total{call="identify",decision="unknown"} 1.0',
        'faceid_decisions_total{call="verify",decision="verified"} 1.0',
        'faceid_similarity_ratio_count{call="verify"} 1.0',
        'faceid_gallery_persons{gallery="default"} 1.0',
        'faceid_gallery_faces{gallery="default"} 1.0',
        'faceid_model_info{device="cpu",model="sface-2021dec"} 1.0',
        "faceid_photos_in_flight 0.0",
        "faceid_queue_depth 0.0",
    ):
        assert line in metrics, line
