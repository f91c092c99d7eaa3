"""From files to a report on disk: what `faceid-train evaluate` does."""

from pathlib import Path

from training.data import Faces, FaceSet, Pairs, open_faces, read_bin
from training.errors import InvalidPairs
from training.evaluation.embedder import Embedder, FloatArray, embed_faces, open_embedder
from training.evaluation.evaluate import RESAMPLES, compile_report, measure_faces, measure_pairs
from training.evaluation.page import write_html
from training.evaluation.report import Model, Report
from training.files import replacing


def run(
    model: Path,
    faces: FaceSet | Path,
    *,
    baseline: Path | None = None,
    pairs: Pairs | None = None,
    output: Path,
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: bool = True,
) -> Report:
    """Evaluate a model file, or two side by side, and write `report.json` and `report.html`.

    Args:
        model, baseline: canonical ONNX files.
        faces: labelled faces or what `open_faces` opens, or else one of InsightFace's `.bin`
            files: pairs, and nothing but pairs.
        pairs: of these faces, of the folder that they are or are a part of.
        output: folder; made if it is not there.

    Raises:
        InvalidModel, DataError: a file is not what it should be.
        Unresolvable: too few people or faces for any evaluation.
        NoSpace: the disk is full.
    """
    files = [model] if baseline is None else [model, baseline]
    embedders = [open_embedder(file) for file in files]
    about = _describe(files, embedders)

    def embed(what: Faces) -> list[FloatArray]:
        return [
            embed_faces(embedder, what, progress=known.name if progress else None)
            for embedder, known in zip(embedders, about, strict=True)
        ]

    if isinstance(faces, Path) and faces.suffix == ".bin":
        if pairs is not None:
            raise InvalidPairs(f"{faces} brings pairs of its own; leave out the list.")
        listed = read_bin(faces)
        sections = measure_pairs(embed(listed.faces), listed, seed, resamples, progress)
        size = len(listed.faces), 0
    else:
        labelled = open_faces(faces) if isinstance(faces, Path) else faces
        rows = [] if pairs is None else _find(pairs, labelled)
        embeddings = embed(labelled)
        sections = measure_faces(embeddings, labelled.labels, seed, resamples, progress)
        size = len(labelled), len(labelled.names)
        if pairs is not None:
            chosen = [part[rows] for part in embeddings]
            sections += measure_pairs(chosen, pairs, seed, resamples, progress)

    dataset = faces.name if isinstance(faces, Path) else "labelled faces"
    report = compile_report(about, sections, dataset, size, seed, resamples)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "report.json") as partial:
        partial.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    write_html(report, output / "report.html")
    return report


def _find(pairs: Pairs, labelled: FaceSet) -> list[int]:
    """Where the faces of the pairs are among those that are judged."""
    places = {labelled.source(i): i for i in range(len(labelled))}
    sources = [pairs.faces.source(i) for i in range(len(pairs.faces))]
    missing = [source for source in sources if source not in places]
    if missing:
        raise InvalidPairs(
            f"{len(missing):,} of {len(sources):,} faces in the list of pairs are not judged, as "
            "the model knows their persons or they were left out as mislabelled; the first is "
            f"{missing[0]}. Take their pairs out of the list."
        )
    return [places[source] for source in sources]


def _describe(files: list[Path], embedders: list[Embedder]) -> list[Model]:
    names = [embedder.spec.name for embedder in embedders]
    if len(set(names)) < len(names):
        # A model trained from another may still bear its name.
        names = [file.stem for file in files]
    if len(set(names)) < len(names):
        names[1] += " (baseline)"
    return [
        Model(
            name=name,
            file=file.name,
            dimension=embedder.spec.dimension,
            licence=embedder.spec.licence,
            training_data=embedder.spec.training_data,
            weights_sha256=embedder.spec.weights_sha256,
        )
        for name, file, embedder in zip(names, files, embedders, strict=True)
    ]
