import numpy as np
import pytest

from training.errors import Diverged
from training.validation import judge, score


def population(spread: float, persons: int = 40, faces: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(persons), faces)
    vectors = rng.standard_normal((persons, 32))[labels]
    vectors = vectors + spread * rng.standard_normal(vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_the_better_embedder_is_judged_better() -> None:
    good, bad = judge(*population(0.7), 0), judge(*population(1.0), 0)
    assert good.keys() == bad.keys() == {
        "eer", "tar@far=1e-01", "tar@far=1e-02", "tar@far=1e-03", "tar@far=1e-04",
        "fnir@fpir=1e-02", "fnir@fpir=5e-02",
    }  # fmt: skip
    for name in good:
        assert (good[name] > bad[name]) == name.startswith("tar"), name
    name, value = score(good)
    assert name == "tar@far=1e-04"
    assert value == good[name] > score(bad)[1]


def test_few_faces_are_judged_by_what_they_resolve() -> None:
    few = judge(*population(0.9, persons=2, faces=3), 0)
    assert few.keys() == {"eer"}
    assert score(few) == ("eer", -few["eer"])


def test_embedders_do_not_change_who_is_enrolled() -> None:
    vectors, labels = population(0.9)
    assert judge(vectors, labels, 3) == judge(vectors, labels, 3)
    assert judge(vectors, labels, 3)["fnir@fpir=1e-02"] != pytest.approx(
        judge(vectors, labels, 4)["fnir@fpir=1e-02"], abs=1e-9
    )


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_embeddings_without_a_direction_are_not_judged(broken: float) -> None:
    vectors, labels = population(0.9)
    vectors[7] = broken
    with pytest.raises(Diverged, match="1 of 2,400 embeddings are not finite or have no direction"):
        judge(vectors, labels, 0)
