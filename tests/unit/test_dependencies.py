"""What faceid brings with it may be used in products."""

import json

import pytest

from tests.dependencies import installed, is_allowed, sbom


def test_no_dependency_has_a_licence_out_of_the_list() -> None:
    packages = installed()
    assert {"faceid", "fastapi", "numpy", "opentelemetry-sdk", "starlette"} <= packages.keys()
    assert "torch" not in packages  # an extra's
    assert [package for package in packages.values() if not is_allowed(package.licence)] == []


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT AND 0BSD", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("AGPL-3.0-or-later", False),
        ("whatever", False),
        ("", False),
    ],
)
def test_an_expression_must_be_met_by_allowed_licences_alone(licence: str, allowed: bool) -> None:
    assert is_allowed(licence) is allowed


def test_the_bill_of_materials_names_every_package_with_version_licence_and_needs() -> None:
    document = json.loads(sbom())
    assert document["bomFormat"] == "CycloneDX"
    packages = installed()
    components = [document["metadata"]["component"], *document["components"]]
    assert {(c["name"], c["version"]) for c in components} == {
        (package.name, package.version) for package in packages.values()
    }
    assert all(component["licenses"] for component in components)
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    fastapi = packages["fastapi"]
    assert f"starlette@{packages['starlette'].version}" in needs[f"fastapi@{fastapi.version}"]
