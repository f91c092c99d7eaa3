import numpy as np
import pytest

from tests.conftest import SHARED
from tests.unit.training.evaluation.population import populate
from training.errors import Unresolvable
from training.evaluation.identification import (
    Identification,
    Split,
    draw_split,
    draw_strangers,
    mean_over_draws,
    search,
    split,
)


def found(
    rank: list[int], score: list[float], strangers: np.ndarray, persons: int = 1000
) -> Identification:
    return Identification(
        np.array(rank),
        np.array(score),
        np.arange(len(rank)) % persons,
        strangers,
        np.arange(len(strangers)) % persons,
    )


def test_those_with_one_photo_are_strangers_and_everybody_keeps_a_probe() -> None:
    labels = np.array([3, 0, 3, 1, 3, 3, 5, 1])
    one = split(labels)
    assert [part.tolist() for part in (one.gallery, one.probes, one.strangers)] == [
        [0, 3], [2, 4, 5, 7], [1, 6]
    ]  # fmt: skip
    three = split(labels, photos=3)
    assert three.gallery.tolist() == [0, 2, 3, 4]
    assert three.probes.tolist() == [5, 7]


def test_chosen_strangers_are_not_enrolled() -> None:
    labels = np.repeat([0, 1, 2, 3], 3)
    chosen = split(labels, strangers=np.array([1]))
    assert chosen.strangers.tolist() == [3, 4, 5]
    assert set(labels[chosen.gallery]) == set(labels[chosen.probes]) == {0, 2, 3}
    with pytest.raises(Unresolvable, match="1 persons with a second face"):
        split(labels, strangers=np.array([0, 1, 2]))


def test_half_of_all_are_strangers_where_few_have_one_photo() -> None:
    labels = np.append(np.repeat(np.arange(10), 3), [10, 11])
    strangers = draw_strangers(labels, seed=0)
    assert strangers is not None
    assert len(strangers) == 7
    assert {10, 11} < set(strangers.tolist())
    assert draw_strangers(np.append(labels, np.arange(12, 212)), seed=0) is None


def test_lfw_is_split_as_published() -> None:
    folder = SHARED / "lfw"
    if not folder.is_dir():
        pytest.skip(f"no LFW at {folder}; set FACEID_TEST_DATA")
    persons = [path.parent.name for path in sorted(folder.glob("*/*.jpg"))]
    chosen = split(np.unique(persons, return_inverse=True)[1])
    assert (len(chosen.gallery), len(chosen.probes), len(chosen.strangers)) == (1680, 7484, 4069)


@pytest.mark.parametrize("photos", [1, 3])
def test_rates_are_those_worked_out_by_hand(photos: int) -> None:
    vectors, labels = populate(0, persons=70, faces=6)
    chosen = split(labels, photos, strangers=np.arange(0, 70, 2))
    enrolled = {}
    for person in range(1, 70, 2):
        mean = vectors[[i for i in chosen.gallery if labels[i] == person]].mean(axis=0)
        enrolled[person] = mean / np.linalg.norm(mean)

    right, score = [], []
    for probe in chosen.probes:
        similarity = {person: vectors[probe] @ t for person, t in enrolled.items()}
        right.append(max(similarity, key=similarity.__getitem__) == labels[probe])
        score.append(similarity[labels[probe]])
    strange = np.array([max(vectors[i] @ t for t in enrolled.values()) for i in chosen.strangers])

    figures = search(vectors, labels, chosen).figures()
    assert figures["rank-1"] == pytest.approx(np.mean(right))
    thresholds = [t for t in [*score, *strange] if (strange >= t).mean() <= 0.05 + 1e-5]
    accepted = max((np.array(right) & (np.array(score) >= t - 1e-6)).mean() for t in thresholds)
    assert figures["fnir@fpir=5e-02"] == pytest.approx(1 - accepted)


def test_a_tie_with_another_person_counts_as_a_miss() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], np.float32)
    labels = np.array([0, 0, 1, 1])
    chosen = Split(np.array([0, 2]), np.array([1, 3]), np.array([], int))
    figures = search(vectors, labels, chosen).figures()
    assert (figures["rank-1"], figures["rank-5"]) == (0, 1)


def test_the_cmc_counts_those_among_the_first_k() -> None:
    figures = found([1, 1, 2, 4, 99], [0.5] * 5, np.array([])).figures()
    assert figures["cmc"][[0, 1, 3, 19]] == pytest.approx([0.4, 0.6, 0.8, 0.8])


def test_a_probe_that_does_not_come_first_is_missed_at_every_threshold() -> None:
    figures = found([1, 1, 1, 2], [0.9, 0.5, 0.2, 0.95], np.linspace(0.1, 0.6, 1000)).figures()
    # 1 % of the strangers reach 0.595, half of them 0.35, all of them 0.1.
    assert figures["fnir@fpir=1e-02"] == 0.75
    assert figures["fnir"][-1] == 0.5


def test_persons_are_weighed_by_how_often_they_were_drawn() -> None:
    experiment = found([1, 1, 2, 1], [0.9, 0.5, 0.9, 0.1], np.linspace(0.3, 0.6, 1000))
    weights = np.ones(1000)
    weights[:4] = [2, 0, 1, 1]
    figures = experiment.figures(weights)
    assert figures["rank-1"] == 0.75
    assert figures["fnir@fpir=1e-02"] == 0.5
    weights[990:] = [10] * 10
    # The most similar strangers were drawn more often: the threshold rises above 0.5973.
    assert experiment.figures(weights)["fnir@fpir=1e-02"] == 0.5
    assert np.isnan(experiment.figures(np.zeros(1000))["rank-1"])


def test_without_a_probe_nobody_is_identified() -> None:
    with pytest.raises(Unresolvable, match="needs a probe"):
        found([], [], np.full(200, 0.1))


def test_few_strangers_resolve_no_rate() -> None:
    experiment = found([1], [0.5], np.full(200, 0.1))
    assert set(experiment.unresolved) == {"fnir@fpir=1e-02"}
    assert "200 faces of strangers" in experiment.unresolved["fnir@fpir=1e-02"]
    assert experiment.thresholds["fnir@fpir=5e-02"] == 0.5
    nobody = found([1], [0.5], np.array([]))
    assert set(nobody.unresolved) == {"fnir@fpir=1e-02", "fnir@fpir=5e-02"}
    assert "fnir" not in nobody.figures()


def test_a_drawn_split_enrols_one_random_photo_of_half_of_the_persons() -> None:
    labels = np.repeat(np.arange(20), 5)
    draws = [draw_split(labels, [1, draw]) for draw in range(20)]
    for drawn in draws:
        assert sorted(np.concatenate([drawn.gallery, drawn.probes, drawn.strangers])) == list(
            range(100)
        )
        assert len(set(labels[drawn.gallery])) == len(drawn.gallery) == 10
        assert not set(labels[drawn.strangers]) & set(labels[drawn.gallery])
    assert {index % 5 for drawn in draws for index in drawn.gallery.tolist()} == set(range(5))


def test_a_mean_is_of_what_every_draw_resolves() -> None:
    draws = [{"rank-1": 0.5, "fnir@fpir=1e-02": 0.2}, {"rank-1": 1.0}]
    assert mean_over_draws(draws) == {"rank-1": 0.75}
