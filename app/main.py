"""The application: settings in, an ASGI app out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from fastapi import FastAPI

from app import tracing
from app.api import (
    backup,
    docs,
    erasures,
    faces,
    galleries,
    health,
    identify,
    models,
    persons,
    problems,
    verify,
)
from app.api.admission import RefuseWhenFull, by_path
from app.api.auditing import AuditRequests
from app.api.deps import Services
from app.api.limits import LimitClients
from app.api.middleware import CancelAbandoned, RequestContext
from app.api.rates import Guesses
from app.api.security import Authenticate, SecurityHeaders, allow_pages, requires
from app.api.uploads import BoundUploads
from app.audit import AuditLog
from app.auth import KeyRing
from app.decision.calibrated import Calibrated
from app.decision.fusion import template
from app.errors import StoreUnavailable, StoreUnusable, UnsupportedTarget
from app.inference.detector import Detector
from app.inference.device import Device, choose_device
from app.inference.embedder import CpuEmbedder, CudaEmbedder, FaceEmbedder
from app.inference.pool import CorePool, available_cores
from app.inference.session import open_session
from app.metrics import Metrics
from app.models.spec import DetectorSpec
from app.services.enrol import Enroller
from app.services.erasure import Eraser
from app.services.faces import FaceFinder
from app.services.identify import Identifier
from app.services.lookalikes import Lookalikes
from app.services.models import Pair, calibrated_by
from app.services.swap import Swap
from app.services.verify import Verifier
from app.settings import DecisionSettings, Settings, StoreSettings
from app.store import Targets
from app.store.crops import Crops
from app.store.models import ModelFolders, ModelStores

_log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Build the service; models and store are opened when it starts.

    Raises (when it starts):
        StartupError: a model, the device or the store is not what the settings ask for.
    """
    metrics = Metrics()
    ring = None if settings.auth.disabled else KeyRing(settings.keys_file)
    audit = AuditLog(settings.audit_path, settings.audit.max_file_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if ring is not None:
            ring.load()
        audit.open()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(audit.close)
            await _open(app, settings, metrics, stack)
            yield
            # FastAPI remembers endpoints, and with one that names its application all of it.
            del app.state.services

    app = FastAPI(
        title="faceid",
        summary="Photos in, persons out.",
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # with a page of our own
    )
    app.state.draining = False
    # Added last is met first.
    app.add_middleware(CancelAbandoned)
    app.add_middleware(AuditRequests, log=audit, decisions=settings.audit.decisions)
    app.add_middleware(LimitClients, limits=settings.limits)
    app.add_middleware(
        Authenticate, ring=ring, guesses=Guesses(), origins=settings.auth.cors_origins
    )
    photo_routes = by_path(module.router for module in (identify, verify, faces))
    app.add_middleware(RefuseWhenFull, routes=photo_routes)
    app.add_middleware(BoundUploads, limits=settings.limits)
    if settings.auth.cors_origins:
        allow_pages(app, settings.auth.cors_origins)
    app.add_middleware(RequestContext, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    problems.install(app)
    # A request is held against one router after another: what is called most comes first.
    routers = [
        m.router for m in (identify, verify, faces, persons, galleries, erasures, models, backup)
    ]
    for router in (*routers, persons.access):
        app.include_router(router, responses=problems.responses(401, 403, 408, 429))
    app.include_router(health.router)
    keyed = settings.auth.metrics == "key"
    app.include_router(
        health.monitoring, dependencies=requires("metrics", about="all") if keyed else []
    )
    keyed = settings.auth.docs == "key"
    app.include_router(docs.router(app), dependencies=requires(None, about="none") if keyed else [])
    tracing.install(app)
    return app


async def _open(app: FastAPI, settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> None:
    # One image per core is the pool's business; OpenCV's own threads would fight it.
    cv2.setNumThreads(1)
    cores = settings.model.cores or available_cores()
    pool = CorePool(cores)
    stack.callback(pool.close)

    files = settings.model
    detector = Detector(
        *open_session(files.detector, DetectorSpec, "cpu", 1, files.detector_sha256)
    )
    device = choose_device(settings.model.device)

    async def load(file: Path) -> FaceEmbedder:
        # What was kept in the store was checked when it came.
        sha256 = files.embedder_sha256 if file == files.embedder else None
        if device == "cuda":
            return await asyncio.to_thread(
                CudaEmbedder,
                file,
                max_batch=settings.model.max_batch,
                max_wait=settings.model.max_wait_ms / 1e3,
                max_queue=settings.limits.max_photos_per_core * cores * settings.limits.max_images,
                observe=metrics.batch_size.observe,
                sha256=sha256,
            )
        embedder = await asyncio.to_thread(CpuEmbedder, file, cores, pool, sha256)
        await embedder.embed([np.zeros((112, 112, 3), np.uint8)])
        return embedder

    stores = stores_of(settings.store, metrics.store_breaker_open.set)
    crops = Crops(stores.crops, settings.store.crops_key_bytes())

    def serve_by(pair: Pair) -> None:
        # One assignment: who has begun with the former model ends with it.
        services = _services(settings, metrics, device, finder_of, swap, eraser)
        app.state.services = services
        metrics.model_info.clear()
        metrics.model_info.labels(pair.active.spec.name, device).set(1)

    def finder_of(embedder: FaceEmbedder) -> FaceFinder:
        return FaceFinder(detector, embedder, pool, settings.limits, metrics)

    swap = Swap(
        stores,
        crops,
        settings.model.embedder,
        load,
        Targets(settings.decision.target_fpir, settings.decision.target_fmr),
        serve_by,
        metrics,
        workers=cores if device == "cpu" else settings.model.max_batch,
        is_shared=settings.store.url is not None,
    )
    eraser = Eraser(swap.writer, metrics)
    stack.push_async_callback(swap.close)
    stack.push_async_callback(eraser.close)
    try:
        await swap.open()
        await crops.check()
    except StoreUnavailable as error:
        if settings.store.url is None:
            raise StoreUnusable(
                f"The store in {settings.store.path} cannot be opened. {error.detail} Make the "
                "folder readable and writable, or put a backup in its place."
            ) from error
        # A server may come later; until then every call that needs it is answered 503.
        _log.warning("%s", error.detail)
    tasks = [eraser.purge_regularly(settings.privacy.purge_interval_s), swap.carry.run()]
    if settings.store.url is not None:
        tasks.append(swap.follow())
    for task in tasks:
        stack.push_async_callback(_cancelled, asyncio.create_task(task))
    _log.info("ready: %s on %s with %d cores", swap.pair.active.spec.name, device, cores)


def _services(
    settings: Settings,
    metrics: Metrics,
    device: Device,
    finder_of: Callable[[FaceEmbedder], FaceFinder],
    swap: Swap,
    eraser: Eraser,
) -> Services:
    """All that depends on which model is active, and what it works with."""
    model = swap.pair.active
    store = model.store
    calibrated = calibrated_by(model.spec)
    _warn_of_rates(settings.decision, model.spec.name, calibrated)
    finder = finder_of(model.embedder)
    return Services(
        settings=settings,
        metrics=metrics,
        model=model,
        device=device,
        calibrated=calibrated,
        store_kind="server" if settings.store.url else "embedded",
        finder=finder,
        enroller=Enroller(
            finder,
            model,
            swap.writer,
            None if calibrated is None else Lookalikes(store, calibrated),
            settings.enrolment,
            settings.limits.max_faces_per_person,
            metrics,
        ),
        identifier=Identifier(finder, store, calibrated, settings.decision.target_fpir, metrics),
        verifier=Verifier(finder, store, calibrated, settings.decision.target_fmr, metrics),
        eraser=eraser,
        swap=swap,
    )


def _warn_of_rates(settings: DecisionSettings, name: str, calibrated: Calibrated | None) -> None:
    if calibrated is None:
        _log.warning(
            "%s carries no calibration: open-set requests need a threshold, and newcomers are not "
            "compared with others",
            name,
        )
        return
    try:
        calibrated.check(settings.target_fpir, settings.target_fmr)
    except UnsupportedTarget as error:
        _log.warning(
            "%s cannot decide by FACEID_DECISION__TARGET_FPIR and FACEID_DECISION__TARGET_FMR, "
            "which requests and galleries without rates of their own need: %s",
            name,
            error.detail,
        )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def stores_of(
    settings: StoreSettings, observe: Callable[[bool], object] = lambda _: None
) -> ModelStores:
    """What the settings name, not opened yet.

    Args:
        observe: as of `app.store.server.connect`.
    """
    if settings.url is None:
        return ModelFolders(settings.path, template, durable=settings.durable)
    # Imported here: the client takes half a second to load, and most do without it.
    from app.store.server import connect
    from app.store.server_models import ServerModels
    from app.store.vector_index import VectorIndex

    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    client = connect(settings.url, api_key=api_key, timeout_s=settings.timeout_s, observe=observe)
    return ServerModels(
        client,
        template,
        replicas=settings.replication_factor,
        shards=settings.shard_number,
        index=VectorIndex(
            m=settings.hnsw_m,
            min_ef=settings.hnsw_min_ef,
            persons_per_ef=settings.hnsw_persons_per_ef,
            quantization=settings.quantization,
            oversampling=settings.oversampling,
        ),
    )
