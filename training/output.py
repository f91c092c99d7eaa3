"""What `faceid-train` prints."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from app.models.spec import Calibration


def say(line: str) -> None:
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(line)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*map(str, row))
    Console(highlight=False, markup=False, emoji=False).print(drawn)


def complain(error: object) -> None:
    typer.secho(f"faceid-train: {error}", fg="red", err=True)


def show_calibration(calibration: "Calibration") -> None:
    one, many = calibration.verification, calibration.identification
    table(
        f"{one.impostor_pairs:,} pairs of strangers (below {one.measured_down_to:g} modelled)",
        ["FMR", "95 % interval", "cosine >=", "manhattan <=", "FNMR"],
        [
            [
                f"{fmr:g}",
                f"{low:.2g} to {high:.2g}",
                f"{cosine:.4f}",
                f"{manhattan:.3f}",
                f"{100 * fnmr:.2f} %",
            ]
            for fmr, low, high, cosine, manhattan, fnmr in zip(
                one.fmr,
                one.fmr_low,
                one.fmr_high,
                one.cosine[0],
                one.manhattan[0],
                one.fnmr,
                strict=True,
            )
        ],
    )
    last = len(many.persons) - 1
    shown = [i for i, size in enumerate(many.persons) if size in (1, 10, 100, 1000) or i == last]
    table(
        f"Galleries drawn from {calibration.persons:,} persons, one photo each: cosine above the "
        "cohort's raise",
        ["FPIR", "95 % interval", *(f"{many.persons[size]:,}" for size in shown)],
        [
            [
                f"{fpir:g}",
                f"{low:.2g} to {high:.2g}",
                *(f"{many.similarity[0][size][rate]:.3f}" for size in shown),
            ]
            for rate, (fpir, low, high) in enumerate(
                zip(many.fpir, many.fpir_low, many.fpir_high, strict=True)
            )
        ],
    )
    say(f"calibration {calibration.id}")
