from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.unit.training.evaluation.population import populate
from training.evaluation import Report, evaluate, write_html

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Checks that every tag is closed in turn, and keeps what the page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.text = ""
        self.links: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(report: Report, path: Path) -> Reader:
    write_html(report, path)
    return Reader(path.read_text(encoding="utf-8"))


def test_one_model_gets_a_page_with_all_curves_and_metrics(tmp_path: Path) -> None:
    vectors, labels = populate(0, persons=80, faces=6)
    report = evaluate({"<ours>": vectors}, labels, dataset="a & b", resamples=10)
    read = page(report, tmp_path / "report.html")
    assert read.count["svg"] == 5
    assert "Evaluation of <ours>" in read.text
    assert "a & b: 480 faces of 80 persons" in read.text
    for text in ("cosine", "euclidean", "manhattan", "TAR at FAR 10⁻³", "MAP@R", "Rank 1"):
        assert text in read.text
    # Nothing is fetched from anywhere, nothing is run.
    assert all(link.startswith("#") for link in read.links)
    assert not {"script", "img", "image", "link", "iframe"} & read.count.keys()


def test_two_models_stand_side_by_side_under_the_verdict(tmp_path: Path) -> None:
    vectors, labels = populate(0, persons=80, faces=6)
    models = {"ours": vectors, "theirs": vectors[:, ::-1][:, :6]}
    read = page(evaluate(models, labels, resamples=10), tmp_path / "report.html")
    assert read.count["svg"] == 6
    assert read.text.index("ours is better than theirs") < read.text.index("One against one")
    assert read.count["details"] == 3
    assert "Difference" in read.text


@pytest.mark.parametrize("models", [1, 2])
def test_a_tiny_set_still_gets_its_page(models: int, tmp_path: Path) -> None:
    vectors, labels = populate(0, persons=5, faces=2)
    both = {"ours": vectors, "theirs": vectors}
    report = evaluate(dict(list(both.items())[:models]), labels)
    read = page(report, tmp_path / "report.html")
    assert "not resolved" in read.text
    assert "Not measured: 0 persons with 4 faces" in read.text
