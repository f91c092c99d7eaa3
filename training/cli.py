"""The command line `faceid-train`: from photos to a model file the service runs."""

import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

# Whatever needs PyTorch is imported by the command that uses it.
from app.errors import FaceIdError
from training.errors import Interrupted, TrainingError
from training.output import complain, say, show_calibration, table

if TYPE_CHECKING:
    from onnx import ModelProto

    from app.models.spec import EmbedderSpec
    from training.checkpoint import Checkpoint
    from training.data import FaceSet, Pairs

app = typer.Typer(
    help="Train a face embedder and bring it into the form the service runs.\n\n"
    "`prepare` your photos, `train` on the faces, `export` the result, and put it beside what "
    "you had with `evaluate`; `evaluate-service` judges a running service.",
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
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Output = Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The model file to write.")]
Name = Annotated[str, typer.Option(help="Of the model: letters, digits, '.', '_' and '-'.")]
Licence = Annotated[str, typer.Option(help="Under which the weights may be used.")]
TrainingData = Annotated[str, typer.Option(help="What they learnt from, in a few words.")]
Dataset = Annotated[str, typer.Option(help="What the card calls the faces of the calibration.")]
Calibrate = Annotated[
    Path | None,
    typer.Option("--faces", metavar="DIR", help="Calibrate on these: people the model never saw."),
]

_DATASET = "aligned faces of people it was not trained on"

_EXTRA = {"matplotlib", "onnx", "onnxscript", "pytorch_metric_learning", "sklearn", "scipy",
          "tensorboard", "torch"}  # fmt: skip


def main() -> None:
    try:
        app(prog_name="faceid-train")
    except Interrupted as error:
        complain(error)
        raise SystemExit(130) from None
    except (TrainingError, FaceIdError) as error:
        complain(error)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        complain(
            f"{error.name} is not installed; pip install -e '.[training]' in the project's "
            "folder brings it."
        )
        raise SystemExit(1) from None


@app.command()
def prepare(
    photos: Annotated[
        Path, typer.Argument(metavar="PHOTOS", help="Holds a folder of photos for each person.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="For the aligned faces.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; unset: one a core.")] = None,
) -> None:
    """Find, align and store the faces of photos. Run again, it does only what is new."""
    from training.data.prepare import prepare as run

    report = run(photos, output, workers=workers, progress=Console(stderr=True).is_terminal)
    if report.left_out:
        table("Left out", ["photo", "code", "why"], report.left_out)
    say(
        f"{report.written} faces written, {report.present} already there, "
        f"{report.removed} removed, {len(report.left_out)} photos left out."
    )


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
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read faces; unset: enough.")
    ] = None,
    save_minutes: Annotated[
        float, typer.Option(min=0, help="Between two checkpoints within an epoch.")
    ] = 10.0,
) -> None:
    """Train by a recipe, on the CPU, a GPU, or several with torchrun."""
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
        say=say,
    )


@app.command()
def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An embedder's ONNX file, or a checkpoint.")
    ],
    faces: Annotated[
        Path,
        typer.Argument(
            metavar="FACES", help="Aligned faces of people it never saw, or pairs, *.bin."
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="For report.json and report.html.")],
    baseline: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Another embedder to compare with.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A list of pairs in LFW's format.")
    ] = None,
) -> None:
    """Measure an embedder, alone or beside another, with confidence intervals.

    Persons a checkpoint was trained on, by their names, are not measured on; pairs of them are
    refused. A .bin names nobody.
    """
    from training.data import open_faces, open_pairs
    from training.evaluation import run

    files = [model] if baseline is None else [model, baseline]
    trained = []
    judged: Path | FaceSet = faces
    listed: Pairs | None = None
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            if file.suffix == ".pt":
                from training import checkpoint

                trained.append(checkpoint.load(file))
                # As the service would run it.
                files[number] = Path(folder, f"{number}-{file.stem}.onnx")
                exported = _to_onnx(trained[-1], f"checkpoint-{number + 1}", "", "")
                files[number].write_bytes(exported.SerializeToString())
        if pairs is not None:
            listed = open_pairs(pairs, faces)
        if trained and faces.suffix != ".bin":
            judged = checkpoint.strangers(open_faces(faces), *trained, say=say)
        elif trained:
            say("Warning: a .bin names nobody; whom the checkpoint knows of them is not left out.")
        report = run(files[0], judged, baseline=[*files, None][1], pairs=listed, output=output)
    say(report.verdict)
    say(f"{output / 'report.html'}, {output / 'report.json'}")


@app.command()
def evaluate_service(
    photos: Annotated[
        Path, typer.Argument(metavar="PHOTOS", help="Holds a folder of photos for each person.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="For report.json and report.html.")],
    url: Annotated[
        str, typer.Option(envvar="FACEID_URL", help="Address of the service.")
    ] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            "--key",
            envvar="FACEID_API_KEY",
            help="Better in the environment: everybody on this machine sees arguments.",
        ),
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 4,
) -> None:
    """Measure a running service on photos of your own, decisions and all, over HTTP.

    It enrols persons into galleries of its own, and deletes them again at the end.
    """
    from training.evaluation.service import run
    from training.evaluation.service.summary import lines, tables

    report = run(photos, output, url=url, key=api_key, at_once=at_once)
    Console().print(*tables(report))
    for line in lines(report):
        say(line)
    say(f"{output / 'report.html'}, {output / 'report.json'}")


@app.command()
def export(
    trained: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Such as best.pt.")],
    output: Output,
    name: Name,
    licence: Licence,
    training_data: TrainingData,
    faces: Calibrate = None,
    dataset: Dataset = _DATASET,
) -> None:
    """Turn a checkpoint into the file the service runs, calibrated, with its card.

    Persons it was trained on, by their names, are not calibrated on.
    """
    from training import checkpoint
    from training.data import open_faces
    from training.export.publish import publish

    loaded = checkpoint.load(trained)
    strangers = checkpoint.strangers(open_faces(faces), loaded, say=say) if faces else None
    spec = publish(
        _to_onnx(loaded, name, licence, training_data),
        output,
        faces=strangers,
        dataset=dataset,
        made_with=_command(),
        recipe=loaded.recipe,
        figures=loaded.figures,
    )
    _show(output, spec)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="Somebody's embedder.")],
    output: Output,
    preset: Annotated[
        str, typer.Option(help="What it wants at its input: insightface, adaface, ...")
    ],
    name: Name,
    licence: Licence,
    training_data: TrainingData,
    faces: Calibrate = None,
    dataset: Dataset = _DATASET,
) -> None:
    """Bring another embedder of 112 x 112 ArcFace crops into the form the service runs."""
    from training.data import open_faces
    from training.export import third_party
    from training.export.publish import describer, publish

    wants = third_party.preset(preset)
    proto = third_party.load(source)
    model = third_party.convert(
        proto,
        wants,
        lambda dimension: describer(
            name=name,
            licence=licence,
            origin=f"{source.name}, converted",
            training_data=training_data,
            dimension=dimension,
        ),
    )
    strangers = open_faces(faces) if faces else None
    spec = publish(model, output, faces=strangers, dataset=dataset, made_with=_command())
    _show(output, spec)


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="It is changed in place.")],
    faces: Faces,
    dataset: Dataset = _DATASET,
) -> None:
    """Measure what a model's similarities mean, and write the thresholds into the file."""
    from training.calibration import calibrate as run
    from training.data import open_faces

    show_calibration(run(model, open_faces(faces), dataset))


@app.command()
def interpolate(
    start: Annotated[
        Path, typer.Argument(metavar="START", help="A checkpoint, or SFace's ONNX file.")
    ],
    end: Annotated[Path, typer.Argument(metavar="END", help="A checkpoint trained from there.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.pt", help="The best mix.")],
    faces: Faces,
    mixes: Annotated[int, typer.Option(min=2, help="How many, both ends included.")] = 11,
    device: Device = "auto",
) -> None:
    """Mix the weights of two checkpoints, and keep the mix that is best on persons held out."""
    from training.data import open_faces
    from training.interpolate import interpolate as run

    judged: dict[float, dict[str, float]] = {}
    alphas = [i / (mixes - 1) for i in range(mixes)]
    best = run(
        start,
        end,
        open_faces(faces),
        output,
        alphas=alphas,
        device=device,
        report=judged.__setitem__,
        say=say,
    )
    table(
        "Mixes, on persons held out",
        ["share of END", *judged[best]],
        [
            [f"{alpha:.2f}", *(f"{100 * share:.2f} %" for share in figures.values())]
            for alpha, figures in judged.items()
        ],
    )
    say(
        f"{output}: {best:.2f} of END."
        if best > 0
        else f"{output}: START alone; no share of END is better on the persons held out."
    )


@app.command()
def compare(
    faces: Annotated[
        Path, typer.Argument(metavar="FACES", help="Aligned faces, a folder per person, or *.rec.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="For figures and plots; 100 kB more for each face.")
    ],
    steps: Annotated[int | None, typer.Option(min=1, help="Of each training.")] = None,
) -> None:
    """Train a head on the shipped SFace with every loss, and judge them by persons held out."""
    from training.backbones import sface
    from training.compare import STEPS
    from training.compare import compare as run
    from training.comparison import contrasts_table, figures_table
    from training.data import open_faces

    found = run(open_faces(faces), sface.load(), output, steps=steps or STEPS, say=say)
    Console().print(figures_table(found), contrasts_table(found))
    say(f"{output / 'compare.json'}, {output / 'losses.png'}, {output / 'distances.png'}")


def _to_onnx(trained: "Checkpoint", name: str, licence: str, training_data: str) -> "ModelProto":
    from training import checkpoint
    from training.export.embedder import to_onnx
    from training.export.publish import describer

    model = trained.recipe.model
    describe = describer(
        name=name,
        licence=licence,
        origin=f"{trained.recipe.about} ({model.backbone}, {trained.recipe.loss.name})",
        training_data=training_data,
        dimension=model.dimension,
    )
    return to_onnx(checkpoint.build(model, trained.weights, "The checkpoint"), describe)


def _command() -> str:
    """This call, for the card: what lies where on this machine is nobody's business."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["faceid-train", *words])


def _show(output: Path, spec: "EmbedderSpec") -> None:
    if spec.calibration is not None:
        show_calibration(spec.calibration)
    say(f"{output}, {output.with_suffix('.md')}")
