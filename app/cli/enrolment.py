"""A folder per person becomes a gallery."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from app.cli.client import Refused, Service, Unreachable, person_path
from app.schemas import identifiers

# Also formats the service does not read: its own answer says so, photo by photo.
_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif")
)


class Photo(NamedTuple):
    person_id: str
    path: Path


class Reason(NamedTuple):
    """What speaks against a file."""

    path: Path
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds.

    Attributes:
        photos: to be enrolled.
        rejected: what cannot even be sent.
        ignored: files that are no photos.
    """

    photos: list[Photo] = field(default_factory=list)
    rejected: list[Reason] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What became of the photos; `present` were enrolled before, `warnings` are about some
    that were enrolled now."""

    enrolled: int = 0
    present: int = 0
    rejected: list[Reason] = field(default_factory=list)
    warnings: list[Reason] = field(default_factory=list)


def scan(folder: Path) -> Folder:
    """Find the photos in `folder`/<person id>/. Hidden files and folders are passed over."""
    found = Folder()
    for entry in _entries(folder, found):
        if not entry.is_dir():
            if _is_photo(entry):
                detail = "A photo belongs into a folder that is named by its person's id."
                found.rejected.append(Reason(entry, "no_person", detail))
            else:
                found.ignored.append(entry)
        elif not identifiers.is_person_id(entry.name):
            detail = (
                "The folder's name is to be the person's id: 1 to 128 letters (without accents), "
                "digits or ._@:+=-, the first of them a letter or a digit."
            )
            found.rejected.append(Reason(entry, "invalid_person_id", detail))
        else:
            for path in _entries(entry, found):
                if path.is_dir():
                    detail = "A folder within a person's; its photos belong one level higher."
                    found.rejected.append(Reason(path, "nested_folder", detail))
                elif _is_photo(path):
                    found.photos.append(Photo(entry.name, path))
                else:
                    found.ignored.append(path)
    return found


def _entries(folder: Path, found: Folder) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        found.rejected.append(_unreadable(folder, error))
        return []


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _unreadable(path: Path, error: OSError) -> Reason:
    return Reason(path, "unreadable_file", f"{error.strerror}.")


async def enrol(
    service: Service,
    photos: Sequence[Photo],
    params: Mapping[str, str | None],
    jobs: int,
    report: Report,
    advance: Callable[[], None],
) -> None:
    """Send every photo the service does not have yet, one in a request, `jobs` at a time.

    Args:
        params: of the call that enrols.
        report: filled as it goes, so that it holds when the service is lost half way.
        advance: called after each photo.

    Raises:
        Refused: the service does not even list a person's faces.
        Unreachable: the service has gone.
    """
    present: dict[str, asyncio.Task[set[str]]] = {}
    waiting = iter(photos)

    async def work() -> None:
        # One iterator for all workers: each photo goes to whoever is free next.
        for photo in waiting:
            if photo.person_id not in present:
                present[photo.person_id] = group.create_task(_present(service, photo.person_id))
            await _enrol_one(service, photo, params, await present[photo.person_id], report)
            advance()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(jobs, len(photos))):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _present(service: Service, person_id: str) -> set[str]:
    """Digests of the photos a person is enrolled with."""
    try:
        answer = await service.call("GET", f"{person_path(person_id)}/faces")
    except Refused as error:
        if error.code == "person_not_found":
            return set()
        raise
    return {face["image_sha256"] for face in answer["faces"]}


async def _enrol_one(
    service: Service,
    photo: Photo,
    params: Mapping[str, str | None],
    present: set[str],
    report: Report,
) -> None:
    try:
        data, digest = await asyncio.to_thread(_read, photo.path)
        if digest in present:
            report.present += 1
            return
        path = f"{person_path(photo.person_id)}/faces"
        answer = await service.call("POST", path, params, {"image": data})
    except OSError as error:
        report.rejected.append(_unreadable(photo.path, error))
    except Refused as error:
        # Of the one photo sent, one reason.
        reason = error.problem.get("rejected", [error.problem])[0]
        report.rejected.append(Reason(photo.path, reason["code"], reason["detail"]))
    except Unreachable:
        # Is it the service, or this photo? Raises where it is the service.
        await service.call("GET", "/health/ready")
        detail = "The service works but answers nothing to this photo; is it a very large file?"
        report.rejected.append(Reason(photo.path, "no_answer", detail))
    else:
        present.add(digest)
        report.enrolled += 1
        report.warnings += (
            Reason(photo.path, warning["code"], warning["detail"])
            for face in answer["faces"]
            for warning in face["warnings"]
        )


def _read(path: Path) -> tuple[bytes, str]:
    data = path.read_bytes()
    return data, hashlib.sha256(data).hexdigest()
