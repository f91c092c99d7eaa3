"""Private files, and root who works for somebody else."""

import os
from pathlib import Path

import pytest

from app.files import open_private, replace_private

SOMEBODY = 10001


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away"
)
def test_what_root_makes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    open_private(tmp_path / "log").close()
    for _ in range(2):
        replace_private(tmp_path / "keys", b"{}")
    owners = {file.name: file.stat().st_uid for file in tmp_path.iterdir()}
    assert owners == {"log": SOMEBODY, "keys": SOMEBODY}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_private(tmp_path / "keys", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_private(tmp_path / "keys", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]
    assert (tmp_path / "keys").read_bytes() == b"old"
