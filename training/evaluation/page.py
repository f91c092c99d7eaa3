"""A report as one page of HTML that needs nothing else: no network, no script."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from training.evaluation import plots
from training.evaluation.report import (
    Difference,
    Figure,
    Report,
    Section,
    quantity,
    show,
    show_difference,
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

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { --ink: #1f2430; --soft: #667085; --line: #e4e7ec; --model: $model; --baseline: $baseline;
  --good: $good; --bad: $bad; color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 48px 0 12px; }
h3 { font-size: 15px; margin: 24px 0 4px; }
p { margin: 0 0 10px; max-width: 80ch; }
.soft, figcaption, small { color: var(--soft); }
.verdict { margin: 20px 0; padding: 16px 20px; background: #fff; border-radius: 10px;
  border: 1px solid var(--line); border-left: 5px solid var(--$tone); font-size: 17px;
  max-width: none; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 24px; line-height: 1.3; letter-spacing: -0.01em; }
.tile span { display: block; font-size: 13px; color: var(--soft); }
.plots { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
figure { margin: 0 0 16px; background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px 10px; min-width: 0; }
figure svg { width: 100%; height: auto; display: block; }
svg text { font-family: inherit !important; }
figcaption { font-size: 13px; margin-top: 6px; }
.scroll { margin-bottom: 20px; overflow-x: auto; background: #fff; border-radius: 10px;
  border: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: right; border-top: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
tr:first-child > * { border-top: 0; }
thead th { font-size: 13px; color: var(--soft); font-weight: 600;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; font-weight: 500; }
th small { display: block; font-weight: 400; white-space: normal; }
td small { display: block; font-size: 12px; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.key::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 3px;
  margin-right: 6px; background: var(--baseline); }
.key.first::before { background: var(--model); }
details { margin: 12px 0; } summary { cursor: pointer; color: var(--soft); padding: 4px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; }
dt { font-weight: 500; } dd { margin: 0; color: var(--soft); max-width: 80ch; }
@media print { body { background: #fff; } figure, .scroll { break-inside: avoid; } }
</style>
</head>
<body><main>
<h1>$title</h1>
<p class="soft">$subtitle</p>
<p class="verdict">$verdict</p>
$body
</main></body>
</html>
""")

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
    return _PAGE.substitute(
        title=escape(title),
        subtitle=escape(f"{report.dataset}: {report.faces:,} faces{persons}"),
        verdict=escape(report.verdict),
        tone=_tone(report),
        model=plots.MODELS[0],
        baseline=plots.MODELS[1],
        good=plots.GENUINE,
        bad=plots.IMPOSTOR,
        body="\n".join(_body(report)),
    )


def _tone(report: Report) -> str:
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
        yield _figure(
            plots.differences(report),
            f"{report.models[0].name} minus {report.models[1].name}, with 95 % intervals for other "
            "people; what may be chance is grey. Verification by the cosine.",
        )

    band = " Bands: 95 % for other people." if report.resamples and report.persons else ""
    kind = plots.kind_of_pairs(report)
    if f"{kind}/cosine" in by_key and by_key[f"{kind}/cosine"].results:
        yield "<h2>One against one</h2>"
        yield '<div class="plots">'
        yield _figure(plots.roc(report), f"ROC.{band}")
        yield _figure(
            plots.det(report), f"DET, on axes of normal deviates; dotted: FMR = FNMR.{band}"
        )
        yield "</div>"
        dashed = f" Dashed: {report.models[1].name}." if len(report.models) > 1 else ""
        yield _figure(
            plots.distances(report),
            f"How far apart two faces of one person (green) and of two people (red) are.{dashed}",
        )
    for kind in ("pairs", "list"):
        keys = [f"{kind}/{metric}" for metric in METRICS]
        sections = [by_key[key] for key in keys if key in by_key]
        if sections:
            yield _protocol(sections[0])
            yield from _compared(report, sections, METRICS)

    found = [section for key, section in by_key.items() if key.startswith("identification/")]
    if found:
        yield "<h2>One against many</h2>"
        yield '<div class="plots">'
        yield _figure(plots.cmc(report), f"CMC: persons among the first k.{band}")
        if any("fnir" in result.curves for section in found for result in section.results):
            yield _figure(plots.fnir(report), f"Open set: persons missed, strangers named.{band}")
        yield "</div>"
        yield from map(_protocol, found)
        yield from _compared(report, found, [s.title.partition(", ")[2] for s in found])

    spaces = [by_key[k] for k in ("retrieval", "classification", "separation") if k in by_key]
    if spaces:
        yield "<h2>The space</h2>"
        yield from map(_protocol, spaces)
        rows: dict[str, list[str]] = {}
        for section in spaces:
            rows |= _rows(report, [section])
        yield _table(_heads(report), rows)

    yield "<h2>How it was measured</h2>"
    yield _definitions(_METHOD)
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
        yield _definitions({name: str(fact) for name, fact in facts.items() if fact is not None})
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
        more = _interval(figures[0], kind.rate)
        if len(figures) > 1:
            more = f"{report.models[1].name}: {show(figures[1].value, kind.rate)}"
        tiles.append(
            f'<div class="tile"><span>{escape(kind.label)}</span>'
            f"<b>{show(figures[0].value, kind.rate)}</b><span>{escape(more)}</span></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _protocol(section: Section) -> str:
    reason = "" if section.reason is None else f" <b>Not measured: {escape(section.reason)}</b>"
    title = escape(section.title.removesuffix(", cosine"))
    return f'<p class="soft"><b>{title}.</b> {escape(section.protocol)}{reason}</p>'


def _compared(report: Report, sections: Sequence[Section], names: Sequence[str]) -> Iterable[str]:
    """One model: a column for each section. Two: a table for each, all but the first folded."""
    if not sections[0].results:
        return
    if len(report.models) == 1:
        yield _table(names, _rows(report, sections))
        return
    yield _table(_heads(report), _rows(report, sections[:1]))
    for section, name in zip(sections[1:], names[1:], strict=True):
        table = _table(_heads(report), _rows(report, [section]))
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
    results = [result for section in sections for result in section.results]
    if not results:
        return {}
    # What is not resolved comes last; it belongs beside what is.
    kinds = [name.partition("=")[0] for name in results[0].figures]
    names = sorted(results[0].figures, key=lambda name: kinds.index(name.partition("=")[0]))
    rows = {name: [_cell(name, result.figures[name]) for result in results] for name in names}
    if len(report.models) > 1:
        for name, cells in rows.items():
            cells.append(_difference(name, sections[0].differences.get(name)))
    return rows


def _table(heads: Sequence[str], rows: dict[str, list[str]]) -> str:
    """
    Args:
        heads: HTML of the columns' heads.
        rows: HTML of the cells, by the figure's name.
    """
    head = "".join(f"<th>{text}</th>" for text in ("", *heads))
    lines = [
        f"<tr><th>{escape(quantity(name).label)}<small>{escape(quantity(name).meaning)}</small></th>"
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in rows.items()
    ]
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(name: str, figure: Figure) -> str:
    rate = quantity(name).rate
    if figure.value is None:
        return f'<span class="soft" title="{escape(figure.reason or "")}">not resolved</span>'
    notes = [_interval(figure, rate)]
    if figure.threshold is not None:
        notes.append(f"at {figure.threshold:.4g}")
    small = ", ".join(escape(note) for note in notes if note)
    return f"{show(figure.value, rate)}<small>{small}</small>"


def _interval(figure: Figure, rate: bool) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{show(figure.low, rate).removesuffix(' %')} to {show(figure.high, rate)}"


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


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _definitions(entries: dict[str, str]) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items())
    return f"<dl>{rows}</dl>"
