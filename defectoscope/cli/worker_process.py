"""Runs a command of the worker application, which owns the inference engine, as a process of its own.

The core must not import an engine; the worker's command line is the border.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence

from defectoscope.errors.installation import ComponentMissing


def has_worker() -> bool:
    """Return whether the worker application can be started with this Python."""
    return importlib.util.find_spec("worker") is not None and importlib.util.find_spec("worker.__main__") is not None


def run_worker(arguments: Sequence[str]) -> int:
    """Run ``python -m worker`` with our standard streams and return its exit status.

    Raises:
        ComponentMissing: the worker application is not here.
    """
    if not has_worker():
        raise ComponentMissing(
            "The worker application is not installed here; run this in a checkout or in the worker's image."
        )
    process = subprocess.Popen([sys.executable, "-m", "worker", *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal sends Ctrl-C to both of us. The worker ends by itself; leaving first would orphan it.
            continue


def ask_worker(arguments: Sequence[str], *, timeout_s: float) -> tuple[int, str, str]:
    """Run ``python -m worker`` and return exit status, standard output and standard error.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
    )
    return done.returncode, done.stdout, done.stderr
