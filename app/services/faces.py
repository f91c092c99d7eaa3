"""From a photo to its faces, aligned and measured, ready to be embedded."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from app.errors import FaceError, FaceTooSmall, ImageError, MultipleFaces, NoFace, QueueFull
from app.inference.detector import Detection, Detector, wide_scale
from app.inference.embedder import Embedding, FaceEmbedder
from app.inference.pool import CorePool
from app.metrics import Metrics
from app.services.timing import Timings
from app.settings import LimitSettings
from app.vision.geometry import align
from app.vision.image import Image, Photo
from app.vision.quality import Quality, measure

Choice = Literal["only", "largest", "central"]
# Of all faces of a photo, largest first, and its width and height, those to embed.
Choose = Callable[[list["Face"], tuple[int, int]], list["Face"]]


@dataclass(slots=True)
class Face:
    """A detected face.

    Attributes:
        crop: (112, 112, 3) uint8 RGB, aligned.
        large_enough: whether the crop holds enough of the photo's pixels to be embedded.
        embedding: None until, and unless, it is embedded.
    """

    detection: Detection
    quality: Quality
    crop: Image
    large_enough: bool
    embedding: Embedding | None = None


class FaceFinder:
    """Decodes photos, finds and embeds their faces, and refuses what it has no room for."""

    def __init__(
        self,
        detector: Detector,
        embedder: FaceEmbedder,
        pool: CorePool,
        limits: LimitSettings,
        metrics: Metrics,
    ) -> None:
        self._detector = detector
        self._embedder = embedder
        self._pool = pool
        self._limits = limits
        self._metrics = metrics
        self._most_in_flight = limits.max_photos_per_core * pool.cores
        self._in_flight = 0

    @property
    def cores(self) -> int:
        return self._pool.cores

    @property
    def waiting(self) -> int:
        """Jobs that no core and no GPU has begun."""
        return self._pool.waiting + self._embedder.waiting

    def check_queue(self) -> None:
        """For requests other than enrolments, whose own photos may be what waits.

        Raises:
            QueueFull: too many photos are in flight, or the next job has waited for too long.
        """
        self.check_room()
        wait = self._pool.longest_wait_s
        if wait > self._limits.max_queue_s:
            raise QueueFull(f"Work has waited {wait:.1f} seconds for a core; try again shortly.")

    def check_room(self) -> None:
        """
        Raises:
            QueueFull: too many photos are in flight.
        """
        if self._in_flight >= self._most_in_flight:
            raise QueueFull(
                f"{self._in_flight} photos are being processed already; try again shortly."
            )

    async def find(self, image: bytes, timings: Timings) -> list[Face]:
        """All faces of a photo, largest first, none of them embedded.

        Raises:
            ImageError: the image cannot be used.
            CrowdedImage: it shows too many faces.
            QueueFull: too many photos are in flight, or this one has waited for too long.
        """
        faces, _ = await self._process(image, timings, lambda *_: [], self._limits.max_queue_s)
        return faces

    async def embed(self, image: bytes, timings: Timings) -> list[Face]:
        """All faces of a photo, largest first, those that are large enough embedded.

        Raises:
            ImageError, CrowdedImage, QueueFull: as in `find`.
            InferenceFailed: as in `FaceEmbedder.embed`.
        """
        faces, _ = await self._process(
            image,
            timings,
            lambda faces, _: [face for face in faces if face.large_enough],
            self._limits.max_queue_s,
        )
        return faces

    async def embed_one(
        self, image: bytes, choice: Choice, *, is_patient: bool = False
    ) -> tuple[Face, Embedding]:
        """The one face of a photo that is meant to show one person.

        Args:
            choice: `only` refuses a photo with several faces, `largest` takes the largest,
                `central` the one nearest the centre.
            is_patient: it is let in however many are in flight, and waits for a core as long
                as it takes.

        Raises:
            ImageError, CrowdedImage, QueueFull, InferenceFailed: as in `embed`.
            NoFace, MultipleFaces, FaceTooSmall.
        """
        timings = Timings()
        try:
            _, (face,) = await self._process(
                image,
                timings,
                lambda faces, size: [self._choose(faces, size, choice)],
                math.inf if is_patient else self._limits.max_queue_s,
            )
        finally:
            timings.observe(self._metrics)
        assert face.embedding is not None
        return face, face.embedding

    async def _process(
        self, image: bytes, timings: Timings, choose: Choose, patience_s: float
    ) -> tuple[list[Face], list[Face]]:
        """All faces, and the chosen ones, which are embedded."""
        if patience_s < math.inf:
            self.check_room()
        with self._flying(), self._counted():
            faces, chosen = await self._pool.run(
                self._find, image, timings, choose, time.perf_counter(), patience_s
            )
            waiting = [face for face in chosen if face.embedding is None]
            if waiting:
                with timings.stage("embed"):
                    embeddings = await self._embedder.embed([face.crop for face in waiting])
                for face, embedding in zip(waiting, embeddings, strict=True):
                    face.embedding = embedding
            return faces, chosen

    def _find(
        self,
        image: bytes,
        timings: Timings,
        choose: Choose,
        submitted: float,
        patience_s: float,
    ) -> tuple[list[Face], list[Face]]:
        waited = time.perf_counter() - submitted
        timings.add("queue", waited)
        if waited > patience_s:
            raise QueueFull(f"The photo waited {waited:.1f} seconds for a core; try again shortly.")
        with timings.stage("decode"):
            photo = Photo(image, self._limits.max_pixels)
            photo.pixels(wide_scale(photo.size))
        with timings.stage("detect"):
            detections = self._detector.detect(photo, self._limits.max_faces_per_image)
        with timings.stage("align"):
            faces = [self._cut(photo, detection) for detection in detections]
        chosen = choose(faces, photo.size)
        if len(chosen) == 1 and self._embedder.on_this_core is not None:
            # One face need not travel to another core; several are shared out among them.
            with timings.stage("embed"):
                chosen[0].embedding = self._embedder.on_this_core(chosen[0].crop)
        return faces, chosen

    def _cut(self, photo: Photo, detection: Detection) -> Face:
        crop = align(photo, detection.landmarks)
        quality = measure(crop, detection.landmarks)
        large_enough = quality.eye_distance_px >= self._limits.min_eye_distance_px
        return Face(detection, quality, crop, large_enough)

    def _choose(self, faces: list[Face], size: tuple[int, int], choice: Choice) -> Face:
        if not faces:
            raise NoFace("No face was found; send a photo that shows one from the front.")
        if choice == "only" and len(faces) > 1:
            raise MultipleFaces(
                f"{len(faces)} faces were found; send a photo of one person, "
                "or ask for face=largest or face=central."
            )
        chosen = faces[0]
        if choice == "central":
            chosen = min(faces, key=lambda face: _off_centre(face, size))
        if not chosen.large_enough:
            raise FaceTooSmall(
                f"The face has {chosen.quality.eye_distance_px:.1f} pixels between the eyes, "
                f"{self._limits.min_eye_distance_px:g} are needed; send a larger photo."
            )
        return chosen

    @contextmanager
    def _flying(self) -> Iterator[None]:
        self._in_flight += 1
        self._metrics.photos_in_flight.inc()
        try:
            yield
        finally:
            self._in_flight -= 1
            self._metrics.photos_in_flight.dec()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except (ImageError, FaceError) as error:
            self._metrics.rejected_images.labels(error.code).inc()
            raise


def _off_centre(face: Face, size: tuple[int, int]) -> float:
    """Pixels from the centre of the face's box to that of the photo."""
    left, top, width, height = face.detection.box
    return math.hypot(left + (width - size[0]) / 2, top + (height - size[1]) / 2)
