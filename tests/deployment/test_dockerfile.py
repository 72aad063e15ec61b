from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

IMAGES = {
    "api": {"defectoscope", "api"},
    "worker": {"defectoscope", "worker"},
    "trainer": {"defectoscope", "trainer"},
    "migrate": {"defectoscope", "migrations", "pyproject.toml"},
}
every_image = pytest.mark.parametrize("image", IMAGES)


@every_image
def test_an_image_gets_its_own_folders_and_the_core_only(stages, image):
    copied = stages[image].copied_from_context()

    assert {source for source, _ in copied} == IMAGES[image]
    assert all(target == f"/srv/{source}" for source, target in copied)


def test_everything_copied_exists_and_is_let_into_the_build(stages, repository):
    sources = {source for stage in stages.values() for source, _ in stage.copied_from_context()}
    ignore = [line for line in (repository / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    let_in = {line.removeprefix("!").rstrip("/") for line in ignore if line.startswith("!")}

    assert ignore[0] == "*"
    assert sources == let_in
    assert all((repository / source).exists() for source in sources)
    assert "**/__pycache__/" in ignore


@every_image
def test_an_image_does_not_run_as_root(stages, image):
    assert stages[image].all("USER") == ["10001:10001"]
    assert stages[image].instructions[-2][0] == "USER"


@every_image
def test_an_image_starts_what_its_service_starts(stages, services, image):
    assert [json.loads(command) for command in stages[image].all("CMD")] == [services[image]["command"]]
    assert services[image]["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile", "target": image}


def test_beat_shares_the_image_of_the_trainer(services):
    assert services["beat"]["image"] == services["trainer"]["image"]
    assert services["beat"]["build"] == services["trainer"]["build"]


def test_the_only_foreign_base_is_a_pinned_python_that_the_package_supports(stages, repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    (foreign,) = {stage.base for stage in stages.values()} - set(stages)

    version = re.fullmatch(r"python:(3\.\d+)-slim", foreign)[1]

    lowest, highest = re.fullmatch(r">=(3\.\d+),<(3\.\d+)", project["requires-python"]).groups()
    assert int(lowest[2:]) <= int(version[2:]) < int(highest[2:])


@pytest.mark.parametrize(
    ("image", "extras"), [("api", ["api"]), ("worker", ["worker"]), ("trainer", ["trainer"]), ("migrate", [])]
)
def test_an_image_installs_its_own_extra_and_nothing_unlocked(stages, repository, image, extras):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    (install,) = stages[f"{image}-packages"].all("RUN")
    environment = " ".join(stages["packages"].all("ENV"))

    asked = re.findall(r"--extra (\w+)", install)

    assert asked == extras
    assert set(asked) <= set(project["optional-dependencies"])
    assert install.startswith("$INSTALL")
    assert "--require-hashes --constraint requirements.lock" in environment
    assert f"COPY --from={image}-packages" in " ".join(
        f"{name} {rest}" for name, rest in stages[image].instructions if "/opt/venv" in rest
    )


def test_uv_is_cut_out_of_the_lock_with_its_hashes(stages, repository):
    command = next(rest for rest in stages["packages"].all("RUN") if rest.startswith("sed"))
    script = re.match(r"sed -n '(?P<script>[^']+)' requirements\.lock", command)["script"]

    lines = subprocess.run(
        ["sed", "-n", script, "requirements.lock"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.splitlines()

    assert re.fullmatch(r"uv==[\d.]+ \\", lines[0])
    assert len(lines) > 1
    assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:])
    assert not lines[-1].endswith("\\")


def test_an_image_knows_the_version_of_the_product(repository, tmp_path):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    script = Path("deploy") / "write_version.py"

    subprocess.run([sys.executable, str(script), "pyproject.toml", str(tmp_path)], cwd=repository, check=True)

    (found,) = metadata.distributions(path=[str(tmp_path)])
    assert (found.name, found.version) == (project["name"], project["version"])
