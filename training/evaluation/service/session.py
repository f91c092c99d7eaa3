"""What is asked of a running service, over HTTP only."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from app.cli.client import Refused, Service, Unreachable
from app.vision.image import Photo
from training.errors import UnusableService
from training.evaluation.service.report import ServiceFacts

Result = TypeVar("Result")

CANDIDATES = 10

# A photo may wait behind many others; a connection is there at once or not at all.
_TIMEOUT = httpx.Timeout(120, connect=10, pool=None)
_OF_THE_PHOTO = {413, 415, 422}
_ANY_SIZE = 1 << 62


@dataclass(frozen=True, slots=True)
class Enrolled:
    """
    Attributes:
        refused: photos that were not enrolled, and the code of why.
        seconds: from the request to the answer.
    """

    refused: list[tuple[Path, str]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of the face a photo is named after.

    Attributes:
        code: why nothing could be said; None otherwise.
        candidates: persons, best first.
        similarity, threshold: of the best one.
        probability: of the best one, in a closed set.
        matched: the decision.
        gallery_size: persons.
        target_fpir: what the threshold was chosen for.
        seconds: from the request to the answer.
    """

    seconds: float
    code: str | None = None
    candidates: tuple[str, ...] = ()
    similarity: float | None = None
    threshold: float | None = None
    probability: float | None = None
    matched: bool = False
    gallery_size: int = 0
    target_fpir: float | None = None

    @property
    def margin(self) -> float:
        """By how much the best candidate's similarity exceeds its threshold."""
        if self.similarity is None or self.threshold is None:
            return float("-inf")
        return self.similarity - self.threshold


@asynccontextmanager
async def connect(
    url: str, key: str | None, transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator["Session"]:
    """
    Args:
        key: the API key to present.
        transport: how requests travel; None: over the network.

    Raises:
        UnusableService: `url` is no address.
    """
    try:
        http = httpx.AsyncClient(
            base_url=url,
            headers={"X-API-Key": key} if key else None,
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=None),
            transport=transport,
        )
    except httpx.InvalidURL as error:
        raise UnusableService(f"--url {url} is not an address: {error}.") from None
    except UnicodeEncodeError:
        raise UnusableService("What --api-key (or FACEID_API_KEY) says is no API key.") from None
    async with http:
        yield Session(Service(http))


class Session:
    """All methods raise `UnusableService` if the service is not there or refuses to work."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def facts(self) -> ServiceFacts:
        """
        Raises:
            UnusableService: also if the embedder has no calibration.
        """
        ready = await self._ask("GET", "/health/ready")
        if not {"model", "device", "store"} <= ready.keys():
            raise UnusableService("What answers there is not faceid; name another with --url.")
        if ready.get("calibration") is None:
            raise UnusableService(
                f"The service's embedder, {ready['model']!r}, carries no calibration, so that it "
                "decides nothing. Run `faceid-train calibrate MODEL.onnx --faces DIR`, and start "
                "the service with that file again."
            )
        await self._check()
        return ServiceFacts(**{name: ready[name] for name in ServiceFacts.model_fields})

    async def enrol(self, gallery: str, person_id: str, photos: Sequence[Path]) -> Enrolled:
        """Enrol photos of one person in one request, or one by one if they are too large for it.

        The labels are taken as true: who looks like somebody else, or unlike their own other
        photos, is enrolled all the same, and found by `duplicates`.
        """
        read = [(photo, await _read(photo)) for photo in photos]
        refused = [(photo, "unreadable_file") for photo, data in read if data is None]
        sent = [(photo, data) for photo, data in read if data is not None]
        if not sent:
            return Enrolled(refused, 0.0)
        params = {
            "gallery": gallery,
            "face": "central",
            "on_duplicate": "allow",
            "on_inconsistent": "allow",
        }
        images = [("image", data) for _, data in sent]
        started = time.perf_counter()
        # An answer is waited for even if all else ends: nobody is enrolled behind our back.
        answer = await _finished(self._photo("POST", f"/persons/{person_id}/faces", params, images))
        seconds = time.perf_counter() - started
        if isinstance(answer, Refused) and answer.code == "body_too_large" and len(photos) > 1:
            alone = [await self.enrol(gallery, person_id, [photo]) for photo in photos]
            refused = [refusal for enrolled in alone for refusal in enrolled.refused]
            return Enrolled(refused, sum(enrolled.seconds for enrolled in alone))
        if isinstance(answer, dict):
            rejected = answer["rejected"]
        elif answer is not None and "rejected" in answer.problem:
            rejected = answer.problem["rejected"]
        else:
            code = "no_answer" if answer is None else answer.code
            rejected = [{"index": i, "code": code} for i in range(len(sent))]
        refused += [(sent[reason["index"]][0], reason["code"]) for reason in rejected]
        return Enrolled(refused, seconds)

    async def identify(self, gallery: str, photo: Path, **params: str | float) -> Answer:
        """Who is the person nearest the centre of a photo?"""
        data = await _read(photo)
        if data is None:
            return Answer(0.0, "unreadable_file")
        given = {"gallery": gallery, "limit": CANDIDATES, **params}
        started = time.perf_counter()
        answer = await self._photo("POST", "/identify", given, [("image", data)])
        seconds = time.perf_counter() - started
        if isinstance(answer, Refused):
            return Answer(seconds, answer.code)
        if answer is None:
            return Answer(seconds, "no_answer")
        if not answer["faces"]:
            return Answer(seconds, "no_face", target_fpir=answer["target_fpir"])
        face = central(answer["faces"], data)
        candidates = tuple(candidate["person_id"] for candidate in face["candidates"])
        return Answer(
            seconds,
            code=None if candidates else "face_too_small",
            candidates=candidates,
            similarity=face["similarity"],
            threshold=face["threshold"],
            probability=face.get("probability"),
            matched=face["decision"] == "match",
            gallery_size=answer["gallery_size"],
            target_fpir=answer["target_fpir"],
        )

    async def duplicates(self, gallery: str) -> AsyncGenerator[dict[str, Any], None]:
        """The parts of the scan for persons who look like one."""
        cursor = None
        while True:
            found = await self._ask(
                "GET", f"/galleries/{gallery}/duplicates", {"cursor": cursor, "limit": 100}
            )
            yield found
            cursor = found["cursor"]
            if cursor is None:
                return

    async def photo_of(
        self, gallery: str, person_id: str, face_id: str, photos: Sequence[Path]
    ) -> Path | None:
        """From which of the photos a face was enrolled."""
        answer = await self._ask("GET", f"/persons/{person_id}/faces", {"gallery": gallery})
        digests = {face["face_id"]: face["image_sha256"] for face in answer["faces"]}
        for photo in photos:
            data = await _read(photo)
            if data is not None and hashlib.sha256(data).hexdigest() == digests.get(face_id):
                return photo
        return None

    async def forget(self, gallery: str, person_id: str) -> None:
        """Delete a person, if there is one."""
        try:
            await self._service.call("DELETE", f"/persons/{person_id}", {"gallery": gallery})
        except Refused as error:
            if error.code != "person_not_found":
                raise UnusableService(str(error)) from None
        except Unreachable as error:
            raise UnusableService(str(error)) from None

    async def _check(self) -> None:
        """Does it work, and for our key?"""
        await self._ask("GET", "/persons", {"gallery": "evaluation", "limit": 1})

    async def _ask(
        self, method: str, path: str, params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            return await self._service.call(method, path, params)
        except (Refused, Unreachable) as error:
            raise UnusableService(str(error)) from None

    async def _photo(
        self, method: str, path: str, params: dict[str, Any], images: list[tuple[str, bytes]]
    ) -> dict[str, Any] | Refused | None:
        """An answer, a refusal that is only of this request, or None where the service works but
        answers nothing to this photo."""
        try:
            return await self._service.call(method, path, params, images)
        except Refused as error:
            # A target of its own that the service refuses would be refused with every photo.
            always = {"invalid_request"} | (
                set() if "target_fpir" in params else {"unsupported_target"}
            )
            if error.problem.get("status") in _OF_THE_PHOTO and error.code not in always:
                return error
            raise UnusableService(str(error)) from None
        except Unreachable:
            # Is it the service, or this photo? Raises where it is the service.
            await self._check()
            return None


async def _read(photo: Path) -> bytes | None:
    try:
        return await asyncio.to_thread(photo.read_bytes)
    except OSError:
        return None


async def _finished(request: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that is not cancelled when this one is."""
    task = asyncio.ensure_future(request)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def central(faces: Sequence[dict[str, Any]], photo: bytes) -> dict[str, Any]:
    """The face that the photo is named after: the one nearest its centre.

    Args:
        faces: at least one, with boxes in pixels of the upright photo.
    """
    if len(faces) == 1:
        return faces[0]
    width, height = Photo(photo, _ANY_SIZE).size

    def distance(face: dict[str, Any]) -> float:
        box = face["box"]
        across = box["x"] + (box["width"] - width) / 2
        down = box["y"] + (box["height"] - height) / 2
        return float(across**2 + down**2)

    return min(faces, key=distance)
