from pathlib import Path

import pytest

from training.errors import InvalidRecipe
from training.losses import LOSSES
from training.recipe import SHIPPED, differences, load

NAMES = sorted(file.stem for file in SHIPPED.glob("*.toml"))


def test_every_loss_has_a_recipe_that_holds() -> None:
    assert {load(name).loss.name for name in NAMES} == set(LOSSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epoch=3", "training.epoch is unknown; did you mean 'epochs'?"),
        ("trianing.rate=1", "trianing is unknown; did you mean 'training'?"),
        ("loss.scal=3", "loss.scal is unknown to 'arcface'; did you mean 'scale'?"),
        ('loss.name="arkface"', "no loss 'arkface'; did you mean 'arcface'?"),
        ('model.backbone="mobilfacenet"', "did you mean 'mobilefacenet'?"),
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1"),
        ("training.rate=fast", "training.rate: Input should be a valid number"),
        ('training.optimiser="adam"', "training.optimiser: Input should be 'sgd' or 'adamw'"),
        ("augmentation.flip=2", "augmentation.flip: Input should be less than or equal to 1"),
        ("loss.margin=4", "loss.margin = 4: Input should be less than 3.14"),
        ('model.start="random"', "needs starting weights"),
        ("training.batch_size", "is no assignment"),
        ("about.x=1", "about is a value, not a table"),
    ],
)
def test_what_is_wrong_is_named(change: str, message: str) -> None:
    with pytest.raises(InvalidRecipe) as raised:
        load("arcface", ["model.frozen_batch_norm=false", change])
    assert message in str(raised.value)


def test_a_batch_of_pairs_holds_whole_persons() -> None:
    with pytest.raises(InvalidRecipe, match="30 is not 4 faces each"):
        load("triplet", ["training.batch_size=30"])
    assert load("arcface", ["training.batch_size=30"]).training.batch_size == 30


def test_an_unknown_recipe_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match=r"'arcfase'; did you mean 'arcface'\?"):
        load("arcfase")
    with pytest.raises(InvalidRecipe, match="No such file"):
        load(str(tmp_path / "mine.toml"))


def test_a_recipe_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SHIPPED.joinpath("arcface.toml").read_text())
    assert load(str(path)) == load("arcface")
    path.write_text("about = ")
    with pytest.raises(InvalidRecipe, match="is not TOML"):
        load(str(path))


def test_differences_are_listed_with_both_values() -> None:
    one = load("arcface")
    other = load("arcface", ["training.epochs=9", "loss.ramp=0.5", "about=mine"])
    assert differences(one, one) == ""
    assert differences(one, other) == "loss.ramp was None, is 0.5; training.epochs was 2, is 9"
