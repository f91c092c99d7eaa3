"""Between two sets of weights: often better than either, above all on people unlike those the
second was trained on.

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022 (WiSE-FT).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint
from training.backbones import sface
from training.checkpoint import Checkpoint
from training.data import FaceSet
from training.embedding import embed
from training.errors import Diverged
from training.place import choose
from training.validation import judge, score

Weights = dict[str, Tensor]


def interpolate(
    start: Path,
    end: Path,
    faces: FaceSet,
    output: Path,
    *,
    alphas: Sequence[float],
    device: str = "auto",
    report: Callable[[float, dict[str, float]], None],
    say: Callable[[str], None] = print,
) -> float:
    """Judge the mixes (1 - alpha) * start + alpha * end, and write the best as a checkpoint.

    Args:
        start: a checkpoint, or an ONNX file of SFace.
        end: a checkpoint; mixes are judged on the persons neither was trained on.
        alphas: 0 to 1 each.
        report: told alpha and the figures of each mix.
        say: told who is left out, in a line.

    Returns:
        The alpha that was written.

    Raises:
        InvalidCheckpoint: one is damaged, or they are of two architectures.
        DataError, Unresolvable: the faces cannot be used.
        Diverged: a mix gives embeddings that are not finite.
        NoSpace: the disk is full.
    """
    ended = checkpoint.load(end)
    backbone = checkpoint.build(ended.recipe.model, ended.weights, str(end))
    known = [ended]
    if start.suffix == ".onnx":
        started = sface.load(start).state_dict()
    else:
        known.append(checkpoint.load(start))
        started = known[-1].weights
    checkpoint.fill(backbone, started, f"{start} and {end} are of two architectures")

    place = choose(device, "float32", None, say)
    backbone.to(place.device)
    judged = checkpoint.strangers(faces, *known, say=say)
    # Whom either knows, the mix knows.
    knows: list[str] | None = None
    if all(part.known is not None for part in known):
        knows = sorted({name for part in known for name in part.known or ()})
    best: Checkpoint | None = None
    chosen = 0.0
    for alpha in alphas:
        weights = mix(started, ended.weights, alpha)
        backbone.load_state_dict(weights)
        vectors = embed(backbone, judged, place, f"{alpha:.2f}")
        try:
            figures = judge(vectors, judged.labels, ended.recipe.seed)
        except Diverged as error:
            raise Diverged(f"{error} This was the mix at {alpha:.2f}; leave it out.") from None
        report(alpha, figures)
        if best is None or score(figures)[1] > score(best.figures)[1]:
            about = f"{ended.recipe.about}; {alpha:.0%} of the way there from {start.name}"
            recipe = ended.recipe.model_copy(update={"about": about})
            best = replace(
                ended, recipe=recipe, weights=weights, figures=figures, known=knows, progress=None
            )
            chosen = alpha
    assert best is not None
    checkpoint.save(best, output)
    return chosen


def mix(start: Weights, end: Weights, alpha: float) -> Weights:
    """(1 - alpha) * start + alpha * end, of batch-norm statistics too; counters are the end's."""
    return {
        name: torch.lerp(start[name], value, alpha) if value.is_floating_point() else value
        for name, value in end.items()
    }
