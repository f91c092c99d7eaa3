"""Train a face embedder: one file, read from top to bottom.

    faceid-train train sface-arcface --faces faces/ --output runs/a            # CPU or one GPU
    faceid-train train sface-arcface --faces faces/ --output runs/a --resume   # go on
    torchrun --nproc-per-node 4 --no-python \\
        faceid-train train arcface --faces train.rec --output runs/b           # four GPUs

With several GPUs each takes its part of every batch; the embeddings are gathered, and every
GPU computes the loss of the whole batch. So all losses, also those that compare faces with
each other, give what they give on one where batch-norm statistics are frozen. Where they are
not, each GPU normalises its part of a batch by that part's own.

Left in the output folder: `last.pt` to go on from, `best.pt` by the validation figure,
`curves.png`, and `events/` for TensorBoard.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from training import backbones, checkpoint, losses
from training.backbones.cpu import keep_freed_memory
from training.backbones.layers import Backbone
from training.checkpoint import Checkpoint
from training.cleaning import believable
from training.curves import draw
from training.data import FaceSet, PersonBatches, ShuffledBatches, split_persons, subset
from training.data.dataset import TrainingFaces
from training.embedding import class_means, embed
from training.errors import (
    Diverged,
    Interrupted,
    InvalidCheckpoint,
    InvalidRecipe,
    TooFewPersons,
    TrainingError,
)
from training.events import Events
from training.files import full_disk_explained
from training.interruption import Stop
from training.place import Place, choose
from training.progress import TrainingBar
from training.recipe import Recipe, Training, differences
from training.validation import judge, score

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

STEPS_BETWEEN_POINTS = 10
"""Of the curves."""
MOMENTUM = 0.9
LEAST_PERSONS = 4
_WAY_OUT = "The checkpoints before are good; a lower training.rate may help."


def train(
    recipe: Recipe,
    faces: FaceSet,
    output: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    save_minutes: float = 10.0,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train until the recipe is done.

    On a CPU, a run that was stopped and resumed gives the same weights as one that was not.

    Args:
        output: folder; made if it is not there.
        resume: go on from `output/last.pt`; from the beginning if there is none yet.
        device: "cpu", "cuda", or "auto".
        workers: processes that read faces; by default as many as there is use for.
        save_minutes: time between two writings of `last.pt`, besides those after each epoch.
        say: told what happened, in a line.

    Returns:
        The figures of the best weights on the persons held out.

    Raises:
        DataError, InvalidRecipe: the faces or the recipe cannot be trained with.
        InvalidCheckpoint: `last.pt` is of another run.
        Diverged: the loss, its gradient or an embedding is not finite; the files are what they
            were.
        NoSpace: the disk is full; the files are what they were.
        Interrupted: SIGINT or SIGTERM came; `last.pt` is written.
    """
    t = recipe.training
    place = choose(device, t.precision, workers, say)
    if place.rank:
        say = _ignore
    if place.on_cpu:
        keep_freed_memory()

    last, best = output / "last.pt", output / "best.pt"
    before: Checkpoint | None = None
    if last.exists():
        if not resume:
            raise TrainingError(f"{output} holds a run; --resume goes on with it.")
        before = checkpoint.load(last)
        if before.progress is None:
            raise InvalidCheckpoint(f"{last} holds weights only; there is nothing to go on from.")
        progress = before.progress
        if changed := differences(before.recipe, recipe):
            raise InvalidCheckpoint(
                f"{last} was trained by another recipe: {changed}. Resume with that one, or choose "
                "another folder."
            )
    with full_disk_explained(output):
        output.mkdir(parents=True, exist_ok=True)

    # The backbone: random weights, or those to start from.
    torch.manual_seed(recipe.seed)
    backbone, known_before = _start(recipe)
    backbone.to(place.device)

    # Who is trained on, and who is held out. Labels are inspected with the starting weights.
    kept = _with_enough(faces, recipe.data.least_faces, say)
    faces_sha256 = checkpoint.digest(faces)
    if before is not None:
        if before.faces_sha256 != faces_sha256:
            raise InvalidCheckpoint(f"{last} was trained on other faces.")
        kept = progress["kept"].numpy()
    elif recipe.data.clean:
        candidates = subset(faces, kept)
        vectors = embed(backbone, candidates, place, "inspecting labels")
        good = believable(vectors, candidates.labels, recipe.data.least_faces)
        say(
            f"{int((~good).sum()):,} of {len(good):,} faces are left out: they look like somebody "
            "else or nobody, or their person like another."
        )
        kept = kept[good]
    chosen = subset(faces, kept)
    train_on, held_out = split_persons(chosen.labels, recipe.data.held_out, recipe.seed)
    learnt, judged = subset(chosen, train_on), subset(chosen, held_out)
    unseen = torch.from_numpy(kept[held_out])
    known = None
    if known_before is not None:
        known = sorted({*known_before, *(set(faces.names) - set(judged.names))})
        if both := set(known_before) & set(judged.names):
            say(f"Warning: {recipe.model.start} knows {len(both):,} of those to validate on.")
    say(
        f"{len(learnt):,} faces of {len(learnt.names):,} persons to train on, "
        f"{len(judged):,} of {len(judged.names):,} others to validate on; "
        f"{place.device}, {place.precision}"
    )

    # The loss, its class weights beginning at the persons' mean embeddings where those mean
    # something already.
    loss = losses.build(
        recipe.loss.name,
        dimension=recipe.model.dimension,
        classes=len(learnt.names),
        **recipe.loss.parameters,
    ).to(place.device)
    if recipe.model.start != "random" and before is None:
        loss.initialise(class_means(backbone, learnt, place).to(place.device))

    if loss.batches == "person":
        persons = t.batch_size // t.faces_per_person
        batches: Any = PersonBatches(learnt.labels, persons, t.faces_per_person, recipe.seed)
    else:
        batches = ShuffledBatches(learnt.labels, t.batch_size, recipe.seed)
    if not (first := batches.batches(0)):
        raise TooFewPersons(f"{len(learnt):,} faces fill no batch; lower training.batch_size.")
    if len(first[0]) % place.world:
        raise InvalidRecipe(
            f"training.batch_size: {len(first[0])} is not divisible by {place.world} GPUs."
        )
    everything = np.arange(len(learnt))
    dataset = TrainingFaces(learnt, everything, recipe.augmentation, recipe.seed)

    # One optimiser for both stages: what is frozen has no gradient and stays as it is.
    groups = _groups(backbone, loss, t)
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=t.rate, momentum=MOMENTUM)
        if t.optimiser == "sgd"
        else torch.optim.AdamW(groups, lr=t.rate)
    )
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(
        place.device.type, enabled=place.precision == "float16" and not place.on_cpu
    )
    anchors = [p.detach().clone() for p in backbone.parameters()] if t.stay_near else []

    # Where this run is. Everything random in a step follows from the seed and its number.
    epoch, done, step = 0, 0, 0
    history: dict[str, list[list[float]]] = {"loss": [], "rate": [], "validation": []}
    since: list[float] = []  # losses since the last point of the curves
    best_figures: dict[str, float] = {}
    if before is not None:
        checkpoint.fill(backbone, before.weights, f"{last} is of another architecture")
        checkpoint.fill(loss, progress["loss"], f"{last} is of another loss")
        optimiser.load_state_dict(progress["optimiser"])
        scaler.load_state_dict(progress["scaler"])
        epoch, done, step = progress["position"]
        history, since = progress["history"], progress["since"]
        best_figures = progress["best_figures"]
        say(f"Going on from epoch {epoch + 1}, step {step:,}.")

    def keep(path: Path, figures: dict[str, float], progress: Any = None) -> None:
        weights = _weights(backbone)
        checkpoint.save(
            Checkpoint(recipe, weights, figures, faces_sha256, unseen, known, progress), path
        )

    def save(figures: dict[str, float]) -> None:
        if place.rank:
            return
        progress = {
            "kept": torch.from_numpy(kept),
            "loss": loss.state_dict(),
            "optimiser": optimiser.state_dict(),
            "scaler": scaler.state_dict(),
            "position": [epoch, done, step],
            "history": history,
            "since": since,
            "best_figures": best_figures,
        }
        keep(last, figures, progress)

    def validate() -> dict[str, float]:
        nonlocal best_figures
        # Later there is a bar already.
        vectors = embed(backbone, judged, place, None if step else "validating")
        try:
            figures = judge(vectors, judged.labels, recipe.seed)
        except Diverged as error:
            way_out = _WAY_OUT if step else "It starts so: choose another model.start."
            raise Diverged(f"{error} This was at step {step:,}. {way_out}") from None
        name, value = score(figures)
        history["validation"].append([epoch, figures[name]])
        for figure, share in figures.items():
            events.add_scalar(f"validation/{figure}", share, step)
        listed = ", ".join(f"{figure} {100 * share:.2f} %" for figure, share in figures.items())
        better = not best_figures or value > score(best_figures)[1]
        say(f"epoch {epoch}: {listed}{' (best so far)' if better else ''}")
        if better:
            best_figures = figures
            if not place.rank:
                keep(best, figures)
        return figures

    # What was said up to the checkpoint's step stays.
    begun_at = step + 1 if before else 0
    events = Events(output / "events", begun_at) if not place.rank else _Silent()
    if before is None:
        validate()

    epochs = t.head_epochs + t.epochs
    saved = time.monotonic()
    bars = TrainingBar(epochs, t.batch_size, place.rank > 0)
    with Stop(place) as stop, bars as bar:
        wrapped: nn.Module | None = None
        while epoch < epochs:
            head_only = epoch < t.head_epochs
            if wrapped is None or epoch == t.head_epochs:
                backbone.trunk.requires_grad_(not head_only)
                wrapped = _Objective(backbone, loss, place)
                if place.world > 1:
                    wrapped = DistributedDataParallel(wrapped)
            backbone.train()
            backbone.trunk.train(not head_only)
            if recipe.model.frozen_batch_norm:
                for module in backbone.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()

            dataset.set_epoch(epoch)
            plan = batches.batches(epoch)
            parts = [
                np.array_split(batch, place.world)[place.rank].tolist() for batch in plan[done:]
            ]
            for photos, labels, indices in place.loader(dataset, parts):
                torch.manual_seed(recipe.seed << 32 | step)
                at = epoch + done / len(plan)
                begin, length = (0, t.head_epochs) if head_only else (t.head_epochs, t.epochs)
                factor = _rate(at - begin, length, t.warm_up)
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * factor
                loss.progress((at - begin) / length if not head_only else 0.0)

                value = wrapped(
                    photos.to(place.device, non_blocking=True),
                    labels.to(place.device, non_blocking=True),
                )
                current = value.item()
                if not math.isfinite(current):
                    raise _diverged(f"The loss is {current}", step, epoch, learnt, indices)
                optimiser.zero_grad(set_to_none=True)
                scaler.scale(value).backward()
                scaler.unscale_(optimiser)
                norm = nn.utils.clip_grad_norm_(parameters, t.clip, foreach=True).item()
                # The scaler leaves out such a step and halves its scale, which may have been too
                # large; not any more at 1, nor where it does nothing.
                if not math.isfinite(norm) and scaler.get_scale() <= 1:
                    what = f"The norm of the gradient is {norm}"
                    raise _diverged(what, step, epoch, learnt, indices)
                if anchors:
                    _pull(backbone, anchors, t.stay_near)
                scaler.step(optimiser)
                scaler.update()

                step, done = step + 1, done + 1
                since.append(current)
                if len(since) == STEPS_BETWEEN_POINTS:
                    mean = sum(since) / len(since)
                    since.clear()
                    at = epoch + done / len(plan)
                    history["loss"].append([at, mean])
                    history["rate"].append([at, t.rate * factor])
                    events.add_scalar("loss", mean, step)
                    events.add_scalar("rate", t.rate * factor, step)
                bar.advance(epoch, done, len(plan), current)
                if stop.asked:
                    save({})
                    raise Interrupted(f"Stopped after step {step:,}; --resume goes on from there.")
                if time.monotonic() - saved > 60 * save_minutes:
                    save({})
                    saved = time.monotonic()
            epoch, done = epoch + 1, 0
            save(validate())
            saved = time.monotonic()

    if place.world > 1:
        # Outliving the group, it would end the group's threads while it holds the interpreter's
        # lock, for which they may be waiting.
        del wrapped
        dist.destroy_process_group()
    if not place.rank:
        draw(history, score(best_figures)[0], output / "curves.png")
    return best_figures


# What the loop above is made of, in the order of its appearance.


def _start(recipe: Recipe) -> tuple[Backbone, list[str] | None]:
    """The network to begin with, and names of persons it knows; None where nobody can say."""
    model = recipe.model
    if model.start == "shipped":
        return backbones.sface.load(dimension=model.dimension), []
    if model.start == "random":
        return backbones.build(model.backbone, model.dimension), []
    before = checkpoint.load(Path(model.start))
    return checkpoint.build(model, before.weights, model.start), before.known


def _with_enough(faces: FaceSet, least: int, say: Callable[[str], None]) -> IntArray:
    """Indices of the faces of persons with at least `least` of them."""
    counts = np.bincount(faces.labels)
    few = int((counts < least).sum())
    if len(counts) - few < LEAST_PERSONS:
        raise TooFewPersons(
            f"{len(counts) - few} of {len(counts)} persons have {least} faces; training on some "
            f"and validating on others needs at least {LEAST_PERSONS} such persons."
        )
    if few:
        say(f"{few:,} persons with fewer than {least} faces are left out.")
    return np.flatnonzero(counts[faces.labels] >= least)


def _groups(backbone: nn.Module, loss: nn.Module, t: Training) -> list[dict[str, Any]]:
    """Parameters by their peak rate and decay. A pull to the start takes the place of decay."""
    own = list(backbone.parameters())
    decay = 0.0 if t.stay_near else t.weight_decay
    groups = [
        {"params": [p for p in own if p.ndim > 1], "peak": t.rate, "weight_decay": decay},
        {"params": [p for p in own if p.ndim <= 1], "peak": t.rate, "weight_decay": 0.0},
        {"params": list(loss.parameters()), "peak": t.loss_rate, "weight_decay": t.weight_decay},
    ]
    return [group for group in groups if group["params"]]


class _Objective(nn.Module):
    """Faces and persons to the loss of the whole batch, parts on other GPUs included."""

    def __init__(self, backbone: Backbone, loss: nn.Module, place: Place) -> None:
        super().__init__()
        self.backbone, self.loss, self._place = backbone, loss, place

    def forward(self, faces: Tensor, labels: Tensor) -> Tensor:
        with self._place.autocast():
            embeddings = self.backbone(faces)
        if self._place.world > 1:
            # Its gradient is the sum of what every GPU asks for: their number times what the
            # one loss asks for, which the mean that DDP takes puts right.
            embeddings, labels = _gather(embeddings), _gather(labels)
        value: Tensor = self.loss(embeddings, labels)
        return value


def _gather(part: Tensor) -> Tensor:
    return torch.cat(all_gather(part))  # type: ignore[no-untyped-call]


def _rate(epochs_done: float, epochs: int, warm_up: float) -> float:
    """Share of the peak rate: up in a line, down along a cosine."""
    warm_up = min(warm_up, epochs / 2)
    if epochs_done < warm_up:
        return 0.01 + 0.99 * epochs_done / warm_up
    return 0.5 * (1 + math.cos(math.pi * (epochs_done - warm_up) / (epochs - warm_up)))


def _diverged(what: str, step: int, epoch: int, faces: FaceSet, indices: Tensor) -> Diverged:
    named = ", ".join(faces.source(int(i)) for i in indices)
    return Diverged(f"{what} at step {step:,} (epoch {epoch + 1}). {_WAY_OUT} The batch: {named}.")


@torch.no_grad()
def _pull(backbone: nn.Module, anchors: list[Tensor], strength: float) -> None:
    """Add the gradient of strength / 2 * |weights - anchors|^2."""
    for p, anchor in zip(backbone.parameters(), anchors, strict=True):
        if p.grad is not None:
            p.grad.add_(p - anchor, alpha=strength)


def _weights(backbone: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, value in backbone.state_dict().items()
    }


class _Silent:
    """Stands in for the writer of events in all processes but the first."""

    def add_scalar(self, *_: object) -> None: ...


def _ignore(_: str) -> None: ...
