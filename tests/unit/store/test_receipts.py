"""The file of the embedded store's receipts."""

import errno
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.errors import StoreUnavailable
from app.store import Receipt
from app.store import receipts as module
from app.store.receipts import FileReceipts

pytestmark = pytest.mark.anyio


def receipt() -> Receipt:
    return Receipt(str(uuid.uuid4()), "default", "d" * 64, "request", "begun", datetime.now(UTC))


async def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    assert await FileReceipts(tmp_path / "file").all() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("torn", [b'{"receipt_id": "00', b"\xff\x00"])
async def test_half_a_line_of_a_crash_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "file"
    first, second = receipt(), receipt()
    receipts = FileReceipts(path)
    await receipts.put(first)
    key = await receipts.key()
    with path.open("ab") as file:
        file.write(torn)
    receipts = FileReceipts(path)
    assert await receipts.all() == [first]
    await receipts.put(second)
    assert await receipts.all() == [first, second]
    assert await FileReceipts(path).key() == key


async def test_half_a_key_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'{"key": "ab')
    added = receipt()
    receipts = FileReceipts(path)
    await receipts.put(added)
    assert await FileReceipts(path).all() == [added]


async def test_lines_are_only_ever_appended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    receipts = FileReceipts(path)
    before = b""
    for _ in range(3):
        await receipts.put(receipt())
        after = path.read_bytes()
        assert after.startswith(before)
        assert len(after) > len(before)
        before = after


async def test_a_full_disk_is_an_error_and_leaves_the_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    first, second = receipt(), receipt()
    receipts = FileReceipts(path)
    await receipts.put(first)
    real = os.write
    for short in (0, 20):

        def full(descriptor: int, data: bytes, short: int = short) -> int:
            if not short:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data[:short])

        monkeypatch.setattr(module.os, "write", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            await receipts.put(second)
        monkeypatch.undo()
        assert await receipts.all() == [first]
    await receipts.put(second)
    assert await receipts.all() == [first, second]


async def test_a_file_that_was_tampered_with_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "file"
    receipts = FileReceipts(path)
    await receipts.put(receipt())
    path.write_bytes(path.read_bytes().replace(b'"gallery"', b'"galaxy"'))
    with pytest.raises(StoreUnavailable, match=str(path)):
        await FileReceipts(path).all()
