"""The report of a service as one page of HTML."""

from collections.abc import Iterable
from html import escape

from training.evaluation import markup
from training.evaluation.report import quantity, show, show_interval
from training.evaluation.service import plots
from training.evaluation.service.figures import at_target, counts
from training.evaluation.service.report import ServiceReport

_METHOD = {
    "The way of a photo": "Every photo goes to the running service as somebody's photo would: its "
    "own decoding, detection, alignment, embedder, search and decision. Persons are enrolled with "
    "the largest face of each of their photos, all in one request, and the check for duplicates "
    "off; among several faces of a photo that is looked for, the one nearest its centre counts. "
    "A photo in which no face is found misses its person, and names no stranger.",
    "Margin": "The service raises the threshold of a face with how similar the persons are who "
    "follow the best one, so that every face has a threshold of its own. What is swept for FNIR "
    "at FPIR, and drawn, is the best person's similarity less that threshold, and where a rate was "
    "taken stands under it. At 0 is the service's own decision.",
    "Rates": "FNIR is the share of photos of enrolled persons that are not called by their name: "
    "somebody else is more similar, or the threshold is not reached. FPIR is the share of photos "
    "of strangers that are called anybody's. With target: the thresholds of the service for that "
    "target, whatever FPIR they turn out to give. A rate that would rest on fewer than 10 errors "
    "is not given.",
    "Calibration error": "The mean gap between the probability of a name and the share of names "
    "that are right, over 15 bins of the probability, weighted by the photos in them.",
    "Duplicates": "Persons whom GET /galleries/{gallery}/duplicates takes for one, and photos it "
    "takes for somebody else's, at its default of 0.1 % of persons who may look like another by "
    "chance. Strangers are enrolled before it is asked, so that everybody is looked at. It may be "
    "the name that is wrong: look at the photos.",
    "Intervals": "95 %, by drawing persons, not photos, with replacement (the subsets bootstrap of "
    "Bolle, Ratha and Pankanti, 2004), the galleries staying as they are. Where no error was seen "
    "the interval has no width, which does not mean there are none to see.",
    "Time": "As this client sees it, from sending a request to its answer, others being under way "
    "beside it.",
}


def render(report: ServiceReport) -> str:
    """The page's text."""
    return markup.document(
        f"Evaluation of a service with {report.service.model}",
        f"{report.dataset}: {report.photos:,} photos of {report.persons:,} persons",
        report.verdict,
        "model",
        _body(report),
    )


def _body(report: ServiceReport) -> Iterable[str]:
    opened = plots.opened(report)
    results = [section.results[0] for section in opened]
    yield markup.tiles(_tiles(report))
    band = " Bands: 95 % for other people." if report.resamples else ""
    yield "<h2>Persons and strangers</h2>"
    yield '<div class="plots">'
    if any("fnir" in result.curves for result in results):
        yield markup.figure(
            plots.fnir(report),
            "Persons missed over strangers named, as the margin is swept; dots: with the service's "
            f"own target of {100 * report.target_fpir:g} %.{band}",
        )
    yield markup.figure(plots.cmc(report), f"CMC: persons among the first k.{band}")
    yield "</div>"
    if any("margin of persons" in result.curves for result in results):
        yield markup.figure(
            plots.margins(report),
            "By how much the best person's similarity exceeds the threshold: photos of enrolled "
            "persons who come first (green), and of strangers (red). Right of the line is a match.",
        )
    yield from map(markup.protocol, opened)
    names = [section.title.partition(", ")[2] for section in opened]
    yield markup.figure_table(list(map(escape, names)), markup.figure_rows(results))

    closed = report.section("closed/3")
    yield "<h2>As the gallery grows, and as a closed set</h2>"
    yield '<div class="plots">'
    if any("threshold by size" in result.curves for result in results):
        yield markup.figure(
            plots.growth(report),
            "The same ten strangers while the gallery is filled: the threshold of each, and the "
            "similarity of the person nearest to them. Median, between the least and the most.",
        )
    yield markup.figure(
        plots.reliability(closed),
        "Share of right names in the closed set over the probability they were given; the larger "
        "a dot, the more photos. Dotted: as probable as said.",
    )
    yield "</div>"
    yield markup.protocol(closed)
    yield markup.figure_table(
        [escape(closed.title.partition(", ")[2])], markup.figure_rows(closed.results)
    )
    yield from _of_no_use(report)
    yield from _duplicates(report)
    yield "<h2>Time</h2>"
    yield f'<p class="soft">{report.at_once} requests under way at a time.</p>'
    yield markup.table(
        ["", "requests", "p50, ms", "p90, ms", "p99, ms", "a second"],
        (
            [
                escape(latency.call),
                f"{latency.requests:,}",
                *(f"{v:.1f}" for v in (latency.p50_ms, latency.p90_ms, latency.p99_ms)),
                f"{latency.per_second:.1f}",
            ]
            for latency in report.latencies
        ),
    )
    yield "<h2>How it was measured</h2>"
    yield markup.definitions(_METHOD)
    yield "<h2>Service</h2>"
    yield markup.definitions(
        {
            "Embedder": report.service.model,
            "Calibration": report.service.calibration,
            "Device": report.service.device,
            "Store": report.service.store,
        }
    )
    yield f'<p class="soft"><br>Seed {report.seed}, {report.resamples} draws of persons.</p>'


def _tiles(report: ServiceReport) -> Iterable[tuple[str, str, str]]:
    several = "identification/3"
    for key, name in (
        (several, at_target("fpir", report.target_fpir)),
        (several, at_target("fnir", report.target_fpir)),
        (several, "fnir@fpir=1e-02"),
        ("identification/1", "fnir@fpir=1e-02"),
        (several, "rank-1"),
        ("closed/3", "calibration error"),
    ):
        section = report.section(key)
        figure = section.results[0].figures[name]
        if figure.value is not None:
            more = f"{section.title.partition(', ')[2]}; {show_interval(figure, True)}"
            yield quantity(name).label, show(figure.value, True), more.removesuffix("; ")


def _of_no_use(report: ServiceReport) -> Iterable[str]:
    yield "<h2>Photos that were of no use</h2>"
    rows = [
        (f"Enrolled: {enrolment.what}", enrolment.photos, counts(r.code for r in enrolment.refused))
        for enrolment in report.enrolments
    ]
    looked_for = report.photos - report.enrolments[1].photos
    rows.append(("Looked for", looked_for, report.not_acquired))
    rows.append(("Not sent", report.photos, report.left_out))
    yield markup.table(
        ["", "photos", "codes"],
        (
            [
                escape(what),
                f"{sum(codes.values()):,} of {photos:,}",
                ", ".join(f"{escape(code)} {times:,}" for code, times in codes.items()),
            ]
            for what, photos, codes in rows
        ),
    )
    # A photo is refused in one gallery for what the other takes it with.
    refused = {(r.photo, r.code) for enrolment in report.enrolments for r in enrolment.refused}
    if refused:
        named = markup.table(
            ["photo", "code"], ([escape(p), escape(c)] for p, c in sorted(refused))
        )
        yield f"<details><summary>Photos that were not enrolled</summary>{named}</details>"


def _duplicates(report: ServiceReport) -> Iterable[str]:
    yield "<h2>Names that may be wrong</h2>"
    yield (
        f'<p class="soft">{len(report.duplicates):,} pairs of persons look like one, '
        f"{len(report.inconsistent):,} photos unlike the others of their person.</p>"
    )
    if report.duplicates:
        yield markup.table(
            ["persons", "", "similarity", "threshold"],
            (
                [
                    escape(pair.persons[0]),
                    escape(pair.persons[1]),
                    f"{pair.similarity:.3f}",
                    f"{pair.threshold:.3f}",
                ]
                for pair in sorted(
                    report.duplicates, key=lambda pair: pair.threshold - pair.similarity
                )
            ),
        )
    if report.inconsistent:
        yield markup.table(
            ["photo", "similarity", "threshold"],
            (
                [escape(odd.photo), f"{odd.similarity:.3f}", f"{odd.threshold:.3f}"]
                for odd in sorted(report.inconsistent, key=lambda odd: odd.similarity)
            ),
        )
