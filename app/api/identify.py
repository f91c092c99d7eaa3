"""Who is in this photo?"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from app.api.auditing import audited, note
from app.api.bodies import one_image
from app.api.deps import Images, InGallery, Injected, detected
from app.api.problems import responses
from app.api.security import requires
from app.schemas import recognition
from app.services.faces import Face
from app.services.identify import Decision
from app.services.timing import Timings

router = APIRouter(tags=["recognition"], dependencies=requires("identify"))


@router.post(
    "/identify",
    responses=responses(413, 415, 503),
    openapi_extra=one_image(),
    summary="Who is in this photo?",
)
@audited("identify", decision=True)
async def identify(
    body: Images,
    services: Injected,
    limit: Annotated[int, Query(ge=1, le=50, description="Candidates for each face.")] = 5,
    mode: Annotated[
        Literal["open", "closed"],
        Query(description="`closed`: everybody is known to be enrolled, always name the nearest."),
    ] = "open",
    unique: Annotated[
        bool, Query(description="Nobody is in the photo twice: name each person at most once.")
    ] = False,
    target_fpir: Annotated[
        float | None,
        Query(gt=0, lt=1, description="Share of strangers that may be called somebody."),
    ] = None,
    threshold: Annotated[
        float | None,
        Query(ge=-1, le=1, description="Least cosine similarity of a match, instead."),
    ] = None,
    gallery: InGallery = "default",
) -> recognition.IdentifyAnswer:
    timings = Timings()
    try:
        rule = await services.identifier.rule(
            gallery,
            mode=mode,
            unique=unique,
            limit=limit,
            target_fpir=target_fpir,
            threshold=threshold,
        )
        decided = await services.identifier.identify(rule, body.only_image(), timings)
    finally:
        timings.observe(services.metrics)
    matches = [decision.person.person_id for _, decision in decided if decision.person is not None]
    note(matches=matches, faces=len(decided))
    return recognition.IdentifyAnswer(
        faces=[_identified(face, decision) for face, decision in decided],
        gallery_size=rule.gallery_size,
        target_fpir=rule.target_fpir,
        model=services.model.spec.name,
        calibration=services.calibration,
        timings_ms=timings.milliseconds(),
    )


def _identified(face: Face, decision: Decision) -> recognition.IdentifiedFace:
    best = decision.person or next(iter(decision.candidates), None)
    return recognition.IdentifiedFace(
        **detected(face),
        decision="unknown" if decision.person is None else "match",
        person_id=None if decision.person is None else decision.person.person_id,
        similarity=None if best is None else best.similarity,
        probability=None if best is None else best.probability,
        threshold=decision.threshold,
        candidates=[
            recognition.Candidate(
                person_id=candidate.person_id,
                similarity=candidate.similarity,
                probability=candidate.probability,
            )
            for candidate in decision.candidates
        ],
    )
