"""What faceid brings with it, and under which licences.

    python -m tests.dependencies licences     a table
    python -m tests.dependencies sbom         a CycloneDX document on standard output

Both read what is installed where they run, and of that what is in the image for the CPU: faceid
with its extra `tracing`. The image for CUDA adds ONNX Runtime for it (MIT) and NVIDIA's libraries,
under NVIDIA's terms.
"""

import sys
from importlib.metadata import Distribution, distribution
from typing import NamedTuple

from license_expression import get_spdx_licensing
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Licences under which faceid may be used in products, its sources kept closed or not.
ALLOWED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "HPND", "ISC", "MIT"),
        *("MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib"),
    }
)
# What packages call their licence where they do not say it in SPDX.
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
}


class Package(NamedTuple):
    """
    Attributes:
        licence: an SPDX expression, or whatever the package says.
        needs: canonical names of the packages that it requires.
    """

    name: str
    version: str
    licence: str
    needs: frozenset[str]


def installed() -> dict[str, Package]:
    """faceid and all that it requires, by canonical name."""
    packages: dict[str, Package] = {}
    extras: dict[str, frozenset[str]] = {}
    waiting = [Requirement("faceid[tracing]")]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = extras.get(name, frozenset()) | requirement.extras
        if name in packages and wanted == extras[name]:
            continue
        extras[name] = frozenset(wanted)
        found = distribution(name)
        needs = [need for need in map(Requirement, found.requires or []) if _applies(need, wanted)]
        packages[name] = Package(
            name,
            found.version,
            _licence(found),
            frozenset(canonicalize_name(need.name) for need in needs),
        )
        waiting += needs
    return packages


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def _licence(found: Distribution) -> str:
    metadata = found.metadata
    stated = metadata.get("License-Expression") or metadata.get("License", "")
    if not stated or "\n" in stated:  # nothing, or the whole text
        classifiers = metadata.get_all("Classifier", [])
        names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
        stated = " OR ".join(_SPDX.get(name, name) for name in names)
    return _SPDX.get(stated, stated)


def is_allowed(licence: str) -> bool:
    """Whether an SPDX expression can be met by allowed licences alone."""
    spdx = get_spdx_licensing()
    if not licence or spdx.validate(licence).errors:
        return False
    granted = spdx.parse(licence).subs(dict.fromkeys(map(spdx.parse, ALLOWED), spdx.TRUE))
    return granted.simplify() == spdx.TRUE


def _print_licences() -> None:
    from rich.console import Console
    from rich.table import Table

    packages = installed().values()
    table = Table("package", "version", "licence", title="what faceid needs")
    for package in sorted(packages):
        mark = "" if is_allowed(package.licence) else " [bold red]not allowed[/]"
        table.add_row(package.name, package.version, package.licence + mark)
    Console().print(table)
    sys.exit(not all(is_allowed(package.licence) for package in packages))


def sbom() -> str:
    """CycloneDX 1.6 as JSON."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    packages = installed()
    components = {
        name: Component(
            name=name,
            version=package.version,
            type=ComponentType.APPLICATION if name == "faceid" else ComponentType.LIBRARY,
            bom_ref=f"{name}@{package.version}",
            purl=PackageURL("pypi", None, name, package.version),
            licenses=[LicenseFactory().make_from_string(package.licence)],
        )
        for name, package in packages.items()
    }
    document = Bom(components=[part for name, part in components.items() if name != "faceid"])
    document.metadata.component = components["faceid"]
    for name, package in packages.items():
        document.register_dependency(components[name], [components[need] for need in package.needs])
    return JsonV1Dot6(document).output_as_string(indent=2)


def main() -> None:
    if sys.argv[1:] == ["licences"]:
        _print_licences()
    elif sys.argv[1:] == ["sbom"]:
        print(sbom())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
