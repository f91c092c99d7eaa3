"""The comparison of losses, on a small world in which it is known what there is to learn.

A face is a point: 8 components say who it is, 24 others vary twice as much and say nothing.
A good head has learnt from some persons which are which, and tells others apart.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from training.backbones.layers import Backbone, Standardise
from training.compare import (
    CONTRASTS,
    UNTRAINED,
    VARIANTS,
    Judge,
    Variant,
    _difference,
    compare,
    embed,
    fit,
    new_head,
)
from training.comparison import Comparison, contrasts_table, figures_table
from training.errors import Diverged, TooFewPersons
from training.features import Features

PERSONS, FACES = 40, 12
RATE = 3e-2


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def world(seed: int) -> Features:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(PERSONS), FACES)
    telling = rng.normal(size=(PERSONS, 8))[labels] + 0.3 * rng.normal(size=(len(labels), 8))
    rest = 2 * rng.normal(size=(len(labels), 24))
    mixed = np.concatenate([telling, rest], axis=1) @ MIXING
    file = mixed.reshape(-1, 8, 2, 2).astype(np.float16)
    return Features(file, np.arange(len(labels)), labels)


MIXING = np.linalg.qr(np.random.default_rng(99).normal(size=(32, 32)))[0]


@pytest.fixture(scope="module")
def known() -> Features:
    return world(0)


@pytest.fixture(scope="module")
def unknown() -> Features:
    return world(1)


@pytest.fixture(scope="module")
def start(known: Features) -> nn.Sequential:
    return new_head(known, 16, seed=0)


def test_a_new_head_knows_the_statistics_of_its_faces(
    known: Features, start: nn.Sequential
) -> None:
    normalised = start[0].eval()(torch.from_numpy(known.file).float())
    np.testing.assert_allclose(normalised.mean(dim=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(normalised.var(dim=(0, 2, 3)), 1, atol=1e-2)
    with torch.no_grad():
        embeddings = start.eval()(torch.from_numpy(known.file).float())
    np.testing.assert_allclose(embeddings.mean(dim=0), 0, atol=1e-4)
    np.testing.assert_allclose(embeddings.var(dim=0), 1, atol=1e-2)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_loss_learns_to_tell_unknown_persons_apart(
    name: str, known: Features, unknown: Features, start: nn.Sequential
) -> None:
    judge = Judge(unknown.labels, seed=0)
    head = fit(VARIANTS[name], start, known, RATE, steps=200, batch_size=64, seed=0)
    before = judge.figures(embed(start, unknown))
    after = judge.figures(embed(head, unknown))
    assert after["eer"] < 0.75 * before["eer"]


def test_training_repeats_and_leaves_the_start_alone(known: Features, start: nn.Sequential) -> None:
    before = start[2].weight.clone()
    one, other = (
        fit(VARIANTS["triplet, random"], start, known, RATE, steps=3, batch_size=64, seed=5)
        for _ in range(2)
    )
    assert torch.equal(one[2].weight, other[2].weight)
    assert torch.equal(start[2].weight, before)


def test_a_loss_that_is_not_finite_ends_it(known: Features, start: nn.Sequential) -> None:
    broken = Features(np.full_like(known.file, np.nan), known.rows, known.labels)
    with pytest.raises(Diverged, match="softmax is nan at step 0"):
        fit(Variant("softmax"), start, broken, 1e-3, steps=1, batch_size=64, seed=0)


def test_perfect_embeddings_are_judged_perfect() -> None:
    labels = np.repeat(np.arange(30), 10)
    vectors = np.eye(30)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(300, 30))
    figures = Judge(labels, seed=0).figures(unit(vectors))
    assert figures["eer"] == 0
    assert figures["rank-1"] == figures["MAP@R"] == figures["tar@far=1e-03"] == 1
    assert figures["intra-class mean"] == pytest.approx(0, abs=1e-4)
    assert figures["inter-class mean"] == pytest.approx(1, abs=1e-4)


def test_a_person_drawn_twice_counts_twice() -> None:
    """Of two kinds of persons one is never recognised: the draw decides about the mean."""
    labels = np.repeat(np.arange(20), 4)
    rng = np.random.default_rng(0)
    noise = np.where(labels < 10, 1.0, 0.01)[:, None] * rng.normal(size=(80, 20))
    vectors = np.eye(20)[labels] + noise
    judge = Judge(labels, seed=0)
    weights = np.array([np.ones(20), np.repeat([0, 2], 10), np.repeat([2, 0], 10)], float)
    found = judge.resample(unit(vectors), weights)
    assert found["intra-class mean"][0] == pytest.approx(
        judge.figures(unit(vectors))["intra-class mean"]
    )
    assert found["intra-class mean"][1] == pytest.approx(0, abs=0.01)
    assert found["intra-class mean"][2] > 0.3


def test_too_few_persons_to_judge_by_are_refused() -> None:
    with pytest.raises(TooFewPersons, match="9 persons"):
        Judge(np.repeat(np.arange(9), 4), seed=0)


@pytest.mark.parametrize(
    ("figure", "shift", "better"),
    [
        ("tar@far=1e-03", 0.1, True),
        ("tar@far=1e-03", -0.1, False),
        ("eer", -0.1, True),
        ("eer", 0.0, None),
        ("intra-class mean", -0.1, None),
    ],
)
def test_a_difference_is_better_only_beyond_its_interval(
    figure: str, shift: float, better: bool | None
) -> None:
    samples = shift + np.linspace(-0.05, 0.05, 101)
    found = _difference(figure, shift, samples)
    assert found.better is better
    assert found.low == pytest.approx(shift - 0.0475)
    assert found.high == pytest.approx(shift + 0.0475)


class Photos:
    """Faces of 7 x 7 colours, a person's always nearly the same."""

    margin = 0
    labels = np.repeat(np.arange(70), 6)
    names = tuple(f"person {i}" for i in range(70))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> np.ndarray:
        person = np.random.default_rng(self.labels[index]).normal(size=(7, 7, 3))
        changed = person + 0.4 * np.random.default_rng([7, index]).normal(size=(7, 7, 3))
        colours = np.clip(127.5 + 40 * changed, 0, 255).astype(np.uint8)
        return colours.repeat(16, axis=0).repeat(16, axis=1)

    def source(self, index: int) -> str:
        return f"photo {index}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    output = tmp_path_factory.mktemp("compare")
    photos = Photos()
    trunk = nn.Sequential(Standardise(), nn.AvgPool2d(16))
    backbone = Backbone(trunk, nn.Flatten(), 147)
    variants = {name: VARIANTS[name] for name in ("softmax", "ArcFace")}

    def again() -> Comparison:
        return compare(
            photos, backbone, output, steps=4, batch_size=32, resamples=20, variants=variants
        )

    first, second = again(), again()
    assert second.contrasts == first.contrasts
    return second, output


def test_a_run_leaves_figures_and_plots(run: tuple[Comparison, Path]) -> None:
    comparison, output = run
    read = Comparison.model_validate_json((output / "compare.json").read_text("utf-8"))
    assert read == comparison
    assert [row.name for row in read.rows] == [UNTRAINED, "softmax", "ArcFace", "shipped head"]
    assert sum(persons for _, persons in (read.trained_on, read.judged_by)) == 70
    for plot in ("losses.png", "distances.png"):
        assert (output / plot).read_bytes().startswith(b"\x89PNG")


def test_the_best_rate_tried_is_the_one_used(run: tuple[Comparison, Path]) -> None:
    for row in run[0].rows:
        if row.loss:
            assert row.tried[f"{row.rate:g}"] == max(row.tried.values())


def test_differences_are_those_of_the_figures(run: tuple[Comparison, Path]) -> None:
    comparison = run[0]
    figures = {row.name: row.figures for row in comparison.rows}
    pairs = [(c.model, c.baseline) for c in comparison.contrasts]
    assert pairs == [pair for pair in CONTRASTS if {*pair} <= figures.keys()]
    assert ("ArcFace", "softmax") in pairs
    for contrast in comparison.contrasts:
        for name, difference in contrast.differences.items():
            a, b = figures[contrast.model][name], figures[contrast.baseline][name]
            assert difference.value == pytest.approx(a.value - b.value, abs=1e-5)
            assert difference.low <= difference.high


def test_tables_show_every_head_and_contrast(run: tuple[Comparison, Path]) -> None:
    console = Console(file=io.StringIO(), width=160)
    console.print(figures_table(run[0]), contrasts_table(run[0]))
    shown = console.file.getvalue()
    row = next(row for row in run[0].rows if row.name == "ArcFace")
    assert f"{100 * row.figures['eer'].value:.1f} " in shown
    assert sum("ArcFace" in line for line in shown.splitlines()) == 3
