"""Figures by which checkpoints are compared, on persons none of them was trained on."""

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from training.errors import Diverged, Unresolvable
from training.evaluation import Verification, all_pairs, distances, search
from training.evaluation.identification import draw_split, mean_over_draws

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

GALLERIES = 20
"""Draws of who is enrolled, and with which photo: one alone says more about the draw."""


def judge(embeddings: FloatArray, labels: IntArray, seed: int) -> dict[str, float]:
    """Verification over all pairs, and identification with one photo of half the persons.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face.

    Returns:
        Shares by name: "eer", "tar@far=..." at those rates the faces resolve and
        "fnir@fpir=..." at those that every one of `GALLERIES` draws does, their mean.

    Raises:
        Diverged: an embedding is not finite or has no direction.
        Unresolvable: there are no two faces of one person, or faces of one person only.
    """
    lengths = np.linalg.norm(embeddings, axis=1)
    useless = int((~(np.isfinite(lengths) & (lengths > 0))).sum())
    if useless:
        raise Diverged(
            f"{useless:,} of {len(embeddings):,} embeddings are not finite or have no direction."
        )
    first, second = all_pairs(labels, seed)
    verification = Verification(
        distances(embeddings, first, second, "cosine"), labels[first] == labels[second]
    )
    figures = verification.figures()
    with suppress(Unresolvable):  # of few persons nobody can be left out
        splits = [draw_split(labels, [seed, draw]) for draw in range(GALLERIES)]
        draws = [search(embeddings, labels, drawn).figures() for drawn in splits]
        figures.update(mean_over_draws(draws))
    return {
        name: float(value)
        for name, value in figures.items()
        if name == "eer" or name.startswith(("tar@far", "fnir@fpir"))
    }


def score(figures: dict[str, float]) -> tuple[str, float]:
    """What checkpoints are chosen by: the name of a figure, and a number that rises with it.

    It is the TAR at the lowest FAR the faces resolve: that tail decides about identification in
    large galleries. Where they resolve none it is the EER.
    """
    rates = [name for name in figures if name.startswith("tar@far")]
    if not rates:
        return "eer", -figures["eer"]
    name = min(rates, key=lambda name: float(name.partition("=")[2]))
    return name, figures[name]
