"""The HTTP API: one process, thin routes over the use cases of `defectoscope`."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the version of the installed product."""
    return metadata.version("defectoscope")
