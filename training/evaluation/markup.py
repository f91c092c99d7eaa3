"""The pieces that pages of reports are made of: HTML that needs no network and no script."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import Literal

from training.evaluation.drawing import GENUINE, IMPOSTOR, MODELS
from training.evaluation.report import Figure, Result, Section, quantity, show, show_interval

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


def document(
    title: str,
    subtitle: str,
    verdict: str,
    tone: Literal["model", "good", "bad", "line"],
    body: Iterable[str],
) -> str:
    """
    Args:
        title, subtitle, verdict: text.
        tone: colour of the verdict's edge.
        body: HTML.
    """
    return _PAGE.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        verdict=escape(verdict),
        tone=tone,
        model=MODELS[0],
        baseline=MODELS[1],
        good=GENUINE,
        bad=IMPOSTOR,
        body="\n".join(body),
    )


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Large figures: what it is, its value, and more about it, all text."""
    boxes = (
        f'<div class="tile"><span>{escape(label)}</span><b>{escape(value)}</b>'
        f"<span>{escape(more)}</span></div>"
        for label, value, more in entries
    )
    return f'<div class="tiles">{"".join(boxes)}</div>'


def protocol(section: Section) -> str:
    reason = "" if section.reason is None else f" <b>Not measured: {escape(section.reason)}</b>"
    title = escape(section.title.removesuffix(", cosine"))
    return f'<p class="soft"><b>{title}.</b> {escape(section.protocol)}{reason}</p>'


def figure_rows(results: Sequence[Result]) -> dict[str, list[str]]:
    """HTML of a cell for each result, by the figure's name."""
    if not results:
        return {}
    # What is not resolved comes last; it belongs beside what is.
    kinds = [name.partition("=")[0] for name in results[0].figures]
    names = sorted(results[0].figures, key=lambda name: kinds.index(name.partition("=")[0]))
    return {name: [_cell(name, result.figures[name]) for result in results] for name in names}


def figure_table(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """
    Args:
        heads: HTML of the columns' heads.
        rows: HTML of the cells, by the figure's name.
    """
    return table(
        ["", *heads],
        (
            [
                f"{escape(quantity(name).label)}<small>{escape(quantity(name).meaning)}</small>",
                *cells,
            ]
            for name, cells in rows.items()
        ),
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    Args:
        heads, rows: HTML of cells; the first of each row is its head.
    """
    head = "".join(f"<th>{text}</th>" for text in heads)
    lines = (
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(name: str, figure: Figure) -> str:
    rate = quantity(name).rate
    if figure.value is None:
        return f'<span class="soft" title="{escape(figure.reason or "")}">not resolved</span>'
    notes = [show_interval(figure, rate)]
    if figure.threshold is not None:
        notes.append(f"at {figure.threshold:.4g}")
    small = ", ".join(escape(note) for note in notes if note)
    return f"{show(figure.value, rate)}<small>{small}</small>"


def figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def definitions(entries: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items())
    return f"<dl>{rows}</dl>"
