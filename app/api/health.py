"""Is it alive, can it work, and what has it done?"""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.deps import Injected
from app.api.problems import responses
from app.errors import NotReady, StoreUnavailable
from app.schemas import health
from app.services.together import together

router = APIRouter(tags=["health"])
monitoring = APIRouter()

# Whoever may enrol can make galleries. So many have series of their own, the largest; the others
# are added up under a name that no gallery can have.
_MOST_GALLERIES = 100
_OTHERS = "_others"


@router.get("/health/live", summary="The process answers")
async def live() -> health.Liveness:
    return health.Liveness()


@router.get("/health/ready", responses=responses(503), summary="The service can work")
async def ready(request: Request, services: Injected) -> health.Readiness:
    """The embedder embeds, the store answers and belongs to this embedder, and it stays."""
    if request.app.state.draining:
        raise NotReady("The service is about to stop; send requests to another one.")
    pair = services.swap.pair
    models = [model for model in (pair.active, pair.other) if model is not None]
    for model in models:
        model.embedder.check()
    await together(model.store.check() for model in models)
    return health.Readiness(
        model=pair.active.spec.name,
        other_model=None if pair.other is None else pair.other.spec.name,
        calibration=services.calibration,
        device=services.device,
        store=services.store_kind,
    )


@monitoring.get("/metrics", include_in_schema=False)
async def metrics(services: Injected) -> Response:
    collected = services.metrics
    try:
        galleries = await services.store.galleries()
        carried = await services.swap.carry.carried()
        collected.carried_faces.labels("embedded").set(carried.faces)
    except StoreUnavailable:
        galleries = {}
        collected.store_up.set(0)
    else:
        collected.store_up.set(1)
    collected.gallery_persons.clear()
    collected.gallery_faces.clear()
    largest = sorted(galleries, key=lambda name: galleries[name].faces, reverse=True)
    for position, gallery in enumerate(largest):
        label = gallery if position < _MOST_GALLERIES else _OTHERS
        collected.gallery_persons.labels(label).inc(galleries[gallery].persons)
        collected.gallery_faces.labels(label).inc(galleries[gallery].faces)
    collected.queue_depth.set(services.finder.waiting)
    return Response(generate_latest(collected.registry), media_type=CONTENT_TYPE_LATEST)
