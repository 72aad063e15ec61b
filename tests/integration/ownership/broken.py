"""The state machine on a copy of the package, in a process that has imported nothing of the original."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

#: A finding ends a run, and mostly comes within the first thirty examples; more cost nothing then.
EXAMPLES = 100
#: What takes long to import and is not ours: done once, before the processes part.
_OF_OTHERS = ["boto3", "hypothesis.stateful", "onnx", "psycopg", "sqlalchemy.orm", "structlog"]


def open_processes():
    """Return an executor with a fresh process for each call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_OF_OTHERS)
    return ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1)


def find(directory, url):
    """Drive the machine on the package below a directory.

    Returns:
        What it found, the last first: when a finding ends a run, letting everything come out may find more.
    """
    sys.path.insert(0, directory)
    from tests.integration.ownership.machine import drive  # noqa: PLC0415 -- not before the path is set

    copied = sys.modules["defectoscope"].__file__
    assert Path(copied).is_relative_to(directory), f"{copied} is not the copy"
    findings = []
    try:
        drive(url, examples=EXAMPLES)
    except AssertionError as exc:
        findings.extend(_chain(exc))
    return findings


def _chain(exc):
    while exc is not None:
        yield str(exc)
        exc = exc.__context__
