"""Galleries: their sizes, their targets, and who in them looks like somebody else."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.api.auditing import audited
from app.api.bodies import json_body, read_model
from app.api.deps import GalleryName, Injected
from app.api.problems import responses
from app.api.security import requires
from app.errors import UnsupportedTarget
from app.schemas import galleries
from app.services.capacity import check_gallery
from app.services.lookalikes import Lookalikes
from app.store import GallerySize, Targets

router = APIRouter(prefix="/galleries", tags=["galleries"])
one = requires("admin")


@router.get(
    "",
    dependencies=requires("admin", about="all"),
    responses=responses(503),
    summary="List galleries",
)
async def list_galleries(services: Injected) -> galleries.GalleryList:
    """Those that hold anybody."""
    sizes = await services.store.galleries()
    return galleries.GalleryList(
        galleries=[
            _gallery(name, size, await services.store.targets(name)) for name, size in sizes.items()
        ]
    )


@router.get("/{gallery}", dependencies=one, responses=responses(503), summary="One gallery")
async def get_gallery(gallery: GalleryName, services: Injected) -> galleries.Gallery:
    """A gallery that nobody was enrolled in is an empty one."""
    store = services.store
    return _gallery(gallery, await store.size(gallery), await store.targets(gallery))


@router.put(
    "/{gallery}",
    dependencies=one,
    responses=responses(413, 415, 503),
    summary="Choose a gallery's error rates",
    openapi_extra=json_body(galleries.GalleryTargets),
)
@audited("gallery.targets")
async def put_gallery(
    gallery: GalleryName, request: Request, services: Injected
) -> galleries.Gallery:
    """They hold for every request that does not name its own."""
    targets = await read_model(request, galleries.GalleryTargets, services.settings.limits)
    if services.calibrated is not None:
        services.calibrated.check(targets.target_fpir, targets.target_fmr)
    chosen = Targets(targets.target_fpir, targets.target_fmr)
    await check_gallery(services.store, gallery, services.settings.limits)
    await services.writer.set_targets(gallery, chosen)
    return _gallery(gallery, await services.store.size(gallery), chosen)


@router.get(
    "/{gallery}/duplicates",
    dependencies=one,
    responses=responses(503),
    summary="The same face under two names, two faces under one",
)
async def find_duplicates(
    gallery: GalleryName,
    services: Injected,
    limit: Annotated[
        int, Query(ge=1, le=1000, description="Persons to look at in this call.")
    ] = 200,
    cursor: Annotated[
        str | None, Query(max_length=200, description="From the answer before; opaque.")
    ] = None,
    target_fpir: Annotated[
        float | None,
        Query(
            gt=0,
            lt=1,
            description="Share of persons that may look like another by chance; unset: 0.001.",
        ),
    ] = None,
) -> galleries.DuplicateScan:
    """Looks through the gallery part by part: ask again with the `cursor` until it is null.
    `scanned` of all `gallery_size` persons say how far it is. A pair is told once."""
    if services.calibrated is None:
        raise UnsupportedTarget(
            "This embedder carries no calibration; it cannot tell who is alike."
        )
    found = await Lookalikes(services.store, services.calibrated).scan(
        gallery, limit, cursor, target_fpir
    )
    size = await services.store.size(gallery)
    return galleries.DuplicateScan(
        duplicates=[
            galleries.DuplicatePair(
                person_ids=(pair.person_id, pair.other_id),
                similarity=pair.similarity,
                threshold=pair.threshold,
            )
            for pair in found.duplicates
        ],
        inconsistent=[
            galleries.InconsistentFace(
                person_id=face.person_id,
                face_id=face.face_id,
                similarity=face.similarity,
                threshold=face.threshold,
            )
            for face in found.odd_faces
        ],
        scanned=found.scanned,
        gallery_size=size.persons,
        cursor=found.cursor,
    )


def _gallery(name: str, size: GallerySize, targets: Targets) -> galleries.Gallery:
    return galleries.Gallery(
        gallery=name,
        persons=size.persons,
        faces=size.faces,
        target_fpir=targets.target_fpir,
        target_fmr=targets.target_fmr,
    )
