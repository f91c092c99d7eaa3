"""Is this the same person?"""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.auditing import audited, note
from app.api.bodies import two_images_or_person
from app.api.deps import Images, InGallery, Injected, Which, box_of
from app.api.problems import responses
from app.api.security import requires
from app.decision.distance import Metric
from app.errors import InvalidRequest
from app.schemas import identifiers, recognition
from app.services.verify import Criterion

router = APIRouter(tags=["recognition"], dependencies=requires("identify"))


@router.post(
    "/verify",
    responses=responses(404, 413, 415, 503),
    openapi_extra=two_images_or_person(),
    summary="Is this the same person?",
)
@audited("verify", decision=True)
async def verify(
    body: Images,
    services: Injected,
    person_id: Annotated[
        str | None,
        Query(pattern=identifiers.PERSON_ID, description="Instead of the field of the same name."),
    ] = None,
    metric: Metric = "cosine",
    target_fmr: Annotated[
        float | None,
        Query(gt=0, lt=1, description="Share of pairs of strangers that may be verified."),
    ] = None,
    threshold: Annotated[
        float | None,
        Query(ge=0, le=1000, description="Largest distance, in the metric, instead."),
    ] = None,
    prior: Annotated[
        float,
        Query(
            gt=0,
            lt=1,
            description="Share of comparisons that show one person, for the probability.",
        ),
    ] = 0.5,
    face: Which = "only",
    gallery: InGallery = "default",
) -> recognition.VerifyAnswer:
    """Compares `image_a` with `image_b`, or `image` with the enrolled faces of `person_id`."""
    criterion = Criterion(metric, target_fmr, threshold, prior)
    person_id = person_id or body.fields.get("person_id")
    if person_id is not None:
        if not identifiers.is_person_id(person_id):
            raise InvalidRequest("person_id: 1 to 128 letters, digits or ._@:+=-")
        note(person_id=person_id)
        verification = await services.verifier.verify_person(
            gallery,
            person_id,
            body.only_image(),
            choice=face,
            criterion=criterion,
        )
    else:
        a, b = body.images.get("image_a", []), body.images.get("image_b", [])
        if len(a) != 1 or len(b) != 1 or len(body.images) != 2:
            raise InvalidRequest(
                "Send image_a and image_b, one image each, or one image and a person_id."
            )
        verification = await services.verifier.verify_images(
            a[0], b[0], choice=face, criterion=criterion
        )
    note(verified=verification.verified)
    return recognition.VerifyAnswer(
        verified=verification.verified,
        similarity=verification.similarity,
        distance=verification.distance,
        metric=metric,
        threshold=verification.threshold,
        fmr=verification.fmr,
        probability=verification.probability,
        prior=prior,
        boxes=[box_of(tuple(f.detection.box)) for f in verification.faces],
        model=services.model.spec.name,
        calibration=services.calibration,
    )
