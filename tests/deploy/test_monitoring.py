"""Scraping, rules, alerts and dashboard: held to what the service exports, and to Prometheus."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.service import running

PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus)"
)
KEYWORDS = {"and", "or", "unless", "offset", "bool"}


@pytest.fixture(scope="module")
def rules(deploy: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((deploy / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard(deploy: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (deploy / "grafana" / "dashboards" / "faceid.json").read_text()
    )
    return loaded


@pytest.fixture(scope="module")
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def queries(panels: list[dict[str, Any]]) -> list[str]:
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [query.replace("$__rate_interval", "1m") for query in found]


def series(query: str) -> set[str]:
    """The series a PromQL expression reads."""
    query = re.sub(r"\{[^{}]*(\{[^{}]*\}[^{}]*)*\}|\[[^\]]*\]", "", query)
    query = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", "", query)
    words = re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])", query)
    return set(words) - KEYWORDS


def test_every_query_reads_what_is_there(
    exported: set[str], rules: list[dict[str, Any]], queries: list[str]
) -> None:
    known = exported | {rule["record"] for rule in rules if "record" in rule} | {"up"}
    for query in [rule["expr"] for rule in rules] + queries:
        assert series(query), query
        assert series(query) <= known, query


def test_no_two_panels_share_an_id(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_the_dashboard_shows_every_metric_of_our_own(
    exported: set[str], rules: list[dict[str, Any]], queries: list[str]
) -> None:
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    shown = set().union(*map(series, queries))
    for name in shown & set(recorded):
        shown |= series(recorded[name])
    families = {
        re.sub(r"_(total|bucket|sum|count|created)$", "", name)
        for name in exported
        if name.startswith("faceid_")
    }
    seen = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown}
    assert families - seen == set()


def test_every_alert_is_seen_to_fire_and_to_keep_quiet(
    rules: list[dict[str, Any]], deploy: Path
) -> None:
    fires, quiet = set(), set()
    for file in (deploy / "prometheus").glob("rules_*test.yml"):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                (fires if check["exp_alerts"] else quiet).add(check["alertname"])
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert fires == alerts
    assert quiet == alerts


@PROMTOOL
def test_promtool_accepts_configuration_rules_and_their_tests(deploy: Path) -> None:
    folder = deploy / "prometheus"
    for arguments in (
        ["check", "config", "--lint=all", "--lint-fatal", folder / "prometheus.yml"],
        ["check", "rules", "--lint=all", "--lint-fatal", folder / "rules.yml"],
        ["test", "rules", *sorted(folder.glob("rules_*test.yml"))],
    ):
        judged = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
        assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.fixture
def prometheus(deploy: Path, tmp_path: Path, hopper: bytes, group: bytes) -> Iterator[httpx.Client]:
    """Prometheus with our configuration, but for where it looks and how often."""
    poor = {"min_eye_distance_px": 100}  # so that there is a warning to count
    with running(tmp_path / "store", enrolment=poor) as service, socket.socket() as free:
        service.post("/persons/grace/faces", files={"image": hopper})
        service.post("/persons/grace/faces", files={"image": group})
        config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(deploy / "prometheus" / "rules.yml")]
        (job,) = config["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [service.base_url.netloc.decode()]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        free.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*free.getsockname())
        free.close()
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'series'}",
                f"--web.listen-address={address}",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://{address}/api/v1") as client:
                wait_for(client, 'up{job="faceid"} == 1')
                for _ in range(2):
                    service.post("/identify", files={"image": group})
                wait_for(client, 'faceid_decisions_total{decision="match"} == 2')
                wait_for(client, "faceid:probes:increase1d > 0")
                # A rate needs two looks.
                looks = 'count_over_time(faceid_http_requests_total{route="/identify"}[1m])'
                wait_for(client, f"{looks} >= 3")
                yield client
        finally:
            process.terminate()
            process.wait()


def answer(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    response = client.get("/query", params={"query": query})
    assert response.status_code == 200, response.text
    result: list[dict[str, Any]] = response.json()["data"]["result"]
    return result


def wait_for(client: httpx.Client, query: str) -> None:
    for _ in range(300):
        try:
            response = client.get("/query", params={"query": query})
            # 503 until it is ready.
            if response.status_code != 503 and response.json()["data"]["result"]:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"Prometheus never saw {query}")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian: prometheus")
def test_prometheus_scrapes_the_service_and_answers_the_dashboard(
    prometheus: httpx.Client, queries: list[str]
) -> None:
    for query in queries:
        found = answer(prometheus, query)
        # A process of a minute has nothing to say of last week.
        if "offset 7d" not in query and "offset7d" not in query:
            assert found, query
    rules = prometheus.get("/rules").json()["data"]["groups"]
    healths = {rule["name"]: rule["health"] for group in rules for rule in group["rules"]}
    assert set(healths.values()) == {"ok"}, healths
    firing = [rule["name"] for group in rules for rule in group["rules"] if rule.get("alerts")]
    assert firing == []
