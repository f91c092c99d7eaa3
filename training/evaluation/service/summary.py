"""What a report says, for the terminal."""

from collections.abc import Mapping

from rich.table import Table

from training.evaluation.report import Figure, Section, quantity, show, show_interval
from training.evaluation.service.figures import counts
from training.evaluation.service.plots import opened
from training.evaluation.service.report import ServiceReport


def tables(report: ServiceReport) -> list[Table]:
    found = [_figures("Persons and strangers", opened(report))]
    found += [
        _figures(section.title, [section])
        for section in report.sections
        if section.key.startswith("closed/")
    ]
    times = Table(title=f"Time, {report.at_once} requests at a time", title_justify="left")
    for column in ("", "p50, ms", "p90, ms", "p99, ms", "a second"):
        times.add_column(column, justify="right" if column else "left")
    for latency in report.latencies:
        values = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.per_second)
        times.add_row(latency.call, *(f"{value:.1f}" for value in values))
    return [*found, times]


def lines(report: ServiceReport) -> list[str]:
    """What is no table."""
    refused = [refusal.code for refusal in report.enrolments[1].refused]
    return [
        f"Photos refused at enrolment: {_listed(counts(refused))}. "
        f"Of no use when looked for: {_listed(report.not_acquired)}.",
        f"{len(report.duplicates):,} pairs of persons look like one, {len(report.inconsistent):,} "
        "photos unlike the others of their person.",
        report.verdict,
    ]


def _listed(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in codes.items()) or "none"


def _figures(title: str, sections: list[Section]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for section in sections:
        table.add_column(section.title.partition(", ")[2], justify="right")
    for name in sections[0].results[0].figures:
        figures = [section.results[0].figures[name] for section in sections]
        table.add_row(quantity(name).label, *map(_shown, figures))
    return table


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return "not resolved"
    interval = show_interval(figure, True).removesuffix(" %")
    return show(figure.value, True) + (f" ({interval})" if interval else "")
