"""What every benchmark leaves: raw figures as JSON beside what it prints, in the same words. It measures nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_out_option(parser: argparse.ArgumentParser) -> None:
    """Let the command line name the file for the raw figures."""
    parser.add_argument("--out", type=Path, help="file for the raw figures")


def write_figures(path: Path | None, **figures: object) -> None:
    """Write raw figures, if there is a file for them."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


def met(is_met: bool) -> str:  # noqa: FBT001 -- a word for a truth value
    """Return what is said of a goal."""
    return "met" if is_met else "MISSED"
