"""What the files for operation set is what the service reads."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from app.settings import Settings

VARIABLE = re.compile(r"FACEID_[A-Z0-9_]+")
# What the commands and the tests read, and the limits as a whole.
OTHERS = {"FACEID_API_KEY", "FACEID_URL", "FACEID_TEST_QDRANT_URL", "FACEID_LIMITS__"}


def variables(section: type[BaseModel] = Settings, prefix: str = "FACEID_") -> Iterator[str]:
    for name, field in section.model_fields.items():
        variable = prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, variable + "__")
        else:
            yield variable


def test_every_variable_that_is_named_is_a_setting(root: Path, deploy: Path) -> None:
    files = [
        root / "Dockerfile",
        root / "docker-compose.yml",
        root / ".env.example",
        *(f for f in deploy.rglob("*") if f.suffix in {".yaml", ".yml", ".sh"}),
        *(root / "docs").glob("*.md"),
        root / "README.md",
    ]
    settings = set(variables()) | OTHERS
    for file in files:
        unknown = set(VARIABLE.findall(file.read_text())) - settings
        assert not unknown, f"{file.relative_to(root)} sets {sorted(unknown)}"


def test_every_setting_is_explained_in_the_example(root: Path) -> None:
    lines = (root / ".env.example").read_text().splitlines()
    named = {line.removeprefix("# ").split("=")[0] for line in lines if "=" in line}
    assert set(variables()) <= named


def test_every_setting_is_in_the_readme(root: Path) -> None:
    assert set(variables()) <= set(VARIABLE.findall((root / "README.md").read_text()))


def test_the_example_shows_the_defaults(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in variables():
        monkeypatch.delenv(variable, raising=False)
    defaults = Settings()
    for line in (root / ".env.example").read_text().splitlines():
        variable, _, value = line.removeprefix("# ").partition("=")
        if VARIABLE.fullmatch(variable) and value:
            monkeypatch.setenv(variable, value)
    assert Settings() == defaults
