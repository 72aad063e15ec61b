from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLATFORMS = {
    "linux-x86_64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "linux-aarch64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macos-arm64": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
PYTHONS = ["3.11", "3.12", "3.13"]
platforms = pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS.keys())
pythons = pytest.mark.parametrize("python", PYTHONS)


@pytest.fixture(scope="module")
def lock(repository):
    return (repository / "requirements.lock").read_text()


@pytest.fixture(scope="module")
def entries(lock):
    """Every pinned requirement with its hashes."""
    blocks = re.findall(r"^(\S+==[^\\\n]*(?:\\\n[^\\\n]*)+)$", lock, re.MULTILINE)
    parts = [block.split("\\\n") for block in blocks]
    return [(Requirement(head), [line.strip() for line in hashes]) for head, *hashes in parts]


@pytest.fixture(scope="module")
def direct(repository):
    """Every requirement of pyproject.toml, extras included."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for requirements in lists for text in requirements]


@pytest.fixture(scope="module")
def locked_on(entries):
    """Return name to version of what is installed on a platform."""

    def select(platform, python):
        environment = {**platform, "python_version": python, "python_full_version": f"{python}.5"}
        return {
            canonicalize_name(requirement.name): next(iter(requirement.specifier)).version
            for requirement, _ in entries
            if requirement.marker is None or requirement.marker.evaluate(environment)
        }

    return select


def test_every_line_of_the_lock_is_understood(lock, entries):
    pinned = [line for line in lock.splitlines() if line and line[0] not in " #"]

    assert len(entries) == len(pinned) > 100


def test_everything_is_pinned_with_hashes(entries):
    for requirement, hashes in entries:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", value) for value in hashes), requirement


def test_the_lock_holds_no_address(lock):
    assert "://" not in lock
    assert not re.search(r"^-", lock, re.MULTILINE)


@platforms
@pythons
def test_every_direct_dependency_is_locked_within_its_bounds(direct, locked_on, platform, python):
    locked = locked_on(platform, python)
    environment = {**platform, "python_version": python, "python_full_version": f"{python}.5"}
    wanted = [needed for needed in direct if needed.marker is None or needed.marker.evaluate(environment)]

    outside = [
        str(needed)
        for needed in wanted
        if (version := locked.get(canonicalize_name(needed.name))) is None or version not in needed.specifier
    ]

    assert outside == []


@platforms
@pythons
def test_exactly_one_onnx_runtime_is_locked(locked_on, platform, python):
    runtimes = {name for name in locked_on(platform, python) if name in {"onnxruntime", "onnxruntime-gpu"}}

    on_gpu_platform = platform == PLATFORMS["linux-x86_64"]
    assert runtimes == {"onnxruntime-gpu" if on_gpu_platform else "onnxruntime"}
