"""How a run went, as a picture."""

from pathlib import Path

from matplotlib.figure import Figure

from training.files import replacing


def draw(history: dict[str, list[list[float]]], figure: str, path: Path) -> None:
    """Write loss, rate and the validation figure over epochs as PNG.

    Args:
        history: rows of (epoch, value) by name: "loss", "rate" and "validation".
        figure: what "validation" is called.

    Raises:
        NoSpace: the disk is full.
    """
    page = Figure(figsize=(7, 8), layout="constrained")
    names = {"loss": "training loss", "rate": "learning rate", "validation": figure}
    for axes, (name, label) in zip(page.subplots(3, 1, sharex=True), names.items(), strict=True):
        if history[name]:
            axes.plot(*zip(*history[name], strict=True), marker="o" * (name == "validation"))
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    axes.set_xlabel("epoch")
    with replacing(path) as partial:
        page.savefig(partial, format="png", dpi=120)
