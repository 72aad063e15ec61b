"""`defectoscope version`: which version this is."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed_version

from defectoscope.cli.output import print_json, say
from defectoscope.cli.session import JsonOption


def version(as_json: JsonOption = False) -> None:
    """Print the version of Defectoscope."""
    number = installed_version("defectoscope")
    if as_json:
        print_json({"version": number, "python": platform.python_version()})
    else:
        say(f"defectoscope {number}")
