"""`make ci` keeps the boundaries: each contract is broken here once, on a copy, and must be the only one to say so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = ["defectoscope", "api", "worker", "trainer"]

#: The file that is added, what it says, and the contract it breaks.
VIOLATIONS = {
    "an-application-imports-another": ("api/violation.py", "import worker.engine\n", "Three processes, no shortcuts"),
    "the-core-imports-an-engine": (
        "defectoscope/segmentation/violation.py",
        "import torch\n",
        "The core knows no process and no engine",
    ),
    "a-lower-layer-imports-an-upper": (
        "defectoscope/segmentation/violation.py",
        "import defectoscope.inspection.jobs\n",
        "Layers of the core",
    ),
    "a-module-without-a-layer": ("defectoscope/utils.py", "", "Layers of the core"),
    "storage-is-spoken-to-elsewhere": (
        "trainer/violation.py",
        "import boto3\n",
        "Object storage is spoken to in one place",
    ),
}


@pytest.fixture
def copy(repository, tmp_path):
    for name in PACKAGES:
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def check_contracts(directory):
    """Return the exit status and the verdict on every contract."""
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"],
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
    )
    return run.returncode, dict(re.findall(r"^(.+) (KEPT|BROKEN)$", run.stdout, re.MULTILINE))


@pytest.fixture(scope="session")
def contract_names(repository):
    configuration = tomllib.loads((repository / "pyproject.toml").read_text())
    return [contract["name"] for contract in configuration["tool"]["importlinter"]["contracts"]]


def test_the_code_keeps_every_contract(copy, contract_names):
    status, verdicts = check_contracts(copy)

    assert status == 0
    assert verdicts == dict.fromkeys(contract_names, "KEPT")


@pytest.mark.parametrize(("place", "code", "contract"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_violation_breaks_its_contract_and_no_other(copy, contract_names, place, code, contract):
    (copy / place).write_text(f'"""A violation."""\n\n{code}')

    status, verdicts = check_contracts(copy)

    assert status == 1
    assert verdicts == {**dict.fromkeys(contract_names, "KEPT"), contract: "BROKEN"}


def test_every_contract_has_a_violation_above(contract_names):
    assert {contract for _, _, contract in VIOLATIONS.values()} == set(contract_names)


def test_make_ci_checks_the_contracts(repository):
    makefile = (repository / "Makefile").read_text()

    (needed,) = re.findall(r"^ci:(.*?)(?:##.*)?$", makefile, re.MULTILINE)
    (recipe,) = re.findall(r"^contracts:.*\n\t(.*)$", makefile, re.MULTILINE)

    assert "contracts" in needed.split()
    assert "lint-imports" in recipe
