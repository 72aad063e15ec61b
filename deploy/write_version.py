# ruff: noqa: INP001 - a script of the image build, no package
"""Writes the metadata by which an image knows the version of the product: name and version of pyproject.toml.

An image holds the source folders as they are. Building a wheel only for its metadata would need a build backend, which
requirements.lock does not hold. Refuses to know anything else about the package.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def write_version(pyproject: Path, directory: Path) -> Path:
    """Make ``NAME-VERSION.dist-info`` in a directory of the import path.

    Args:
        pyproject: The project file.
        directory: Where the packages lie.

    Returns:
        The directory made.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    information = directory / f"{project['name']}-{project['version']}.dist-info"
    information.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(metadata, encoding="utf-8")
    return information


if __name__ == "__main__":
    write_version(Path(sys.argv[1]), Path(sys.argv[2]))
