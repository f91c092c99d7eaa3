"""What a report says, for the terminal."""

from rich.table import Table

from training.evaluation.report import Section, quantity, show, show_interval
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
    refused = [
        f"{code} {count:,}"
        for enrolment in report.enrolments[-1:]
        for code, count in enrolment.rejected.items()
    ]
    unused = [f"{code} {count:,}" for code, count in report.not_acquired.items()]
    return [
        f"Photos refused at enrolment: {', '.join(refused) or 'none'}. "
        f"Without use when looked for: {', '.join(unused) or 'none'}.",
        f"{len(report.duplicates):,} pairs of persons look like one, {len(report.inconsistent):,} "
        "photos unlike the others of their person.",
        report.verdict,
    ]


def _figures(title: str, sections: list[Section]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for section in sections:
        table.add_column(section.title.partition(", ")[2], justify="right")
    for name in sections[0].results[0].figures:
        figures = [section.results[0].figures[name] for section in sections]
        table.add_row(
            quantity(name).label,
            *(
                "not resolved"
                if figure.value is None
                else f"{show(figure.value, True)} ({show_interval(figure, True)})".replace(
                    " ()", ""
                )
                for figure in figures
            ),
        )
    return table
