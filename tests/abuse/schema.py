"""Requests made up from the OpenAPI document, by schemathesis, judged by all of its checks.

    python -m tests.abuse.schema [--examples 90] [--seed 0]

No 500, no status or answer that the document does not describe, nothing accepted that the document
forbids, nothing refused that it allows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.abuse import calls
from tests.abuse.mutants import originals
from tests.abuse.report import Row, finish
from tests.abuse.service import Service, serving
from tests.commands import ROOT

PHASES = ("examples", "coverage", "fuzzing", "stateful")


class Run(NamedTuple):
    """
    Attributes:
        report: schemathesis's own, see its documentation.
        output: what it printed, with a command for every failure that shows it again.
    """

    report: dict[str, Any]
    output: str


def run(
    service: Service, folder: Path, examples: int, seed: int, phases: Sequence[str] = PHASES
) -> Run:
    """
    Args:
        folder: for the report.
        examples: test cases of each operation and phase, at the most.
    """
    with service.client() as client:
        calls.enrol(client, "grace", [originals()[0].data]).raise_for_status()
    report = folder / "schemathesis.json"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--checks", "all", "--continue-on-failure", "--no-color", "--seed", str(seed)),
            *("--header", f"Authorization: {service.authorization}"),
            *("--max-examples", str(examples), "--phases", ",".join(phases)),
            *("--report", "json"),
            *("--report-json-path", str(report)),
        ],
        cwd=folder,
        env=os.environ
        | {"SCHEMATHESIS_HOOKS": "tests.abuse.schema_hooks", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    read = json.loads(report.read_text()) if report.exists() else {}
    if not read.get("operations"):
        raise RuntimeError(finished.stdout + finished.stderr)
    return Run(read, finished.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as service:
        report, output = run(service, Path(folder), options.examples, options.seed)
        tracebacks = service.log.read_text().count("unexpected error")
    cases = report["test_cases"]
    if report["failures"] or report["errors"]:
        print(output)
    rates = [counts for phases in report["valid_rates"].values() for counts in phases.values()]
    accepted = sum(counts["accepted"] for counts in rates)
    sent = sum(sum(counts.values()) for counts in rates)
    finish(
        "requests made up from the OpenAPI document",
        [
            Row(
                "operations", f"{report['operations']['tested']} of {report['operations']['total']}"
            ),
            Row("cases", f"{cases['generated']:,}", ">= 2,000", cases["generated"] >= 2000),
            Row("phases", ", ".join(report["phases"])),
            Row("valid requests that were accepted", f"{accepted} of {sent}"),
            *(
                Row(f"{failure['code']} {failure['title']}", str(failure["count"]), "0", False)
                for failure in report["failures"]
            ),
            Row("failures", str(cases["with_failures"]), "0", not report["failures"]),
            Row("errors", str(len(report["errors"])), "0", not report["errors"]),
            Row("tracebacks in the log", str(tracebacks), "0", tracebacks == 0),
        ],
    )


if __name__ == "__main__":
    main()
