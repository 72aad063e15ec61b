from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from api.app import create_app
from defectoscope.settings import ENVIRONMENT_PREFIX, Settings

OURS = ["migrate", "api", "worker", "trainer", "beat"]
SERVERS = ["postgres", "valkey", "seaweedfs"]
MONITORING = ["prometheus", "grafana"]
SECRETS = ["POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"]
every_service = pytest.mark.parametrize("name", OURS + SERVERS + MONITORING)


def texts(value):
    """Every text within a value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def variables(value):
    """(name, operator) of every variable that a value asks compose for."""
    found = [re.findall(r"(?<!\$)\$\{(\w+)([^}]{0,2})", text) for text in texts(value)]
    return {pair for pairs in found for pair in pairs}


def known_settings(model: type[BaseModel], prefix: str) -> set[str]:
    names: set[str] = set()
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names |= known_settings(inner, f"{prefix}{name.upper()}__")
        else:
            names.add(f"{prefix}{name.upper()}")
    return names


def test_the_file_holds_our_processes_and_their_servers(services):
    assert set(services) == {*OURS, *SERVERS, *MONITORING}


@every_service
def test_every_service_is_confined(services, name):
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "network_mode" not in service
    assert set(service.get("cap_add", [])) <= ({"CHOWN", "SETGID", "SETUID"} if name == "seaweedfs" else set())


@every_service
def test_every_service_has_an_end_and_bounded_logs(services, name):
    service = services[name]

    assert re.fullmatch(r"\d+s", service["stop_grace_period"])
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@every_service
def test_every_service_is_watched_or_runs_once(services, name):
    service = services[name]
    waiting = [
        other
        for other, facts in services.items()
        if facts.get("depends_on", {}).get(name) == {"condition": "service_completed_successfully"}
    ]

    if name == "migrate":
        assert service["restart"] == "no"
        assert sorted(waiting) == ["api", "beat", "trainer", "worker"]
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert {"interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


@pytest.mark.parametrize("name", ["api", "worker", "trainer", "beat"])
def test_our_processes_start_after_healthy_servers(services, name):
    conditions = {server: services[name]["depends_on"][server]["condition"] for server in SERVERS}

    assert set(conditions.values()) == {"service_healthy"}


@every_service
def test_ports_are_published_on_loopback_only(services, name):
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port) for port in services[name].get("ports", []))


def test_only_the_api_the_storage_and_the_dashboard_are_published(services):
    published = {name for name, service in services.items() if "ports" in service}

    assert published == {"api", "seaweedfs", "grafana"}
    assert {name for name, service in services.items() if "edge" not in service["networks"]} == {
        "migrate",
        "postgres",
        "valkey",
        *MONITORING,
    }


def test_monitoring_is_asked_for_by_name_and_is_on_no_network_with_a_server(services, compose):
    assert {name for name, service in services.items() if service.get("profiles") == ["monitoring"]} == set(MONITORING)
    assert {name for name, service in services.items() if "profiles" in service} == set(MONITORING)
    assert {name for name, service in services.items() if "monitoring" in service["networks"]} == {
        "api",
        "worker",
        "trainer",
        *MONITORING,
    }
    assert [services[name]["networks"] for name in MONITORING] == [["monitoring"]] * 2


@pytest.mark.parametrize("name", SERVERS + MONITORING)
def test_images_of_others_are_pinned(services, name):
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?", services[name]["image"])


@every_service
def test_volumes_are_declared_or_read_only_files_of_the_repository(services, compose, repository, name):
    for volume in services[name].get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            assert (repository / source).is_file()
            assert rest.endswith(":ro")
        else:
            assert source in compose["volumes"]


def test_every_secret_must_be_given(compose):
    asked = variables(compose["services"])

    assert {name for name, operator in asked if operator == ":?"} == set(SECRETS)
    assert {operator for name, operator in asked if name in SECRETS} == {":?"}
    assert {operator for _, operator in asked} <= {":?", ":-"}


@every_service
def test_no_secret_is_written_down(services, name):
    for variable, value in services[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|ACCESS_KEY", variable):
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), variable
        elif address := re.search(r"//(?P<login>[^@/]*)@", value):
            assert re.fullmatch(r"(defectoscope)?:\$\{\w+:\?[^}]+\}", address["login"]), variable


@every_service
def test_no_secret_reaches_a_command_line(services, name):
    service = services[name]

    assert variables({key: service.get(key) for key in ("command", "entrypoint", "healthcheck")}) == set()


def test_the_example_environment_explains_every_secret_and_gives_none(repository):
    paragraphs = (repository / "deploy" / "env.example").read_text().strip().split("\n\n")[1:]

    lines = [paragraph.splitlines() for paragraph in paragraphs]

    assert [name for _, name in lines] == [f"{secret}=" for secret in SECRETS]
    assert all(re.fullmatch(r"# [A-Z].*\.", sentence) for sentence, _ in lines)


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_ours_is_a_known_setting(services, cpu_override, name):
    given = {**services[name]["environment"], **cpu_override["services"].get(name, {}).get("environment", {})}

    assert set(given) <= known_settings(Settings, ENVIRONMENT_PREFIX)


def test_the_api_may_listen_on_the_addresses_it_is_given(services, interpolate, monkeypatch):
    environment = interpolate(services["api"]["environment"], dict.fromkeys(SECRETS, "abc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    settings = Settings(_env_file=None)
    app = create_app(settings)

    assert (settings.api.host, settings.api.port) == ("0.0.0.0", 8000)  # noqa: S104 - the host publishes loopback only
    assert app.title == "Defectoscope"


def test_worker_and_trainer_reserve_a_gpu_and_refuse_to_start_without(services):
    for name in ("worker", "trainer"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]

        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu", "compute", "utility"]}
        assert services[name]["environment"][f"{ENVIRONMENT_PREFIX}{name.upper()}__DEVICE"] == "cuda"


def test_the_override_for_hosts_without_gpu_takes_every_reservation_away(services, cpu_override):
    reserving = {name for name, service in services.items() if "deploy" in service}

    assert cpu_override["services"].keys() == reserving
    for name, service in cpu_override["services"].items():
        assert service == {"deploy": None, "environment": {f"{ENVIRONMENT_PREFIX}{name.upper()}__DEVICE": "cpu"}}
