"""From a folder per person of any photos to a folder per person of aligned faces."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
from rich.console import Console
from rich.progress import track

from app.errors import ImageError, NoFace
from app.inference.pool import available_cores
from training.data.alignment import Aligner
from training.data.ledger import Entry, Ledger
from training.data.photos import LeftOut, Photo, scan
from training.errors import ForeignFolder
from training.files import full_disk_explained, replacing

LEDGER = "prepared.jsonl"

_UNREADABLE = "unreadable_file"
_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Report:
    """
    Attributes:
        written: faces that are new, or of photos that have changed.
        present: faces that were there before.
        removed: faces that were there before, of photos that are no more.
        left_out: photos without a face, whichever run found that out.
    """

    written: int
    present: int
    removed: int
    left_out: list[LeftOut]


class _Job(NamedTuple):
    name: str
    photo: Path
    face: Path
    fingerprint: str


def prepare(
    photos: Path, output: Path, *, workers: int | None = None, progress: bool = False
) -> Report:
    """Find, align and store the face of every photo, as `output`/<person>/<photo's stem>.png.

    Of several faces it takes the one in the middle, see `alignment.main_face`. Another run
    makes up only for what has changed: new, changed and deleted photos. It may be interrupted
    at any time.

    Args:
        photos: holds a folder per person.
        output: a new or empty folder, or that of an earlier run.
        workers: threads; None for one on each core.
        progress: draw a bar on standard error.

    Raises:
        NoFaces: there are no photos.
        ForeignFolder: `output` holds something else, or one folder is inside the other.
        NoSpace: the disk is full; the faces before are intact.
    """
    found = scan(photos)
    _check_output(output, photos)
    align = Aligner()
    ledger = Ledger(output / LEDGER)
    removed = _remove_faces_without_photo(output, ledger, {photo.name for photo in found.photos})
    jobs = _find_jobs(found.photos, output, ledger, align.version)
    written = 0
    made = _in_parallel(lambda job: _make(align, job), jobs, workers or available_cores())
    console = Console(stderr=True)
    with full_disk_explained(output), ledger, _no_threads_in_opencv(), closing(made):
        for entry in track(made, "preparing", len(jobs), console=console, disable=not progress):
            ledger.add(entry)
            written += not entry.code
    left_out = [LeftOut(e.photo, e.code, e.detail) for e in ledger.entries.values() if e.code]
    return Report(
        written=written,
        present=len(ledger.entries) - len(left_out) - written,
        removed=removed,
        left_out=sorted(found.left_out + left_out),
    )


def _check_output(output: Path, photos: Path) -> None:
    one, other = output.resolve(), photos.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ForeignFolder(f"{output} and {photos} are one inside the other; keep them apart.")
    is_empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not (is_empty or (output / LEDGER).is_file()):
        raise ForeignFolder(
            f"{output} holds files that `faceid-train prepare` has not written; choose a folder "
            "that is new or empty."
        )


def _find_jobs(photos: list[Photo], output: Path, ledger: Ledger, version: str) -> list[_Job]:
    """The photos that are new or have changed, or whose faces are no longer there."""
    jobs = []
    for photo in photos:
        face = _face_path(output, photo.name)
        job = _Job(photo.name, photo.path, face, _fingerprint(photo.path, version))
        known = ledger.entries.get(photo.name)
        if not (known and known.fingerprint == job.fingerprint and (known.code or face.exists())):
            jobs.append(job)
    return jobs


def _face_path(output: Path, photo: str) -> Path:
    name = Path(photo)
    return output / name.parent / f"{name.stem}.png"


def _fingerprint(photo: Path, version: str) -> str:
    """Changes with the photo, and with how faces are made. Empty if there is no knowing."""
    try:
        status = photo.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}-{version}"


def _remove_faces_without_photo(output: Path, ledger: Ledger, photos: set[str]) -> int:
    removed = 0
    for name in ledger.entries.keys() - photos:
        removed += not ledger.entries.pop(name).code
        face = _face_path(output, name)
        face.unlink(missing_ok=True)
        if face.parent.exists() and not any(face.parent.iterdir()):
            face.parent.rmdir()
    return removed


def _make(align: Aligner, job: _Job) -> Entry:
    try:
        face = align(job.photo.read_bytes())
    except OSError as error:
        # May have changed without a trace the next time.
        entry = Entry(job.name, "", _UNREADABLE, f"{error.strerror}.")
    except (ImageError, NoFace) as error:
        entry = Entry(job.name, job.fingerprint, error.code, error.detail)
    else:
        with replacing(job.face) as partial:
            partial.parent.mkdir(exist_ok=True)
            partial.write_bytes(face)
        return Entry(job.name, job.fingerprint)
    job.face.unlink(missing_ok=True)
    return entry


def _in_parallel(
    make: Callable[[_Job], Entry], jobs: list[_Job], workers: int
) -> Generator[Entry, None, None]:
    """Threads are enough: decoding, inference and encoding leave the interpreter lock alone."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    try:
        for start in range(0, len(jobs), _AT_ONCE):
            yield from pool.map(make, jobs[start : start + _AT_ONCE])
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_threads_in_opencv() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
