"""What the routers are given: the application's services, and parts of the request."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Request

from app.api.bodies import Body, read_body
from app.decision.calibrated import Calibrated
from app.inference.device import Device
from app.metrics import Metrics
from app.schemas import detection, identifiers
from app.services.enrol import Enroller
from app.services.erasure import Eraser
from app.services.faces import Choice, Face, FaceFinder
from app.services.identify import Identifier
from app.services.models import Model
from app.services.swap import Swap
from app.services.verify import Verifier
from app.services.writes import PersonWriter
from app.settings import Settings
from app.store import Store


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a request may need; built anew when another model becomes active."""

    settings: Settings
    metrics: Metrics
    model: Model
    calibrated: Calibrated | None
    device: Device
    store_kind: Literal["embedded", "server"]
    finder: FaceFinder
    enroller: Enroller
    identifier: Identifier
    verifier: Verifier
    eraser: Eraser
    swap: Swap

    @property
    def store(self) -> Store:
        """To read from; `writer` writes."""
        return self.model.store

    @property
    def writer(self) -> PersonWriter:
        return self.swap.writer

    @property
    def calibration(self) -> str | None:
        """Its id, if the model carries one."""
        return None if self.calibrated is None else self.calibrated.id


async def _services(request: Request) -> AsyncIterator[Services]:
    services: Services = request.app.state.services
    services.model.users += 1
    try:
        yield services
    finally:
        services.model.users -= 1


Injected = Annotated[Services, Depends(_services)]


async def _body(request: Request) -> Body:
    services: Services = request.app.state.services
    return await read_body(request, services.settings.limits)


Images = Annotated[Body, Depends(_body)]

PersonId = Annotated[
    str,
    Path(
        pattern=identifiers.PERSON_ID,
        description="Your own identifier of the person.",
        examples=["grace"],
    ),
]
FaceId = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$", description="As enrolment returned it.")]
GalleryName = Annotated[str, Path(pattern=identifiers.GALLERY, examples=["default"])]
InGallery = Annotated[
    str,
    Query(
        pattern=identifiers.GALLERY,
        description="Persons of one gallery are never seen from another.",
        examples=["default"],
    ),
]

Which = Annotated[
    Choice,
    Query(
        description="Of several faces: `only` rejects the image, `largest` takes the largest one, "
        "`central` the one nearest the centre."
    ),
]


def box_of(values: tuple[float, ...]) -> detection.Box:
    x, y, width, height = (round(float(value), 2) for value in values)
    return detection.Box(x=x, y=y, width=width, height=height)


def quality_of(values: Mapping[str, float]) -> detection.Quality:
    return detection.Quality(**{name: round(value, 2) for name, value in values.items()})


def detected(face: Face) -> dict[str, Any]:
    """The fields of `detection.DetectedFace`, for it and for what has more of them."""
    return {
        "box": box_of(tuple(face.detection.box)),
        "landmarks": [
            (round(float(x), 2), round(float(y), 2)) for x, y in face.detection.landmarks
        ],
        "detection_score": min(1.0, face.detection.score),
        "quality": quality_of(face.quality._asdict()),
    }
