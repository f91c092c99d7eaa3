"""The arrows between the packages, read from the imports themselves."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package to the packages of ours it may import, besides itself. `app.errors` is the one
# module everybody may raise from.
ALLOWED = {
    "app.vision": {"app.errors"},
    "app.decision": {"app.errors"},
    "app.models": set(),
    "app.auth": {"app.errors", "app.files"},
    "app.audit": {"app.errors", "app.files"},
    "app.store": {"app.errors", "app.files"},
    "app.inference": {"app.errors", "app.vision", "app.models"},
    "app.services": {
        "app.errors", "app.inference", "app.store", "app.decision", "app.vision", "app.settings",
        "app.metrics", "app.models", "app.tracing",
    },
    "training": {"app.errors", "app.vision", "app.decision", "app.models"},
}  # fmt: skip
# Faces are found and cut out, and model files judged, by what the service itself runs; a running
# service is spoken to by the client of its own command line.
ALSO_ALLOWED = {
    "training/data/alignment.py": {"app.inference"},
    "training/data/prepare.py": {"app.inference"},
    "training/evaluation/embedder.py": {"app.inference"},
    "training/evaluation/service/session.py": {"app.cli"},
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"app", "training", "torch", "fastapi"}}


def belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    allowed = ALLOWED[package] | {package}
    for file in folder.rglob("*.py"):
        path = file.relative_to(ROOT).as_posix()
        more = ALSO_ALLOWED.get(path, set())
        wrong = {
            name
            for name in imports(file)
            if name != "app"
            and not any(belongs(name, other) for other in allowed | more)
            and not any(belongs(other, name) for other in allowed)
        }
        if package == "training":
            wrong -= {name for name in wrong if name.startswith("torch")}
        assert not wrong, f"{path} imports {sorted(wrong)}"


def test_the_service_never_loads_the_training_half() -> None:
    code = (
        "import sys, app.main; "
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'training', 'onnx')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    assert output.strip() == "[]"
