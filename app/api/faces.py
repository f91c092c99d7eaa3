"""The steps of recognition on their own: detection and embedding."""

from fastapi import APIRouter

from app.api.bodies import one_image
from app.api.deps import Images, Injected, detected
from app.api.problems import responses
from app.api.security import requires
from app.schemas import detection
from app.services.timing import Timings

router = APIRouter(tags=["faces"])


@router.post(
    "/detect",
    responses=responses(413, 415, 503),
    dependencies=requires("identify", about="none"),
    openapi_extra=one_image(),
    summary="Where are the faces?",
)
async def detect(body: Images, services: Injected) -> detection.DetectAnswer:
    timings = Timings()
    try:
        faces = await services.finder.find(body.only_image(), timings)
    finally:
        timings.observe(services.metrics)
    return detection.DetectAnswer(
        faces=[detection.DetectedFace(**detected(face)) for face in faces],
        timings_ms=timings.milliseconds(),
    )


@router.post(
    "/embed",
    responses=responses(413, 415, 503),
    dependencies=requires("embed", about="none"),
    openapi_extra=one_image(),
    summary="Embeddings of the faces",
)
async def embed(body: Images, services: Injected) -> detection.EmbedAnswer:
    """An embedding is biometric data: a photo can be rebuilt from it. Store it accordingly."""
    timings = Timings()
    try:
        faces = await services.finder.embed(body.only_image(), timings)
    finally:
        timings.observe(services.metrics)
    answers = [
        detection.EmbeddedFace(
            **detected(face),
            embedding=face.embedding.vector.tolist() if face.embedding else None,
            norm=face.embedding.norm if face.embedding else None,
        )
        for face in faces
    ]
    return detection.EmbedAnswer(
        faces=answers, model=services.model.spec.name, timings_ms=timings.milliseconds()
    )
