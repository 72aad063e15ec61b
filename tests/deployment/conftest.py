"""What a container engine would make of docker-compose.yml and deploy/Dockerfile, as far as no engine is needed."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).resolve().parents[2]


class _ComposeLoader(yaml.SafeLoader):
    """YAML with compose's tag that takes a value of the file below away."""


_ComposeLoader.add_constructor("!reset", lambda _loader, _node: None)


def _load(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(), Loader=_ComposeLoader)  # noqa: S506 - a SafeLoader with one more tag


@pytest.fixture(scope="session")
def repository():
    return _ROOT


@pytest.fixture(scope="session")
def compose():
    """docker-compose.yml as it is written, anchors resolved, variables not."""
    return _load(_ROOT / "docker-compose.yml")


@pytest.fixture(scope="session")
def services(compose):
    return compose["services"]


@pytest.fixture(scope="session")
def cpu_override():
    return _load(_ROOT / "deploy" / "docker-compose.cpu.yml")


@pytest.fixture(scope="session")
def interpolate():
    """Replace `${NAME:?…}`, `${NAME:-default}` and `$$` as compose does, in every text of a value."""
    pattern = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?P<kind>:[?-])(?P<rest>[^}]*)\})")

    def replaced(value, variables):
        if isinstance(value, dict):
            return {key: replaced(item, variables) for key, item in value.items()}
        if isinstance(value, list):
            return [replaced(item, variables) for item in value]
        if not isinstance(value, str):
            return value

        def text(match):
            if match["name"] is None:
                return "$"
            return variables[match["name"]] if match["kind"] == ":?" else variables.get(match["name"], match["rest"])

        return pattern.sub(text, value)

    return replaced


@dataclass
class Stage:
    """A stage of the Dockerfile: what it starts from, and its instructions in order."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name):
        return [rest for instruction, rest in self.instructions if instruction == name]

    def copied_from_context(self):
        """(source, target) of everything that comes from the repository."""
        pairs = []
        for rest in self.all("COPY"):
            words = shlex.split(rest)
            if not words[0].startswith("--from="):
                pairs += [(source, words[-1]) for source in words[:-1]]
        return pairs


@pytest.fixture(scope="session")
def stages():
    """The stages of deploy/Dockerfile by name."""
    lines = [line for line in (_ROOT / "deploy" / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = rest.split()
            found[name] = stage = Stage(base)
        else:
            stage.instructions.append((instruction, rest))
    return found
