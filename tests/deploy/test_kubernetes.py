"""The manifests, as `kubectl apply -k` would send them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import Settings
from tests.service import running

VERSION = "1.33"
# Of the Prometheus operator; Kubernetes has no schema for them.
FOREIGN = {"ServiceMonitor"}
# What `docs/deployment.md` has the operator make by hand.
SECRET = "faceid"

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl")

Manifests = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def manifests(deploy: Path, variant: str) -> Manifests:
    """By kind, of which there is one each."""
    folder = deploy / "kubernetes" / "overlays" / variant
    built = subprocess.run(
        ["kubectl", "kustomize", folder], check=True, capture_output=True, text=True
    )
    documents = list(yaml.safe_load_all(built.stdout))
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents)
    return kinds


@pytest.fixture(scope="module")
def container(manifests: Manifests) -> dict[str, Any]:
    (only,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_every_manifest_matches_its_schema(manifests: Manifests) -> None:
    for kind in manifests.keys() - FOREIGN:
        kubernetes_validate.validate(manifests[kind], VERSION, strict=True)


def test_the_schemas_do_refuse(manifests: Manifests) -> None:
    wrong = manifests["Deployment"] | {"spec": manifests["Deployment"]["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_everything_selects_the_pods_of_the_deployment(manifests: Manifests) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels
    for selected in (
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selected == labels
    monitor = manifests["ServiceMonitor"]["spec"]
    assert (
        monitor["selector"]["matchLabels"].items()
        <= manifests["Service"]["metadata"]["labels"].items()
    )
    assert monitor["endpoints"][0]["port"] == manifests["Service"]["spec"]["ports"][0]["name"]
    # The dashboard and the alerts know the service by this name.
    assert manifests["Service"]["metadata"]["labels"][monitor["jobLabel"]] == "faceid"
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == manifests["Deployment"]["metadata"]["name"]


def test_probes_and_scrapes_ask_for_what_the_service_answers(
    manifests: Manifests, container: dict[str, Any], tmp_path: Path
) -> None:
    asked = {container[f"{p}Probe"]["httpGet"]["path"] for p in ("startup", "liveness")}
    asked |= {container["readinessProbe"]["httpGet"]["path"]}
    asked |= {endpoint["path"] for endpoint in manifests["ServiceMonitor"]["spec"]["endpoints"]}
    assert asked == {"/health/live", "/health/ready", "/metrics"}
    with running(tmp_path) as client:
        assert {client.get(path).status_code for path in asked} == {200}
    store_timeout = Settings().store.timeout_s
    assert container["readinessProbe"]["timeoutSeconds"] > store_timeout


def test_pods_run_as_the_image_says_and_may_do_nothing_else(
    manifests: Manifests, container: dict[str, Any], root: Path
) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    user = re.search(r"^USER (\d+):(\d+)$", (root / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == tuple(map(int, user.groups()))
    assert security["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_settings_come_from_the_generated_map_and_the_secret(
    manifests: Manifests, container: dict[str, Any], variant: str
) -> None:
    (settings, secret) = container["envFrom"]
    assert settings["configMapRef"]["name"] == manifests["ConfigMap"]["metadata"]["name"]
    assert secret == {"secretRef": {"name": SECRET}}
    device = {"cpu": "cpu", "gpu": "cuda"}[variant]
    assert manifests["ConfigMap"]["data"]["FACEID_MODEL__DEVICE"] == device
    assert container["image"] == f"faceid:{device}"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (variant == "gpu")


def test_it_scales_on_a_metric_that_exists(
    manifests: Manifests, deploy: Path, exported: set[str]
) -> None:
    metrics = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (name,) = [m["pods"]["metric"]["name"] for m in metrics if m["type"] == "Pods"]
    assert name in exported
    adapter = yaml.safe_load((deploy / "kubernetes" / "prometheus-adapter.yaml").read_text())
    assert adapter["rules"]["custom"][0]["seriesQuery"].startswith(name + "{")
