"""Dashboard, alerts and scrape configuration against what the three applications really serve over HTTP."""

from __future__ import annotations

import json
import re
import socket
from contextlib import ExitStack, closing
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import api.metrics
import trainer.figures
import trainer.metrics
import worker.metrics
from defectoscope.database import DatasetRevision
from defectoscope.metrics import GpuMemory, open_figures, serve_metrics
from defectoscope.training import add_stage_seconds, claim_run, record_metrics, report_stage, request_training

#: Of Prometheus itself, for every target.
OWN_METRICS = {"up"}
#: Set by Prometheus on everything that it reads.
OWN_LABELS = {"job", "instance"}
METRIC = re.compile(r"\b(?:defectoscope|process)_\w+|\bup\b")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
DRIVER = """#!/bin/sh
echo '0, NVIDIA H200, 1024, 143771'
"""


@pytest.fixture
def training(database, queue):
    """A training run that is worked on."""
    with database.transaction() as session:
        revision = DatasetRevision(name="d", number=1, sha256="0" * 64, manifest_key="k", train_count=1, val_count=1)
        session.add(revision)
        session.flush()
        run_id = request_training(session=session, queue=queue, dataset_revision_id=revision.id, config={})
    run = claim_run(database=database, run_id=run_id, owner="trainer", lease_s=60)
    report_stage(database=database, run=run, stage="training", lease_s=60)
    record_metrics(database=database, run=run, epoch=1, values={"val_iou_best": 0.5, "images_per_s": 9.0})
    add_stage_seconds(database=database, run=run, stage="data", seconds=2.0)


@pytest.fixture
def served(settings, training, tmp_path, monkeypatch):
    """The families that each application serves, by application, with a driver that shows one GPU."""
    (tmp_path / "nvidia-smi").write_text(DRIVER)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    worker.metrics.show_model_version(3, variant="fp32", provider="CPUExecutionProvider")
    api.metrics.observe_request(method="GET", route="/v1/jobs", status=200, seconds=0.01)
    with ExitStack() as open_until_read:
        of_api, of_trainer = (
            open_until_read.enter_context(
                closing(open_figures(settings, families=module.FAMILIES, read=module.read_figures))
            )
            for module in (api.metrics, trainer.figures)
        )
        collectors = {
            "api": [api.metrics.REGISTRY, of_api],
            "worker": [worker.metrics.REGISTRY, GpuMemory()],
            "trainer": [trainer.metrics.REGISTRY, of_trainer, GpuMemory()],
        }
        return {name: families_of(open_until_read, collected) for name, collected in collectors.items()}


def families_of(until_read, collectors):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    exposition = until_read.enter_context(closing(serve_metrics(collectors, host="127.0.0.1", port=port)))
    with urlopen(exposition.url, timeout=20) as answer:  # noqa: S310 -- our own address
        return list(text_string_to_metric_families(answer.read().decode()))


@pytest.fixture
def series(served):
    """Name of a series to the labels it may have, over all applications."""
    return {
        f"{family.name}{suffix}": {label for sample in family.samples for label in sample.labels}
        for families in served.values()
        for family in families
        for suffix in SUFFIXES.get(family.type, ("",))
    }


@pytest.fixture(scope="session")
def dashboard(repository):
    return json.loads((repository / "deploy" / "grafana" / "defectoscope.json").read_text())


@pytest.fixture(scope="session")
def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="session")
def alerts(repository):
    groups = yaml.safe_load((repository / "deploy" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.fixture(scope="session")
def expressions(dashboard, panels, alerts):
    """Everything that is asked of Prometheus, by where it stands."""
    asked = {f"panel {panel['title']}": [target["expr"] for target in panel["targets"]] for panel in panels}
    asked |= {
        f"variable {variable['name']}": [variable["query"]["query"]]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }
    asked |= {f"alert {name}": [rule["expr"]] for name, rule in alerts.items()}
    return {place: " ; ".join(texts) for place, texts in asked.items()}


def test_every_application_answers_with_figures_of_its_own(served):
    names = {application: {family.name for family in families} for application, families in served.items()}

    assert "defectoscope_images" in names["worker"]
    assert "defectoscope_http_request_seconds" in names["api"]
    assert "defectoscope_training_runs" in names["trainer"]
    assert all("process_resident_memory_bytes" in found for found in names.values())
    up = [
        sample.value
        for name in ("api", "trainer")
        for family in served[name]
        if family.name.endswith("_up")
        for sample in family.samples
    ]
    assert up == [1.0, 1.0]


def test_every_metric_that_is_asked_for_is_served(expressions, series):
    unknown = {
        place: names
        for place, text in expressions.items()
        if (names := set(METRIC.findall(text)) - series.keys() - OWN_METRICS)
    }

    assert len(expressions) > 40
    assert unknown == {}


def test_every_label_that_is_asked_for_is_served(expressions, series):
    unknown = []
    for place, text in expressions.items():
        for name, selector in re.findall(r"(\w+)\{([^}]*)\}", text):
            asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            if name in series and (wrong := asked - series[name] - OWN_LABELS):
                unknown.append((place, name, wrong))
        known = {label for name in METRIC.findall(text) for label in series.get(name, ())} | OWN_LABELS | {"le"}
        for grouping in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", text):
            unknown += [(place, grouping, label) for label in re.findall(r"\w+", grouping) if label not in known]

    assert unknown == []


def test_the_dashboard_shows_every_metric_of_ours(served, expressions):
    shown = {name for place, text in expressions.items() if place.startswith("panel") for name in METRIC.findall(text)}
    missing = [
        family.name
        for families in served.values()
        for family in families
        if family.name.startswith("defectoscope_")
        and not shown & {f"{family.name}{suffix}" for suffix in SUFFIXES[family.type]}
    ]

    assert missing == []


def test_a_misspelt_metric_would_be_found(series):
    assert "defectoscope_images_total" in series
    assert "defectoscope_pictures_total" not in series


def test_the_dashboard_can_be_imported(dashboard, panels):
    ids = [panel["id"] for panel in dashboard["panels"]]
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    covered = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert dashboard["uid"] == "defectoscope"
    assert dashboard["id"] is None
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    assert len(set(ids)) == len(ids)
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) < 24
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_every_alert_says_what_is_wrong_and_where_to_read_on(alerts):
    assert {"QueueOld", "LeaseLosses", "NoWorker", "ApiErrors", "NightFailed"} <= alerts.keys()
    for name, rule in alerts.items():
        anchor = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert re.fullmatch(r"[A-Z].*\.", rule["annotations"]["summary"])
        assert rule["annotations"]["description"].endswith(".")
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{anchor}"


def test_prometheus_reads_every_application_where_it_serves(repository, services, settings):
    config = yaml.safe_load((repository / "deploy" / "prometheus.yml").read_text())

    targets = {
        job["job_name"]: (found["names"], found["port"])
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
    }

    assert targets == {
        name: ([name], getattr(settings.metrics, f"{name}_port")) for name in ("api", "worker", "trainer")
    }
    assert config["rule_files"] == ["alerts.yml"]
    assert all(services[name]["environment"]["DEFECTOSCOPE_METRICS__HOST"] == "0.0.0.0" for name in targets)  # noqa: S104


def test_grafana_finds_prometheus_and_the_dashboard_where_they_are_mounted(repository, services):
    folder = repository / "deploy" / "grafana"
    (source,) = yaml.safe_load((folder / "datasource.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards.yml").read_text())["providers"]
    mounted = dict(volume.removesuffix(":ro").split(":") for volume in services["grafana"]["volumes"])

    assert source["url"] == "http://prometheus:9090"
    assert mounted["./deploy/grafana/defectoscope.json"] == f"{provider['options']['path']}/defectoscope.json"
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].startswith(
        provider["options"]["path"]
    )
