"""Replacing the embedder while the service runs."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from app.api.auditing import audited, note
from app.api.bodies import binary_body, read_binary
from app.api.deps import InGallery, Injected
from app.api.problems import responses
from app.api.security import requires
from app.errors import ModelConflict
from app.schemas import models
from app.services.models import Model
from app.services.swap import Swap
from app.store import records

router = APIRouter(prefix="/model", tags=["model"])
all_of_it = requires("admin", about="all")


@router.get("", dependencies=all_of_it, responses=responses(503), summary="Which models there are")
async def get_models(services: Injected) -> models.Models:
    """And how far faces are carried over to the other one."""
    return await _models(services.swap)


@router.put(
    "/other",
    dependencies=all_of_it,
    responses=responses(409, 413, 415, 503),
    summary="Add a model that is to take over",
    openapi_extra=binary_body("An embedder of faceid, ONNX."),
)
@audited("model.add")
async def put_other(request: Request, services: Injected) -> models.Models:
    """From now on both are written to, and faces are carried over from the crops that were kept.
    Searches and decisions go on as before. Sending the same one again changes nothing."""
    await services.swap.add(await read_binary(request, services.settings.limits))
    other = services.swap.pair.other
    if other is not None:
        note(model=other.spec.name, weights=other.spec.weights_sha256)
    return await _models(services.swap)


@router.post(
    "/switch",
    dependencies=all_of_it,
    responses=responses(409, 503),
    summary="Have the two models change their roles",
)
@audited("model.switch")
async def switch(
    services: Injected,
    accept_loss: Annotated[
        bool, Query(description="Also where some persons would not be found any more.")
    ] = False,
) -> models.Models:
    """The next request is answered by the other model; both are written to as before, so a second
    switch brings the former one back."""
    await services.swap.switch(accept_loss=accept_loss)
    note(model=services.swap.pair.active.spec.name)
    return await _models(services.swap)


@router.delete(
    "/other",
    dependencies=all_of_it,
    responses=responses(409, 503),
    summary="Forget the other model",
)
@audited("model.remove")
async def delete_other(services: Injected) -> models.Models:
    """Its file, and everything that was embedded by it."""
    await services.swap.remove()
    return await _models(services.swap)


@router.get(
    "/awaiting",
    dependencies=requires("admin"),
    responses=responses(409, 503),
    summary="Whose photos are needed anew",
)
async def list_awaiting(
    services: Injected,
    model: Annotated[
        Literal["active", "other"], Query(description="That has no embedding of the faces.")
    ] = "other",
    limit: Annotated[int, Query(ge=1, le=1000, description="Persons to look at.")] = 200,
    cursor: Annotated[
        str | None, Query(max_length=200, description="From the page before; opaque.")
    ] = None,
    gallery: InGallery = "default",
) -> models.AwaitingPage:
    """Looks through the gallery part by part: ask again with the `cursor` until it is null."""
    pair = services.swap.pair
    of = pair.active if model == "active" else pair.other
    if of is None:
        raise ModelConflict("There is no other model; ask for model=active.")
    page = await of.store.export_persons(gallery, limit, cursor)
    found = []
    for person in page.persons:
        awaiting = records.to_awaiting(person.payload)
        if awaiting:
            found.append(
                models.AwaitingPerson(
                    person_id=person.payload["person_id"],
                    face_count=person.payload["face_count"],
                    awaiting=[face.face_id for face in awaiting],
                )
            )
    return models.AwaitingPage(persons=found, scanned=len(page.persons), cursor=page.cursor)


async def _models(swap: Swap) -> models.Models:
    pair, report = swap.pair, swap.carry.report
    wanted, found = await swap.carry.sizes()
    return models.Models(
        active=_model(pair.active),
        other=None if pair.other is None else _model(pair.other),
        carried=models.Carried(
            state=report.state,
            is_exact=swap.carry.is_exact,
            persons=found.persons,
            total_persons=wanted.persons,
            faces=found.faces,
            total_faces=wanted.faces,
            awaiting=report.awaiting,
            lost=report.lost,
        ),
    )


def _model(model: Model) -> models.Model:
    calibration = model.spec.calibration
    return models.Model(
        model=model.spec.name,
        weights_sha256=model.spec.weights_sha256,
        dimension=model.spec.dimension,
        calibration=None if calibration is None else calibration.id,
    )
