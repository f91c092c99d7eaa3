"""How well the whole service identifies the people of Labeled Faces in the Wild.

    python -m tests.benchmarks.bench_service [--output evaluation]

A service of its own, in a folder that is thrown away, is evaluated by `faceid-train
evaluate-service`; the figures with marks are put beside them. The report with all figures and
plots is in the output folder. Ten to twenty minutes on 2 cores.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.benchmarks.bench_identify import wait_until_ready
from tests.benchmarks.marks import finish
from tests.conftest import SHARED
from training.evaluation.report import quantity
from training.evaluation.service import run
from training.evaluation.service.report import ServiceReport
from training.evaluation.service.summary import lines, tables

LFW = SHARED / "lfw"
MARKS = (
    ("identification/1", "rank-1", ">=", 0.985),
    ("identification/1", "fnir@fpir=1e-02", "<=", 0.04),
    ("identification/3", "fnir@fpir=1e-02", "<=", 0.0175),
    ("closed/3", "rank-1", ">=", 0.994),
    ("closed/3", "calibration error", "<=", 0.02),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("evaluation"))
    options = parser.parse_args()
    if not LFW.is_dir():
        sys.exit(f"LFW is not at {LFW}; set FACEID_TEST_DATA.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port)],
            env=os.environ
            | {"FACEID_STORE__PATH": str(Path(folder, "store")), "FACEID_AUTH__DISABLED": "true"},
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the evaluation alone, which needs the service to clear up.
            start_new_session=True,
        )
        try:
            wait_until_ready(url, server)
            report = run(LFW, options.output, url=url)
        finally:
            server.terminate()
            server.wait()
    console = Console(highlight=False)
    console.print(*tables(report), *lines(report), options.output / "report.html", sep="\n")
    finish("Against the marks", marks(report), console)


def marks(report: ServiceReport) -> list[tuple[str, float, str, float]]:
    rows = []
    for key, name, sign, mark in MARKS:
        section = report.section(key)
        value = section.results[0].figures[name].value
        assert value is not None
        rows.append((f"{section.title}: {quantity(name).label}", value, sign, mark))
    return rows


if __name__ == "__main__":
    main()
