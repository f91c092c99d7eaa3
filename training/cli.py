"""The command line `faceid-train`: from photos to a model file the service runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

# Whatever needs PyTorch is imported by the command that uses it.
from training.errors import Interrupted, TrainingError

app = typer.Typer(
    help="Train a face embedder and bring it into the form the service runs.\n\n"
    "`prepare` your photos, `train` on the faces, `export` the result, and put it beside what "
    "you had with `evaluate`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Faces = Annotated[
    Path,
    typer.Option(
        metavar="DIR", help="Aligned faces, a folder per person; or a RecordIO file, *.rec."
    ),
]

_EXTRA = {"matplotlib", "onnx", "onnxscript", "pytorch_metric_learning", "sklearn", "scipy",
          "tensorboard", "torch"}  # fmt: skip


def main() -> None:
    try:
        app(prog_name="faceid-train")
    except Interrupted as error:
        _complain(error)
        raise SystemExit(130) from None
    except TrainingError as error:
        _complain(error)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        _complain(f"{error.name} is not installed; pip install 'faceid[training]' brings it.")
        raise SystemExit(1) from None


def _complain(error: object) -> None:
    typer.secho(f"faceid-train: {error}", fg="red", err=True)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A shipped one's name, or a TOML file.")
    ],
    faces: Faces,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the run is kept.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run there.")] = False,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As training.epochs=2; repeatable."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Computes.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read faces; unset: enough.")
    ] = None,
    save_minutes: Annotated[
        float, typer.Option(min=0, help="Between two checkpoints within an epoch.")
    ] = 10.0,
) -> None:
    """Train by a recipe; several GPUs with torchrun."""
    from training import recipe as recipes
    from training.data import open_faces
    from training.train import train as run

    loaded = recipes.load(recipe, change or ())
    run(
        loaded,
        open_faces(faces),
        output,
        resume=resume,
        device=device,
        workers=workers,
        save_minutes=save_minutes,
        say=Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print,
    )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An embedder, canonical ONNX.")],
    faces: Annotated[
        Path,
        typer.Argument(metavar="FACES", help="Aligned faces of people it never saw, or *.bin."),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="For report.json and report.html.")],
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another embedder to compare with.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A list of pairs in LFW's format.")
    ] = None,
) -> None:
    """Measure an embedder, alone or against another, with confidence intervals."""
    from training.evaluation import run

    run(model, faces, baseline=baseline, pairs=pairs, output=output)
