"""Erasures and their receipts."""

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.api.conftest import enrol, named
from tests.service import running


def test_an_erasure_is_answered_with_its_receipt(
    tmp_path: Path, hopper: bytes, collins: bytes, group: bytes
) -> None:
    with running(tmp_path) as client:
        enrol(client, "grace-hopper", hopper)
        enrol(client, "eileen", collins)
        before = datetime.now(UTC)
        receipt = client.delete("/persons/grace-hopper").json()
        assert receipt["person_id"] == "grace-hopper"
        counts = [receipt[name] for name in ("faces_deleted", "probes", "found")]
        assert counts == [1, 2, 0]
        assert (receipt["reason"], receipt["state"]) == ("request", "erased")
        times = [datetime.fromisoformat(receipt[name]) for name in ("begun_at", "erased_at")]
        assert before <= times[0] <= times[1] <= datetime.now(UTC)
        assert "grace-hopper" not in named(client, group)
        for path in ("", "/faces", "/export"):
            assert client.get(f"/persons/grace-hopper{path}").status_code == 404
        again = client.delete("/persons/grace-hopper")
        assert (again.status_code, again.json()["code"]) == (404, "person_not_found")

        # What is kept of it names nobody, and whoever was not there has none.
        kept = client.get("/erasures")
        assert kept.json() == {
            "erasures": [{name: value for name, value in receipt.items() if name != "person_id"}],
            "cursor": None,
        }
        assert "grace" not in kept.text
        file = tmp_path / "erasures.jsonl"
        assert "grace" not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_receipts_come_page_by_page(tmp_path: Path, hopper: bytes) -> None:
    with running(tmp_path) as client:
        for number in range(5):
            enrol(client, f"p{number}", hopper, on_duplicate="allow")
        ids = [client.delete(f"/persons/p{number}").json()["receipt_id"] for number in range(5)]
        found = []
        params: dict[str, Any] = {"limit": 2}
        while True:
            page = client.get("/erasures", params=params).json()
            found.append([receipt["receipt_id"] for receipt in page["erasures"]])
            if page["cursor"] is None:
                break
            params["cursor"] = page["cursor"]
        assert found == [ids[:2], ids[2:4], ids[4:]]
        third = client.get("/erasures").json()["erasures"][2]
        rest = client.get("/erasures", params={"since": third["begun_at"]}).json()["erasures"]
        assert [receipt["receipt_id"] for receipt in rest] == ids[2:]
        unknown = client.get("/erasures", params={"cursor": "nothing"})
        assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request")
