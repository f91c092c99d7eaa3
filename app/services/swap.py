"""Replacing the embedder: another one is added, faces are carried over, the two change roles."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from app.errors import (
    FaceIdError,
    InvalidModel,
    ModelConflict,
    NotCarriedOver,
    PersonsWouldBeLost,
    StoreMismatch,
    StoreUnavailable,
    UnsupportedTarget,
    UnusableModel,
)
from app.inference.embedder import FaceEmbedder
from app.inference.session import open_session
from app.metrics import Metrics
from app.models.spec import EmbedderSpec
from app.services.carry import CarryOver
from app.services.finishing import Finishing
from app.services.models import Model, Pair, calibrated_by, identity
from app.services.writes import PersonWriter
from app.store import Embedder, Store, Targets, records
from app.store.crops import Crops
from app.store.models import Chosen, ModelStores

_log = logging.getLogger(__name__)

_FOLLOW_S = 1.0
# A request that began with the former model may take so long.
_USERS_LEAVE_S = 60.0

Load = Callable[[Path], Awaitable[FaceEmbedder]]


class Swap:
    """`Models`, and what changes them.

    Args:
        file: of the configured embedder.
        load: opens an embedder's file.
        targets: for galleries and requests that do not name their own.
        on_change: told when other models are in use.
        workers: faces that can be embedded at once.
        is_shared: whether other processes change the models of these stores too.
    """

    def __init__(
        self,
        stores: ModelStores,
        crops: Crops,
        file: Path,
        load: Load,
        targets: Targets,
        on_change: Callable[[Pair], None],
        metrics: Metrics,
        *,
        workers: int,
        is_shared: bool,
    ) -> None:
        self.writer = PersonWriter(self, crops)
        self.carry = CarryOver(self, self.writer, stores, metrics, workers)
        self._stores = stores
        self._file = file
        self._load = load
        self._targets = targets
        self._on_change = on_change
        self._is_shared = is_shared
        self._changing = asyncio.Lock()
        self._finishing = Finishing()
        # Removed, but for requests that have not ended.
        self._leaving: set[Embedder] = set()
        self._chosen: Chosen | None = None
        self._pair: Pair | None = None

    @property
    def pair(self) -> Pair:
        assert self._pair is not None, "not open"
        return self._pair

    async def open(self) -> None:
        """
        Raises:
            StartupError: the store belongs to an embedder that is not at hand.
            StoreUnavailable: with a store that others share, `current` goes on trying.
        """
        embedder = await self._load(self._file)
        configured = identity(embedder.spec)
        try:
            chosen = await self._stores.open(configured)
        except StoreUnavailable:
            # What it holds is found out when it answers.
            store = self._stores.store(configured)
            self._set(None, Pair(Model(embedder.spec, embedder, store), None))
            raise
        await self._adopt(chosen, embedder)
        if chosen.active != configured:
            _log.warning(
                "%s has replaced the configured %s in this store and is used",
                chosen.active.name,
                configured.name,
            )

    async def close(self) -> None:
        await self._finishing.all_done()
        await self.writer.close()
        for model in self._in_use():
            await model.embedder.close()
            await model.store.close()
        await self._stores.close()

    async def current(self) -> Pair:
        if self._is_shared and await self._stores.chosen() != self._chosen:
            async with self._changing:
                await self._catch_up()
        return self.pair

    async def _catch_up(self) -> None:
        """Adopt what another replica has chosen since."""
        if not self._is_shared:
            return
        chosen = await self._stores.chosen()
        if chosen != self._chosen:
            known = self.pair.active.embedder if self._chosen is None else None
            await self._adopt(chosen, known)

    async def note_unequal(self) -> None:
        self.carry.again()
        await self._stores.note_unequal()

    async def follow(self) -> None:
        """Keep up with what other replicas change, until cancelled."""
        told = ""
        while True:
            try:
                await self.current()
                told = ""
            except StoreUnavailable:
                pass
            except FaceIdError as error:
                if error.detail != told:
                    _log.error("the models in use are not those of the store: %s", error.detail)
                told = error.detail
            except Exception as error:
                if repr(error) != told:
                    _log.error("the store's models cannot be adopted", exc_info=error)
                told = repr(error)
            await asyncio.sleep(_FOLLOW_S)

    async def add(self, data: bytes) -> None:
        """Have another model, which faces are then carried over to; nothing to do where it is
        there already.

        Args:
            data: its file, ONNX.

        Raises:
            UnusableModel, ModelConflict, StoreUnavailable.
        """
        await self._finishing.do(self._add(data))

    async def _add(self, data: bytes) -> None:
        spec = await asyncio.to_thread(_inspect, data)
        new = identity(spec)
        async with self._changing:
            await self._catch_up()
            pair = self.pair
            if spec.weights_sha256 == pair.active.spec.weights_sha256:
                raise UnusableModel(f"{spec.name} has the weights of the model that is in use.")
            if pair.other is not None:
                if pair.other.identity == new:
                    return
                raise ModelConflict(
                    f"{pair.other.spec.name} is the other model already. Remove it first "
                    "(`faceid model remove`)."
                )
            if new in self._leaving:
                raise ModelConflict(f"{spec.name} is just being removed; add it again shortly.")
            active = pair.active.identity
            model = None
            await self._stores.remove(new, None)  # what a crash may have left of it
            try:
                if await self._stores.file(active) is None:
                    # It must be at hand when somebody wants it back, whatever is configured then.
                    await self._stores.keep(active, await self._configured_file(active))
                await self._stores.keep(new, data)
                model = await self._model(new)
                await self._stores.choose(Chosen(active, new))
            except BaseException:
                with suppress(FaceIdError):
                    await self._stores.remove(new, None if model is None else model.store)
                if model is not None:
                    await model.embedder.close()
                raise
            self._set(Chosen(active, new), Pair(pair.active, model))
        self.carry.begin()

    async def _configured_file(self, model: Embedder) -> bytes:
        """What the configured file holds, as long as that is the model it was when it was loaded.

        Raises:
            ModelConflict: it holds another one.
        """
        try:
            data = await asyncio.to_thread(self._file.read_bytes)
            is_same = identity(await asyncio.to_thread(_inspect, data)) == model
        except (OSError, UnusableModel):
            is_same = False
        if not is_same:
            raise ModelConflict(
                f"{self._file} does not hold {model.name} any more, which is in use. Put its file "
                "back, as it is kept for a rollback, and give the new one another name."
            )
        return data

    async def switch(self, *, accept_loss: bool) -> None:
        """Have the two change their roles. Both are still written to, so it can be done again.

        Raises:
            ModelConflict: there is no other, or it cannot decide by the error rates in use.
            NotCarriedOver: not everybody is in the other store yet.
            PersonsWouldBeLost: and `accept_loss` does not say that they may be.
            StoreUnavailable.
        """
        await self._finishing.do(self._switch(accept_loss))

    async def _switch(self, accept_loss: bool) -> None:
        async with self._changing:
            await self._catch_up()
            active, other = self.pair.active, self.pair.other
            if other is None:
                raise ModelConflict("There is no other model; add one (`faceid model swap`).")
            report = self.carry.report
            if report.state != "complete" or await self._stores.unequal():
                wanted, found = await self.carry.sizes()
                raise NotCarriedOver(
                    f"{found.persons} of {wanted.persons} persons are carried over to "
                    f"{other.spec.name}; ask again when all are."
                )
            if not accept_loss:
                if not self.carry.is_exact:
                    raise NotCarriedOver("Persons are being counted again; ask again shortly.")
                if report.lost:
                    raise PersonsWouldBeLost(
                        f"Of {report.lost} persons {other.spec.name} has no face, as no crops of "
                        "them were kept: no search would find them. Enrol new photos of them, or "
                        "accept it (`--accept-loss`).",
                        lost=report.lost,
                        persons=[
                            {"gallery": gallery, "person_id": person_id}
                            for gallery, person_id in report.named
                        ],
                    )
            await self._check_targets(other, active.store)
            chosen = Chosen(other.identity, active.identity)
            await self._stores.choose(chosen)
            self._set(chosen, Pair(other, active))
        self.carry.turn()
        _log.info("%s has replaced %s", other.spec.name, active.spec.name)

    async def _check_targets(self, model: Model, store: Store) -> None:
        """
        Raises:
            ModelConflict: a gallery's error rates are none that the model's calibration knows.
        """
        calibrated = calibrated_by(model.spec)
        if calibrated is None:  # then requests bring thresholds of their own
            return
        own = await store.all_targets()
        for where, targets in {"the settings": self._targets, **own}.items():
            try:
                calibrated.check(
                    targets.target_fpir or self._targets.target_fpir,
                    targets.target_fmr or self._targets.target_fmr,
                )
            except UnsupportedTarget as error:
                raise ModelConflict(
                    f"{model.spec.name} cannot decide by the error rates of {where}: "
                    f"{error.detail} Choose others first."
                ) from None

    async def remove(self) -> None:
        """Forget the other model, and all that was embedded by it.

        Raises:
            ModelConflict: there is no other.
            StoreUnavailable.
        """
        await self._finishing.do(self._remove())

    async def _remove(self) -> None:
        async with self._changing:
            await self._catch_up()
            active, other = self.pair.active, self.pair.other
            if other is None:
                if not self._leaving:
                    await self._stores.finish_removals()
                raise ModelConflict("There is no other model to remove.")
            chosen = Chosen(active.identity)
            await self._stores.choose(chosen)
            self._leaving.add(other.identity)
            self._set(chosen, Pair(active, None))
        self.carry.begin()
        await self._left(other)
        try:
            async with self._changing:
                await self._catch_up()
                if other.identity not in await self._stores.chosen():  # nor added again meanwhile
                    await self._stores.remove(other.identity, other.store)
        finally:
            self._leaving.discard(other.identity)
            await other.embedder.close()

    async def _left(self, model: Model) -> None:
        """Wait for what began with a model that is none of the pair any more."""
        await self.writer.close()
        deadline = time.monotonic() + _USERS_LEAVE_S
        while model.users and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def _close(self, model: Model) -> None:
        await self._left(model)
        await model.embedder.close()

    @property
    def _loaded(self) -> list[Model]:
        """That need not be loaded again; before anything is known, there is no store to them."""
        return [] if self._chosen is None else self._in_use()

    def _in_use(self) -> list[Model]:
        pair = self._pair
        return [] if pair is None else [m for m in (pair.active, pair.other) if m is not None]

    def _set(self, chosen: Chosen | None, pair: Pair) -> None:
        self._chosen = chosen
        self._pair = pair
        self._on_change(pair)

    async def _adopt(self, chosen: Chosen, configured: FaceEmbedder | None = None) -> None:
        former = self._in_use()
        active = await self._model(chosen.active, configured)
        try:
            other = None if chosen.other is None else await self._model(chosen.other, configured)
        except BaseException:
            if active not in former and active.embedder is not configured:
                await active.embedder.close()
            raise
        self._set(chosen, Pair(active, other))
        self.carry.begin()
        used = [model.embedder for model in self._in_use()]
        for model in former:
            if model.embedder not in used:
                self._finishing.start(self._close(model))

    async def _model(self, model: Embedder, configured: FaceEmbedder | None = None) -> Model:
        """The model as it is in use, or loaded, with its store opened."""
        for used in self._loaded:
            if used.identity == model:
                return used
        embedder = configured
        if embedder is None or identity(embedder.spec) != model:
            file = await self._stores.file(model)
            if file is None:
                own = await asyncio.to_thread(open_session, self._file, EmbedderSpec, "cpu", 1)
                if identity(own[1]) != model:
                    raise StoreMismatch(records.other_model(model, identity(own[1]), "the store"))
                file = self._file
            embedder = await self._load(file)
            if identity(embedder.spec) != model:
                await embedder.close()
                raise StoreMismatch(
                    records.other_model(model, identity(embedder.spec), "the store")
                )
        store = self._stores.store(model)
        try:
            await store.open()
        except BaseException:
            if embedder is not configured:
                await embedder.close()
            raise
        return Model(embedder.spec, embedder, store)


def _inspect(data: bytes) -> EmbedderSpec:
    """The specification of a file that somebody sent.

    Raises:
        UnusableModel.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            file.write_bytes(data)
            _, spec = open_session(file, EmbedderSpec, "cpu", threads=1)
    except OSError as error:
        raise StoreUnavailable(
            f"There is no room for the file in {tempfile.gettempdir()}: {error.strerror}."
        ) from error
    except InvalidModel as error:
        detail = error.detail.replace(str(file), "The file")
        raise UnusableModel(f"{detail} Send an embedder of faceid, ONNX.") from None
    return spec
