"""Each guard of ownership is needed: without it, in a copy of the package, the state machine finds what goes wrong."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.ownership.broken import find
from tests.integration.ownership.guards import GUARDS
from tests.integration.ownership.keys import without_unique_key

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Package:
    """A copy of the package, from which one thing can be taken."""

    directory: Path

    def take(self, guard):
        file = self.directory / "defectoscope" / "inspection" / guard.path
        source = file.read_text()
        assert source.count(guard.text) == 1, f"the guard is not where it was: {guard.text}"
        file.write_text(source.replace(guard.text, guard.leaving))


@pytest.fixture
def package(tmp_path):
    shutil.copytree(REPOSITORY / "defectoscope", tmp_path / "defectoscope")
    return Package(tmp_path)


@pytest.mark.parametrize("guard", [pytest.param(guard, id=guard.name) for guard in GUARDS])
def test_without_a_guard_the_machine_finds_what_goes_wrong(package, migrated_url, guard):
    package.take(guard)

    findings = find(package.directory, migrated_url)

    assert any(finding.startswith(guard.finding) for finding in findings), findings


def test_without_the_unique_key_of_results_the_machine_finds_one_twice(package, migrated_url):
    with without_unique_key(migrated_url, "results", "image_id, model_version_id, params_sha256"):
        findings = find(package.directory, migrated_url)

    assert "a result is there twice" in findings
