"""The embedded store on an encrypted folder, as docs/security.md advises."""

import base64
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores import embedded, enrol, unit

NEEDED = shutil.which("gocryptfs") and shutil.which("fusermount3") and Path("/dev/fuse").exists()

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not NEEDED, reason="gocryptfs and FUSE (Debian: gocryptfs, fuse3)"),
]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A mounted folder, and the one where its content lies encrypted."""
    cipher, plain, password = tmp_path / "cipher", tmp_path / "plain", tmp_path / "password"
    cipher.mkdir()
    plain.mkdir()
    password.write_text("a password for a test")
    quiet = ["gocryptfs", "-q", "-nosyslog", "-passfile", str(password)]
    subprocess.run([*quiet, "-init", "-scryptn", "10", str(cipher)], check=True)
    subprocess.run([*quiet, str(cipher), str(plain)], check=True)
    try:
        yield plain, cipher
    finally:
        subprocess.run(["fusermount3", "-u", str(plain)], check=True)


def holds(folder: Path, needle: bytes) -> bool:
    return any(needle in file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_a_store_works_on_it_and_lies_nowhere_in_the_clear(
    volume: tuple[Path, Path],
) -> None:
    plain, cipher = volume
    path = plain / "store"
    store = embedded(path)
    await store.open()
    for number in range(5):
        await enrol(store, "default", f"person-{number}", number)
    await store.close()
    store = embedded(path)
    await store.open()
    await store.delete_person("default", "person-0")
    assert await store.vacuum() == 1
    for number in range(1, 5):
        ((found,),) = await store.search("default", unit(1, number), 1)
        assert found.person_id == f"person-{number}"
    embedding = unit(1, 3).tobytes()
    await store.close()
    for needle in (embedding, base64.b64encode(embedding)[:-4], b"person-3"):
        assert holds(plain, needle)
        assert not holds(cipher, needle)
