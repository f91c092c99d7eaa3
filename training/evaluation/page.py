"""The report of an embedder as one page of HTML."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Literal

from training.evaluation import markup, plots
from training.evaluation.report import (
    Difference,
    Figure,
    Report,
    Section,
    quantity,
    show,
    show_difference,
    show_interval,
)
from training.evaluation.verification import METRICS
from training.files import replacing

_TILES = (
    ("identification/1", "fnir@fpir=1e-02"),
    ("identification/1", "rank-1"),
    ("pairs/cosine", "tar@far=1e-03"),
    ("pairs/cosine", "eer"),
    ("list/cosine", "accuracy"),
    ("retrieval", "MAP@R"),
)

_METHOD = {
    "Scores": "Two faces match when their distance is at most the threshold, or their cosine "
    "similarity at least. Euclidean and cosine distance order pairs alike, so their rates are "
    "the same and only the thresholds differ; manhattan has rates of its own. Identification "
    "uses the cosine.",
    "Rates": "FMR and FNMR are the shares of impostor pairs that match and of genuine pairs that "
    "do not (ISO/IEC 19795-1); TAR at FAR is 1 \N{MINUS SIGN} FNMR at the lowest threshold whose "
    "FMR is not above it. EER is where the straight line between the two operating points on "
    "either side meets FMR = FNMR. FNIR counts a person as missed if somebody else is more "
    "similar or the threshold is not reached; FPIR is the share of strangers' faces that reach "
    "it with anybody. A rate that would rest on fewer than 10 errors is not given (on lists of "
    "pairs: 3).",
    "Intervals": "95 %, by drawing persons, not faces or pairs, with replacement (the subsets "
    "bootstrap of Bolle, Ratha and Pankanti, 2004): they say how much a figure would move with "
    "other people of the same kind. Where no error was seen the interval has no width, which "
    "does not mean there are none to see.",
    "Differences": "Model minus baseline on the same draws of people, which is sharper than "
    "comparing two intervals. Green and red mark those whose interval does not hold 0; of "
    "twenty figures that are equal one will be marked.",
    "Retrieval": "Precision@1, R-precision and MAP@R as in Musgrave et al. (2020).",
}


def write_html(report: Report, path: Path) -> None:
    """
    Raises:
        NoSpace: the disk is full.
    """
    with replacing(path) as partial:
        partial.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """The page's text."""
    names = [model.name for model in report.models]
    title = f"Evaluation of {names[0]}" + (f" against {names[1]}" if len(names) > 1 else "")
    persons = f" of {report.persons:,} persons" if report.persons else ""
    return markup.document(
        title,
        f"{report.dataset}: {report.faces:,} faces{persons}",
        report.verdict,
        _tone(report),
        _body(report),
    )


def _tone(report: Report) -> Literal["model", "good", "bad", "line"]:
    if len(report.models) == 1:
        return "model"
    if "is better than" in report.verdict:
        return "good"
    return "bad" if "is worse than" in report.verdict else "line"


def _body(report: Report) -> Iterable[str]:
    by_key = {section.key: section for section in report.sections}
    yield _tiles(report, by_key)
    if len(report.models) > 1:
        yield "<h2>Is it better?</h2>"
        yield markup.figure(
            plots.differences(report),
            f"{report.models[0].name} minus {report.models[1].name}, with 95 % intervals for other "
            "people; what may be chance is grey. Verification by the cosine.",
        )

    band = " Bands: 95 % for other people." if report.resamples and report.persons else ""
    kind = plots.kind_of_pairs(report)
    if f"{kind}/cosine" in by_key and by_key[f"{kind}/cosine"].results:
        yield "<h2>One against one</h2>"
        yield '<div class="plots">'
        yield markup.figure(plots.roc(report), f"ROC.{band}")
        yield markup.figure(
            plots.det(report), f"DET, on axes of normal deviates; dotted: FMR = FNMR.{band}"
        )
        yield "</div>"
        dashed = f" Dashed: {report.models[1].name}." if len(report.models) > 1 else ""
        yield markup.figure(
            plots.distances(report),
            f"How far apart two faces of one person (green) and of two people (red) are.{dashed}",
        )
    for kind in ("pairs", "list"):
        keys = [f"{kind}/{metric}" for metric in METRICS]
        sections = [by_key[key] for key in keys if key in by_key]
        if sections:
            yield markup.protocol(sections[0])
            yield from _compared(report, sections, METRICS)

    found = [section for key, section in by_key.items() if key.startswith("identification/")]
    if found:
        yield "<h2>One against many</h2>"
        yield '<div class="plots">'
        yield markup.figure(plots.cmc(report), f"CMC: persons among the first k.{band}")
        if any("fnir" in result.curves for section in found for result in section.results):
            yield markup.figure(
                plots.fnir(report), f"Open set: persons missed, strangers named.{band}"
            )
        yield "</div>"
        yield from map(markup.protocol, found)
        yield from _compared(report, found, [s.title.partition(", ")[2] for s in found])

    spaces = [by_key[k] for k in ("retrieval", "classification", "separation") if k in by_key]
    if spaces:
        yield "<h2>The space</h2>"
        yield from map(markup.protocol, spaces)
        rows: dict[str, list[str]] = {}
        for section in spaces:
            rows |= _rows(report, [section])
        yield markup.figure_table(_heads(report), rows)

    yield "<h2>How it was measured</h2>"
    yield markup.definitions(_METHOD)
    yield "<h2>Models</h2>"
    for model in report.models:
        facts = {
            "File": model.file,
            "Dimension": model.dimension,
            "Trained on": model.training_data,
            "Licence": model.licence,
            "Weights, SHA-256": model.weights_sha256,
        }
        yield f"<h3>{escape(model.name)}</h3>"
        yield markup.definitions(
            {name: str(fact) for name, fact in facts.items() if fact is not None}
        )
    yield (
        f'<p class="soft"><br>Seed {report.seed}, {report.resamples} draws of persons. A figure '
        "says something about people a model has never seen only if none of these were among "
        "those it was trained on.</p>"
    )


def _tiles(report: Report, by_key: dict[str, Section]) -> str:
    tiles = []
    for key, name in _TILES:
        results = by_key[key].results if key in by_key else ()
        figures = [result.figures.get(name, Figure(value=None)) for result in results]
        if not figures or any(figure.value is None for figure in figures):
            continue
        kind = quantity(name)
        more = show_interval(figures[0], kind.rate)
        if len(figures) > 1:
            more = f"{report.models[1].name}: {show(figures[1].value, kind.rate)}"
        tiles.append((kind.label, show(figures[0].value, kind.rate), more))
    return markup.tiles(tiles)


def _compared(report: Report, sections: Sequence[Section], names: Sequence[str]) -> Iterable[str]:
    """One model: a column for each section. Two: a table for each, all but the first folded."""
    if not sections[0].results:
        return
    if len(report.models) == 1:
        yield markup.figure_table(names, _rows(report, sections))
        return
    yield markup.figure_table(_heads(report), _rows(report, sections[:1]))
    for section, name in zip(sections[1:], names[1:], strict=True):
        table = markup.figure_table(_heads(report), _rows(report, [section]))
        yield f"<details><summary>{escape(name)}</summary>{table}</details>"


def _heads(report: Report) -> list[str]:
    if len(report.models) == 1:
        return [escape(report.models[0].name)]
    first, second = (escape(model.name) for model in report.models)
    return [
        f'<span class="key first">{first}</span>',
        f'<span class="key">{second}</span>',
        "Difference",
    ]


def _rows(report: Report, sections: Sequence[Section]) -> dict[str, list[str]]:
    """Cells by figure: of one model in several sections, or of both in one."""
    rows = markup.figure_rows([result for section in sections for result in section.results])
    if len(report.models) > 1:
        for name, cells in rows.items():
            cells.append(_difference(name, sections[0].differences.get(name)))
    return rows


def _difference(name: str, difference: Difference | None) -> str:
    if difference is None:
        return ""
    rate = quantity(name).rate
    tone = {None: "", True: "good", False: "bad"}[difference.better]
    text = f'<span class="{tone}">{show_difference(difference.value, rate)}</span>'
    if difference.low is None or difference.high is None:
        return text
    ends = (show_difference(end, rate) for end in (difference.low, difference.high))
    return f"{text}<small>{' to '.join(ends)}</small>"
