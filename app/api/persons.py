"""Persons and their enrolled faces."""

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, status

from app.api.auditing import audited, note
from app.api.bodies import json_body, read_model, several_images
from app.api.deps import FaceId, Images, InGallery, Injected, PersonId, Which, box_of, quality_of
from app.api.problems import responses
from app.api.security import requires
from app.decision.gate import Gate
from app.errors import InvalidRequest, PersonNotFound
from app.schemas import erasures, export, persons, times
from app.services.capacity import check_capacity
from app.settings import Concern
from app.store import Consent, Face, Person, records

router = APIRouter(prefix="/persons", tags=["persons"], dependencies=requires("enrol"))
access = APIRouter(prefix="/persons", tags=["persons"], dependencies=requires("admin"))

PoorPhotos = Annotated[
    Gate | None,
    Query(
        description="`warn` enrols a poor photo and says why it is one, `enforce` rejects it, "
        "`off` does not look; unset: the service's own."
    ),
]


@router.post(
    "/{person_id}/faces",
    status_code=status.HTTP_201_CREATED,
    responses=responses(409, 413, 415, 503),
    openapi_extra=several_images(),
    summary="Enrol photos of one person",
)
@audited("person.enrol")
async def enrol(
    person_id: PersonId,
    body: Images,
    services: Injected,
    face: Which = "only",
    gate: PoorPhotos = None,
    on_inconsistent: Annotated[
        Concern | None,
        Query(
            description="A face that does not look like the others of the person: rejected, "
            "enrolled with a warning, or just enrolled; unset: the service's own."
        ),
    ] = None,
    on_duplicate: Annotated[
        Concern | None,
        Query(
            description="A new person who looks like somebody enrolled: refused with 409, enrolled "
            "with the `duplicates` in the answer, or just enrolled; unset: the service's own."
        ),
    ] = None,
    consent_reference: persons.ConsentReference | None = None,
    expires_at: Annotated[
        times.Moment | None,
        Query(description="From then on no search finds the person; unset: as it is, or never."),
    ] = None,
    gallery: InGallery = "default",
) -> persons.EnrolAnswer:
    """Creates the person where needed. An image that cannot be used is named in `rejected`
    and spoils no other. Repeating a request is safe: the same photo is stored once.

    A photo whose face is `too_small`, `blurred`, `too_dark`, `too_bright`, of an `extreme_pose`
    or a `low_detection_score` is met as `gate` says."""
    consent = Consent()
    if consent_reference is not None:
        consent["reference"] = consent_reference
    if expires_at is not None:
        consent["expires_at"] = expires_at
    images = body.images.get("image", [])
    if not images or len(body.images) > 1:
        raise InvalidRequest("Send one or more images in the field 'image'.")
    await check_capacity(services.store, gallery, person_id, len(images), services.settings.limits)
    enrolment = await services.enroller.enrol(
        gallery,
        person_id,
        images,
        choice=face,
        gate=gate,
        on_inconsistent=on_inconsistent,
        on_duplicate=on_duplicate,
        consent=consent,
    )
    note(faces_enrolled=len(enrolment.faces), images_rejected=len(enrolment.rejected))
    return persons.EnrolAnswer(
        person_id=person_id,
        faces=[
            persons.EnrolledFace(
                **_measured(enrolled.stored),
                warnings=[
                    persons.QualityWarning(code=w.code, detail=w.detail) for w in enrolled.warnings
                ],
            )
            for enrolled in enrolment.faces
        ],
        rejected=[
            persons.RejectedImage(index=r.index, code=r.error.code, detail=r.error.detail)
            for r in enrolment.rejected
        ],
        duplicates=[
            persons.Duplicate(
                person_id=found.person_id, similarity=found.similarity, threshold=found.threshold
            )
            for found in enrolment.duplicates
        ],
        face_count=enrolment.face_count,
    )


@router.get("", responses=responses(503), summary="List persons")
async def list_persons(
    services: Injected,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[
        str | None, Query(max_length=200, description="From the page before; opaque.")
    ] = None,
    gallery: InGallery = "default",
) -> persons.PersonPage:
    page = await services.store.persons(gallery, limit, cursor)
    return persons.PersonPage(persons=[_person(p) for p in page.persons], cursor=page.cursor)


@router.get("/{person_id}", responses=responses(404, 503), summary="One person")
async def get_person(
    person_id: PersonId, services: Injected, gallery: InGallery = "default"
) -> persons.Person:
    return _person(await services.store.person(gallery, person_id))


@router.patch(
    "/{person_id}",
    responses=responses(404, 413, 415, 503),
    summary="Change a person's metadata, consent reference and end",
    openapi_extra=json_body(persons.PersonPatch),
)
@audited("person.patch")
async def patch_person(
    person_id: PersonId, request: Request, services: Injected, gallery: InGallery = "default"
) -> persons.Person:
    limits = services.settings.limits
    patch = await read_model(request, persons.PersonPatch, limits)
    consent = Consent()
    if "consent_reference" in patch.model_fields_set:
        consent["reference"] = patch.consent_reference
    if "expires_at" in patch.model_fields_set:
        consent["expires_at"] = patch.expires_at
    person = await services.writer.update_person(
        gallery, person_id, patch.metadata, limits.max_metadata_bytes, consent
    )
    return _person(person)


@router.delete("/{person_id}", responses=responses(404, 503), summary="Forget a person")
@audited("person.delete")
async def delete_person(
    person_id: PersonId, services: Injected, gallery: InGallery = "default"
) -> erasures.DeletedPerson:
    """Removes the person and all of their faces; the next search does not see them. The answer is
    the receipt, which is kept; a backup that is restored leaves out whom receipts tell of."""
    receipt = await services.eraser.erase(gallery, person_id)
    note(faces_deleted=receipt.faces_deleted, receipt=receipt.receipt_id)
    return erasures.DeletedPerson(person_id=person_id, **asdict(receipt))


@access.get(
    "/{person_id}/export", responses=responses(404, 503), summary="All that is stored of a person"
)
@audited("person.export")
async def export_person(
    person_id: PersonId, services: Injected, response: Response, gallery: InGallery = "default"
) -> export.PersonExport:
    """For the person's right of access: metadata, faces with their embeddings, times, model; the
    kept crops, and what another model has of them. It is biometric data; photos are not stored, so
    there are none in it."""
    pair = services.swap.pair
    stored = await pair.active.store.export(gallery, person_id)
    faces = [face.face_id for face in (*stored.faces, *stored.awaiting)]
    crops = await services.writer.crops.png(gallery, person_id, faces)
    other = None
    if pair.other is not None:
        with suppress(PersonNotFound):
            held = await pair.other.store.export(gallery, person_id)
            other = export.PersonExportModel(
                model=pair.other.spec.name,
                model_weights_sha256=pair.other.spec.weights_sha256,
                embeddings=dict(
                    zip((f.face_id for f in held.faces), held.embeddings.tolist(), strict=True)
                ),
                template=None if held.template is None else held.template.tolist(),
            )
    response.headers["Content-Disposition"] = 'attachment; filename="person.json"'
    return export.PersonExport(
        **dict(_person(stored.person)),
        gallery=gallery,
        faces=[
            export.PersonExportFace(
                **dict(_face(face)), embedding=embedding, crop=crops.get(face.face_id)
            )
            for face, embedding in zip(stored.faces, stored.embeddings.tolist(), strict=True)
        ],
        template=None if stored.template is None else stored.template.tolist(),
        awaiting=[_face(face) for face in stored.awaiting],
        other_model=other,
        crops_are_kept=services.writer.crops.are_kept,
        model=pair.active.spec.name,
        model_weights_sha256=pair.active.spec.weights_sha256,
        exported_at=datetime.now(UTC),
    )


@router.get("/{person_id}/faces", responses=responses(404, 503), summary="A person's faces")
async def list_faces(
    person_id: PersonId, services: Injected, gallery: InGallery = "default"
) -> persons.PersonFaces:
    stored = await services.store.stored(gallery, person_id)
    if stored is None:
        raise PersonNotFound(gallery, person_id)
    held = records.enrolled(stored.payload)
    return persons.PersonFaces(
        person_id=person_id,
        faces=[_face(face) for face in held.faces],
        awaiting=[_face(face) for face in held.awaiting],
    )


@router.delete(
    "/{person_id}/faces/{face_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(404, 503),
    summary="Forget one face",
)
@audited("face.delete")
async def delete_face(
    person_id: PersonId, face_id: FaceId, services: Injected, gallery: InGallery = "default"
) -> None:
    """The person stays, even without any face."""
    await services.writer.delete_face(gallery, person_id, face_id)


def _person(person: Person) -> persons.Person:
    return persons.Person(
        person_id=person.person_id,
        metadata=dict(person.metadata),
        consent_reference=person.consent_reference,
        expires_at=person.expires_at,
        face_count=person.face_count,
        created_at=person.created_at,
        updated_at=person.updated_at,
    )


def _face(face: Face) -> persons.StoredFace:
    return persons.StoredFace(
        **_measured(face), image_sha256=face.image_sha256, enrolled_at=face.enrolled_at
    )


def _measured(face: Face) -> dict[str, Any]:
    measures = dict(face.quality)
    return {
        "face_id": face.face_id,
        "box": box_of(face.box),
        "detection_score": min(1.0, face.detection_score),
        "norm": measures.pop("norm"),
        "quality": quality_of(measures),
    }
