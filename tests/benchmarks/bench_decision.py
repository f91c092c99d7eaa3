"""What deciding costs on top of searching.

    python -m tests.benchmarks.bench_decision [--faces 100000]

A gallery of random unit vectors, three faces a person. One probe at a time: the bare search for
the ten nearest persons; all that `POST /identify` does for a face that is embedded already
(target, threshold, search for candidates and cohort, decision); and the check of a newcomer for
duplicates. The three take turns, in blocks; medians are shown, and must be at most 1.2 times the
bare search.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import uvloop
from rich.console import Console
from rich.table import Table

from app.decision.fusion import template
from app.metrics import Metrics
from app.models.spec import METADATA_KEY, SHIPPED_EMBEDDER, EmbedderSpec
from app.services.identify import Identifier
from app.services.lookalikes import Lookalikes
from app.services.models import calibrated_by
from app.store import EmbeddedStore, Embedder
from tests.benchmarks.bench_store import FACES_PER_PERSON, GALLERY, fill, timed, unit

BLOCK = 50
ROUNDS = 8
MARK = 1.2
DIMENSION = 128


async def measure(path: Path, faces: int, console: Console) -> None:
    rng = np.random.default_rng(3)
    persons = rng.standard_normal((faces // FACES_PER_PERSON + 1, DIMENSION), dtype=np.float32)
    noise = rng.standard_normal((faces, DIMENSION), dtype=np.float32)
    rows = unit(persons.repeat(FACES_PER_PERSON, axis=0)[:faces] + 0.5 * noise)
    probes = unit(persons[rng.integers(0, len(persons), BLOCK)] + 0.5 * noise[:BLOCK])
    store = EmbeddedStore(path, Embedder("bench", DIMENSION, "0" * 64), template)
    await store.open()
    await fill(store, rows)

    properties = {entry.key: entry.value for entry in onnx.load(SHIPPED_EMBEDDER).metadata_props}
    spec = EmbedderSpec.model_validate_json(properties[METADATA_KEY])
    calibrated = calibrated_by(spec)
    assert calibrated is not None
    # Nothing is detected or embedded here.
    identifier = Identifier(None, store, calibrated, 0.01, Metrics())  # type: ignore[arg-type]
    lookalikes = Lookalikes(store, calibrated)

    async def identify(probe: np.ndarray) -> None:
        await identifier.decide(await identifier.rule(GALLERY), probe[None])

    ways: dict[str, Callable[[np.ndarray], object]] = {
        "bare search, ten persons": lambda probe: store.search(GALLERY, probe[None], 10),
        "identification of a face": identify,
        "newcomer's check for duplicates": lambda probe: lookalikes.of(
            GALLERY, probe[None], ["newcomer"]
        ),
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            for probe in probes:
                await timed(samples[name], lambda w=way, p=probe: w(p))
    await store.close()

    table = Table(title=f"{faces:,} faces, {FACES_PER_PERSON} a person, one probe")
    table.add_column("")
    for column in ("median ms", "of the bare search", f"mark <= {MARK:g}"):
        table.add_column(column, justify="right")
    bare = float(np.median(samples["bare search, ten persons"]))
    for name, values in samples.items():
        ratio = float(np.median(values)) / bare
        kept = "" if ratio == 1 else "ok" if ratio <= MARK else "MISSED"
        table.add_row(name, f"{np.median(values):.3f}", f"{ratio:.2f}", kept)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=100_000)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(measure(Path(folder), chosen.faces, Console()))


if __name__ == "__main__":
    main()
