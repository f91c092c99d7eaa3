"""docker compose: what its own check says, and what every container must hold to."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

Services = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> Services:
    found: Services = compose["services"]
    return found


def test_every_container_is_hardened_and_limited(services: Services) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name


def test_every_image_is_built_here_or_pinned(services: Services) -> None:
    for name, service in services.items():
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), name
    version = re.search(r":v(\d+)\.(\d+)", services["qdrant"]["image"])
    assert version is not None
    assert tuple(map(int, version.groups())) >= (1, 19)


def test_only_the_service_can_reach_qdrant(compose: dict[str, Any], services: Services) -> None:
    assert services["qdrant"]["networks"] == ["store"]
    assert "ports" not in services["qdrant"]
    assert compose["networks"]["store"] == {"internal": True}
    assert {name for name, s in services.items() if "store" in s["networks"]} == {
        "qdrant",
        "faceid-cpu",
        "faceid-gpu",
    }


def test_nothing_starts_before_what_it_needs_is_healthy(services: Services) -> None:
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}, name
            assert "healthcheck" in services[other], other


def test_prometheus_finds_the_service_under_either_profile(
    services: Services, deploy: Path
) -> None:
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (lookup,) = job["dns_sd_configs"]
    for name in ("faceid-cpu", "faceid-gpu"):
        assert services[name]["networks"]["monitoring"]["aliases"] == lookup["names"]
        assert services[name]["ports"][0].endswith(f":{lookup['port']}")


def test_what_is_mounted_is_there(services: Services, root: Path) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            if source.startswith("."):
                assert (root / source).is_dir(), source
                assert target.endswith(":ro")


def test_the_service_runs_under_one_of_two_profiles(services: Services, root: Path) -> None:
    profiles = {name: s["profiles"] for name, s in services.items() if "profiles" in s}
    assert profiles == {"faceid-cpu": ["cpu"], "faceid-gpu": ["gpu"]}
    assert "COMPOSE_PROFILES=cpu" in (root / ".env.example").read_text().splitlines()
    for name, device in (("faceid-cpu", "cpu"), ("faceid-gpu", "cuda")):
        assert services[name]["environment"]["FACEID_MODEL__DEVICE"] == device
        assert services[name]["build"]["args"]["VARIANT"] == device


COMPOSE = shutil.which("docker-compose")


@pytest.mark.skipif(COMPOSE is None, reason="docker-compose (Debian: docker-compose)")
def test_compose_itself_accepts_it_once_there_are_keys(root: Path, tmp_path: Path) -> None:
    for name in ("docker-compose.yml", ".env.example", "Dockerfile"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / "deploy").mkdir()
    shutil.copy(root / "deploy" / "secrets.sh", tmp_path / "deploy")

    def config() -> subprocess.CompletedProcess[str]:
        command = [str(COMPOSE), "config"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    refused = config()
    assert refused.returncode != 0
    assert "run deploy/secrets.sh first" in refused.stderr

    made = []
    for _ in range(2):
        subprocess.run(["deploy/secrets.sh"], cwd=tmp_path, check=True, capture_output=True)
        password = tmp_path / "deploy" / "secrets" / "grafana_password"
        made.append(((tmp_path / ".env").read_text(), password.read_text()))
    assert made[0] == made[1]
    environment, password_text = made[0]
    key = re.search(r"^FACEID_STORE__API_KEY=([0-9a-f]{64})$", environment, re.MULTILINE)
    assert key is not None
    assert re.fullmatch("[0-9a-f]{64}", password_text)
    assert key[1] != password_text
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert (tmp_path / "deploy" / "secrets").stat().st_mode & 0o077 == 0

    accepted = config()
    assert (accepted.returncode, accepted.stderr) == (0, "")
    resolved = yaml.safe_load(accepted.stdout)["services"]
    assert resolved["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"] == key[1]
    for name in ("faceid-cpu", "faceid-gpu"):
        environment = resolved[name]["environment"]
        assert environment["FACEID_STORE__API_KEY"] == key[1]
        assert environment["FACEID_STORE__URL"] == "http://qdrant:6333"


def test_git_never_sees_the_keys(root: Path) -> None:
    for path in (".env", "deploy/secrets/grafana_password"):
        ignored = subprocess.run(["git", "check-ignore", "--no-index", path], cwd=root, stdout=-3)
        assert ignored.returncode == 0, path
