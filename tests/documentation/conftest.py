from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def repository():
    return _ROOT


@pytest.fixture(scope="session")
def repository_files():
    """Every file that is in the repository or would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return [path for name in listed if name and (path := _ROOT / name).is_file()]


@pytest.fixture(scope="session")
def pages(repository_files):
    """Every Markdown page."""
    return [path for path in repository_files if path.suffix == ".md"]
