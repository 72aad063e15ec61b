"""Runs a command of the trainer application, which may import ONNX and torch, as a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence

from defectoscope.errors.installation import ComponentMissing
from defectoscope.errors.models import PlainExportRefused


def convert_to_plain(arguments: Sequence[str]) -> str:
    """Run ``python -m trainer plain`` and return what it printed, one JSON object.

    Raises:
        ComponentMissing: the trainer application is not here.
        PlainExportRefused: the model cannot be converted; the message is the trainer's.
    """
    if importlib.util.find_spec("trainer") is None or importlib.util.find_spec("trainer.__main__") is None:
        raise ComponentMissing(
            "The trainer application is not installed here; run this in a checkout or in the trainer's image."
        )
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "plain", *arguments],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        last_line = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it gave no reason")
        raise PlainExportRefused(last_line.removeprefix("error: "))
    return done.stdout
