import numpy as np
import pytest

from tests.unit.training.evaluation.population import populate
from training.data import Pairs
from training.errors import Unresolvable
from training.evaluation import Report, evaluate, evaluate_pairs


def noisy(vectors: np.ndarray, amount: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(vectors.shape)
    return vectors + amount * noise.astype(np.float32)


class Nothing:
    """Faces that nobody looks at."""

    margin = 0

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def source(self, index: int) -> str:
        raise NotImplementedError


def listed(labels: np.ndarray, known: bool = True) -> Pairs:
    """200 pairs in four folds, every second one genuine; four faces a person."""
    start = 4 * np.repeat(np.arange(50), 4)[:200] % len(labels)
    same = np.arange(200) % 2 == 0
    second = np.where(same, start + 1, (start + 4 + np.arange(200) % 3) % len(labels))
    return Pairs(
        faces=Nothing(len(labels)),
        first=start,
        second=second,
        same=same,
        fold=np.arange(200) // 50,
        persons=labels if known else None,
    )


@pytest.fixture(scope="module")
def report() -> Report:
    vectors, labels = populate(0, persons=120, faces=6)
    models = {"ours": vectors, "theirs": noisy(vectors, 0.1)}
    return evaluate(models, labels, dataset="made up", resamples=60)


def test_a_report_comes_back_from_json_as_it_was(report: Report) -> None:
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_the_same_seed_gives_the_same_report(report: Report) -> None:
    vectors, labels = populate(0, persons=120, faces=6)
    models = {"ours": vectors, "theirs": noisy(vectors, 0.1)}
    assert evaluate(models, labels, dataset="made up", resamples=60) == report


def test_every_protocol_is_in_the_report(report: Report) -> None:
    assert [section.key for section in report.sections] == [
        "pairs/cosine", "pairs/euclidean", "pairs/manhattan", "identification/1",
        "identification/3", "retrieval", "classification", "separation",
    ]  # fmt: skip
    assert (report.faces, report.persons) == (720, 120)
    assert report.section("identification/1").protocol.startswith("60 persons are enrolled")
    with pytest.raises(KeyError):
        report.section("list/cosine")


def test_a_figure_lies_in_its_interval_and_a_curve_in_its_band(report: Report) -> None:
    for section in report.sections:
        for result in section.results:
            for name, figure in result.figures.items():
                if figure.value is not None:
                    assert figure.low <= figure.value <= figure.high, (section.key, name)
            for name in {"tar", "cmc", "fnir"} & result.curves.keys():
                curve = result.curves[name]
                assert np.mean(np.array(curve.low) <= np.array(curve.y)) > 0.9
                assert np.mean(np.array(curve.y) <= np.array(curve.high)) > 0.9


def test_a_model_that_is_better_is_called_so(report: Report) -> None:
    assert report.verdict.startswith("ours is better than theirs on these people: FNIR at FPIR")
    difference = report.section("pairs/cosine").differences["eer"]
    assert difference.better
    assert difference.low <= difference.value <= difference.high < 0
    # Nobody can say whether persons should be nearer or farther in themselves.
    assert report.section("pairs/cosine").differences["inter-class mean"].better is None


def test_a_model_is_neither_better_nor_worse_than_itself() -> None:
    vectors, labels = populate(1, persons=60, faces=4)
    report = evaluate({"a": vectors, "b": 3 * vectors}, labels, resamples=30)
    assert report.verdict.startswith("a cannot be told from b on these people")
    for section in report.sections:
        for difference in section.differences.values():
            assert difference.value == pytest.approx(0, abs=1e-5)
            assert difference.better is None


def test_the_worse_model_is_called_so() -> None:
    vectors, labels = populate(1, persons=100, faces=5)
    report = evaluate({"a": noisy(vectors, 0.2), "b": vectors}, labels, resamples=30)
    assert report.verdict.startswith("a is worse than b")


def test_thresholds_are_similarities_for_the_cosine_and_distances_elsewhere(
    report: Report,
) -> None:
    cosine, euclidean = (
        report.section(f"pairs/{metric}").results[0].figures["tar@far=1e-02"].threshold
        for metric in ("cosine", "euclidean")
    )
    assert euclidean == pytest.approx((2 - 2 * cosine) ** 0.5, abs=1e-4)


def test_what_the_data_cannot_resolve_has_a_reason_and_no_value() -> None:
    vectors, labels = populate(0, persons=12, faces=3)
    report = evaluate({"a": vectors}, labels, resamples=20)
    far = report.section("pairs/cosine").results[0].figures["tar@far=1e-04"]
    assert far.value is None
    assert "false matches" in far.reason
    assert report.section("classification").results == ()
    assert "4 faces" in report.section("classification").reason
    assert report.verdict.startswith("a: Rank 1")


def test_few_persons_get_figures_without_intervals() -> None:
    vectors, labels = populate(0, persons=9, faces=4)
    report = evaluate({"a": vectors, "b": noisy(vectors, 0.3)}, labels)
    eer = report.section("pairs/cosine").results[0].figures["eer"]
    assert eer.value is not None
    assert (eer.low, eer.high) == (None, None)
    assert "too few people for an interval" in report.verdict
    assert "cannot be told from" in report.verdict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vectors, labels: (vectors, np.arange(len(labels))), "0 persons with a second"),
        (lambda vectors, labels: (vectors * np.nan, labels), "not finite"),
        (lambda vectors, labels: (vectors * 0, labels), "no direction"),
    ],
    ids=["one face each", "nan", "zero"],
)
def test_what_cannot_be_evaluated_is_refused(change, message: str) -> None:
    vectors, labels = change(*populate(0, persons=12))
    with pytest.raises(Unresolvable, match=message):
        evaluate({"a": vectors}, labels)


def test_a_list_of_pairs_is_evaluated_over_its_folds() -> None:
    vectors, labels = populate(0, persons=50)
    report = evaluate_pairs({"a": vectors}, listed(labels), resamples=20)
    figures = report.section("list/cosine").results[0].figures
    assert 0.7 < figures["accuracy"].value < 1
    assert figures["accuracy"].low < figures["accuracy"].value < figures["accuracy"].high
    # 100 impostor pairs: three false matches at 3e-2, one at 1e-2.
    assert figures["tar@far=1e-01"].value is not None
    assert figures["tar@far=1e-02"].value is None
    assert report.verdict.startswith("a: Accuracy")


def test_a_list_that_does_not_name_people_has_no_intervals() -> None:
    vectors, labels = populate(0, persons=50)
    report = evaluate_pairs({"a": vectors}, listed(labels, known=False), resamples=20)
    section = report.section("list/cosine")
    assert "no intervals" in section.protocol
    assert section.results[0].figures["accuracy"].low is None
