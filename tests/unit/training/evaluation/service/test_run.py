"""An evaluation from a folder to its report, by the answers of a made-up service."""

import signal
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.unit.training.evaluation.service.fake import FakeService, problem, write_photo
from tests.unit.training.evaluation.test_page import Reader
from training.errors import Interrupted, NoFaces, Unresolvable, UnusableService
from training.evaluation.report import Figure
from training.evaluation.service import ServiceReport, run

PERSONS, STRANGERS = 12, 200


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve persons with four photos each, and two hundred with one."""
    folder = tmp_path / "people"
    for person in range(PERSONS):
        for number in range(4):
            name = f"{person:03}"
            write_photo(folder / name / f"{number}.jpg", name, 0.5 + person / 100)
    for stranger in range(STRANGERS):
        name = f"stranger {stranger:03}"
        write_photo(folder / name / "0.jpg", name, stranger / 400)
    return folder


def evaluate(photos: Path, service: FakeService, **options: object) -> ServiceReport:
    return run(
        photos,
        photos.parent / "report",
        url="http://service",
        resamples=50,
        progress=False,
        transport=service.transport(),
        **options,
    )


def figures(report: ServiceReport, key: str) -> dict[str, Figure]:
    return report.section(key).results[0].figures


def values(report: ServiceReport, key: str) -> dict[str, float | None]:
    return {name: figure.value for name, figure in figures(report, key).items()}


def test_figures_are_those_of_the_answers(photos: Path) -> None:
    write_photo(photos / "000" / "3.jpg", "000", 0.39)
    write_photo(photos / "001" / "3.jpg", "001", 0.9, before=1)
    write_photo(photos / "002" / "3.jpg", "002", 0.9, before=9)
    write_photo(photos / "003" / "3.jpg", "003", 0.9, before=10)
    service = FakeService()
    report = evaluate(photos, service, key="secret")

    assert report.target_fpir == 0.01
    assert (report.photos, report.persons) == (4 * PERSONS + STRANGERS, PERSONS + STRANGERS)
    three = values(report, "identification/3")
    assert three["rank-1"] == 0.75
    assert three["rank-5"] == pytest.approx(10 / 12, abs=1e-5)
    assert three["rank-10"] == pytest.approx(11 / 12, abs=1e-5)
    # Strangers have 0, 1/400, 2/400 ...: 39 of them reach 0.401, 59 reach 0.351.
    assert three["fpir@target=0.01"] == 39 / 200
    assert three["fpir@target=0.05"] == 59 / 200
    assert three["fnir@target=0.01"] == pytest.approx(4 / 12, abs=1e-5)
    assert three["fnir@target=0.05"] == 0.25
    # Ten of them reach 0.475, which everybody who comes first does but the one with 0.39.
    assert three["fnir@fpir=5e-02"] == pytest.approx(4 / 12, abs=1e-5)
    assert figures(report, "identification/3")["fnir@fpir=5e-02"].threshold > 0.07
    assert three["fnir@fpir=1e-02"] is None

    one = values(report, "identification/1")
    assert one["rank-1"] == pytest.approx(33 / 36, abs=1e-5)
    assert one["fnir@target=0.01"] == pytest.approx(4 / 36, abs=1e-5)

    # Everybody is given the likeness as probability; it is the share of right names that differs.
    closed = values(report, "closed/3")
    assert closed["rank-1"] == 0.75
    assert 0.3 < closed["calibration error"] < 0.6
    assert service.keys == {"secret"}


def test_a_report_is_written_and_its_page_shown(photos: Path) -> None:
    for name in ("<b>", "<b> again"):
        write_photo(photos / name / "0.jpg", name, 0.3)
    report = evaluate(photos, FakeService())
    folder = photos.parent / "report"
    assert ServiceReport.model_validate_json((folder / "report.json").read_text()) == report
    read = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert read.count["svg"] == 5
    assert "FPIR with target 1 %" in read.text
    assert "<b> again" in read.text
    assert all(link.startswith("#") for link in read.links)
    assert not {"script", "img", "image", "link", "iframe"} & read.count.keys()


def test_figures_lie_in_intervals_for_other_persons(photos: Path) -> None:
    report = evaluate(photos, FakeService())
    figure = figures(report, "identification/3")["fpir@target=0.01"]
    assert 0.1 < figure.low < figure.value < figure.high < 0.3


def test_the_threshold_is_seen_while_the_gallery_grows(photos: Path) -> None:
    report = evaluate(photos, FakeService())
    curves = report.section("identification/1").results[0].curves
    assert curves["threshold by size"].x == (1, 2, 5, 10, 12)
    assert set(curves["threshold by size"].y) == {0.401}
    # Ten strangers, evenly from the first, with 0, to the last.
    assert curves["similarity by size"].low == (0, 0, 0, 0, 0)
    assert curves["similarity by size"].high == pytest.approx([199 / 400] * 5, abs=1e-3)


def test_photos_of_no_use_are_counted_by_their_codes(photos: Path) -> None:
    write_photo(photos / "000" / "0.jpg", "000", 0.5, rejected="no_face")
    for number in range(3):
        write_photo(photos / "001" / f"{number}.jpg", "001", 0.5, rejected="too_dark")
    write_photo(photos / "002" / "3.jpg", "002", 0.5, face=False)
    write_photo(photos / "stranger 007" / "0.jpg", "stranger 007", 0.5, face=False)
    (photos / "loose.jpg").write_text("")
    report = evaluate(photos, FakeService())

    one, three, strangers = report.enrolments
    assert [(e.persons, e.photos) for e in report.enrolments] == [(12, 12), (12, 36), (200, 200)]
    assert [(r.photo, r.code) for r in one.refused] == [
        ("000/0.jpg", "no_face"), ("001/0.jpg", "too_dark")
    ]  # fmt: skip
    assert [r.code for r in three.refused] == ["no_face", "too_dark", "too_dark", "too_dark"]
    assert strangers.refused == ()
    assert report.not_acquired == {"no_face": 2}
    assert report.left_out == {"no_person": 1}
    found = values(report, "identification/3")
    assert found["not enrolled"] == pytest.approx(1 / 12, abs=1e-5)
    assert found["not acquired"] == pytest.approx(2 / 212, abs=1e-5)
    # The photo without a face and that of the person who is not enrolled are missed ...
    assert found["rank-1"] == pytest.approx(10 / 12, abs=1e-5)
    # ... and a stranger without one is nobody.
    assert found["fpir@target=0.01"] == pytest.approx(39 / 200, abs=1e-5)


def test_duplicates_and_inconsistent_photos_are_told_by_name(photos: Path) -> None:
    for name, count in (("anna", 4), ("anna again", 1), ("bert", 4)):
        for number in range(count):
            write_photo(
                photos / name / f"{number}.jpg", name, 0.6, odd=(name, number) == ("bert", 1)
            )
    report = evaluate(photos, FakeService())
    assert [pair.persons for pair in report.duplicates] == [("anna", "anna again")]
    assert [odd.photo for odd in report.inconsistent] == ["bert/1.jpg"]


def test_some_of_those_with_several_photos_are_strangers_where_few_have_one(
    tmp_path: Path,
) -> None:
    for person in range(20):
        for number in range(3):
            name = f"{person:03}"
            write_photo(tmp_path / "people" / name / f"{number}.jpg", name, 0.5)
    report = evaluate(tmp_path / "people", FakeService())
    assert report.enrolments[0].persons == 10
    assert report.section("identification/1").protocol.endswith("30 of 10 strangers.")
    assert values(report, "identification/1")["fpir@target=0.01"] == 1


def test_a_target_that_the_calibration_does_not_support_has_a_reason(photos: Path) -> None:
    service = FakeService()
    service.meddle = lambda request: (
        problem(422, "unsupported_target") if "0.05" in str(request.url.params) else None
    )
    report = evaluate(photos, service)
    assert values(report, "identification/1")["fpir@target=0.01"] == 39 / 200
    unresolved = figures(report, "identification/1")["fpir@target=0.05"]
    assert unresolved.value is None
    assert "unsupported_target" in unresolved.reason


def test_everybody_is_deleted_again(photos: Path) -> None:
    service = FakeService()
    evaluate(photos, service)
    assert service.persons == 0
    assert (
        len([1 for method, _ in service.requests if method == "DELETE"]) == 2 * PERSONS + STRANGERS
    )
    names = [name for name in service.galleries if name.startswith("evaluation-")]
    assert [name[:13] for name in names] == ["evaluation-1-", "evaluation-3-"]


@pytest.mark.parametrize("after", [5, 100, 500])
def test_everybody_is_deleted_again_after_an_error(photos: Path, after: int) -> None:
    service = FakeService()

    def meddle(request: httpx.Request) -> httpx.Response | None:
        fails = len(service.requests) > after and request.method == "POST"
        return problem(500, "inference_failed") if fails else None

    service.meddle = meddle
    with pytest.raises(UnusableService, match="inference_failed"):
        evaluate(photos, service)
    assert service.persons == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [6, 100])
def test_everybody_is_deleted_again_after_an_interruption(
    photos: Path, number: signal.Signals, after: int
) -> None:
    service = FakeService()

    def meddle(_: httpx.Request) -> None:
        if len(service.requests) == after:
            signal.raise_signal(number)

    service.meddle = meddle
    with pytest.raises(Interrupted, match="has been deleted again"):
        evaluate(photos, service)
    assert len(service.requests) < after + 2 * PERSONS + STRANGERS
    assert service.persons == 0


def test_who_cannot_be_deleted_is_not_kept_secret(photos: Path) -> None:
    service = FakeService()
    service.meddle = lambda request: (
        problem(403, "forbidden") if request.method == "DELETE" else None
    )
    with pytest.raises(UnusableService, match=r"forbidden.* left in the gallery evaluation-1-"):
        evaluate(photos, service)


def test_a_service_that_cannot_decide_is_refused_with_the_way_out(photos: Path) -> None:
    service = FakeService()
    service.ready["calibration"] = None
    with pytest.raises(UnusableService, match="faceid-train calibrate"):
        evaluate(photos, service)
    service.ready = {"status": "fine"}
    with pytest.raises(UnusableService, match="not faceid"):
        evaluate(photos, service)
    assert {method for method, _ in service.requests} == {"GET"}


def test_a_service_that_is_not_there_is_refused_with_the_way_out(photos: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(UnusableService, match=r"http://nowhere.*faceid serve.*--url"):
        run(
            photos,
            photos.parent / "report",
            url="http://nowhere",
            progress=False,
            transport=httpx.MockTransport(refuse),
        )
    with pytest.raises(UnusableService, match="not an address"):
        run(photos, photos.parent / "report", url="http://here:there", progress=False)
    assert not (photos.parent / "report").exists()


def test_a_key_that_is_refused_ends_it_before_anybody_is_enrolled(photos: Path) -> None:
    service = FakeService()
    service.meddle = lambda request: (
        None if request.url.path == "/health/ready" else problem(401, "unauthenticated")
    )
    with pytest.raises(UnusableService):
        evaluate(photos, service)
    assert {method for method, _ in service.requests} == {"GET"}


def test_a_photo_that_gets_no_answer_costs_only_itself(photos: Path) -> None:
    service = FakeService()

    def meddle(request: httpx.Request) -> None:
        if b"stranger 150" in request.content:
            raise httpx.ReadTimeout("too slow", request=request)

    service.meddle = meddle
    report = evaluate(photos, service)
    assert report.not_acquired == {"no_answer": 1}
    assert [(r.photo, r.code) for r in report.enrolments[2].refused] == [
        ("stranger 150/0.jpg", "no_answer")
    ]


def test_photos_too_large_for_one_request_are_sent_one_by_one(photos: Path) -> None:
    service = FakeService()
    service.meddle = lambda request: (
        problem(413, "body_too_large") if request.content.count(b'"name"') > 1 else None
    )
    report = evaluate(photos, service)
    assert [enrolment.refused for enrolment in report.enrolments] == [(), (), ()]
    assert values(report, "identification/3")["not enrolled"] == 0


def test_without_a_photo_of_use_there_is_nothing_to_evaluate(photos: Path) -> None:
    service = FakeService()
    service.meddle = lambda request: (
        problem(415, "unsupported_image") if request.url.path.endswith("/faces") else None
    )
    with pytest.raises(Unresolvable, match="Nobody could be enrolled; the service answered: unsup"):
        evaluate(photos, service)


def test_too_few_persons_are_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    with pytest.raises(NoFaces, match="is no folder"):
        evaluate(folder, FakeService())
    for name in ("a", "b", "c"):
        for number in range(2):
            write_photo(folder / name / f"{number}.jpg", name, 0.5)
    with pytest.raises(Unresolvable, match=r"3 of the 3 persons .* at least 4 .* Add photos"):
        evaluate(folder, FakeService())


def test_the_same_seed_gives_the_same_report(photos: Path) -> None:
    one, two = (evaluate(photos, FakeService()).model_dump() for _ in range(2))
    for report in (one, two):
        del report["latencies"]
    assert one == two
    assert np.isfinite(one["sections"][0]["results"][0]["figures"]["rank-1"]["low"])
