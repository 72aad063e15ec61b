"""The state machine on a copy of the package, in a process that has imported nothing of the original."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

#: A finding ends a run, and mostly comes within the first thirty examples; more cost nothing then.
EXAMPLES = 100
TIMEOUT_S = 170
#: What takes long to import and is not ours: done once, before the processes part.
_OF_OTHERS = ["boto3", "hypothesis.stateful", "onnx", "psycopg", "sqlalchemy.orm", "structlog"]


def find(directory, url):
    """Drive the machine on the package below a directory.

    Returns:
        What it found, the last first: when a finding ends a run, letting everything come out may find more.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_OF_OTHERS)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_drive, args=(str(directory), url, sender))
    process.start()
    sender.close()
    try:
        assert receiver.poll(TIMEOUT_S), "the machine does not come to an end"
        # Nothing to receive, which is an error here: the process ended in something that is no finding.
        return receiver.recv()
    finally:
        receiver.close()
        process.terminate()
        process.join()
        process.close()


def _drive(directory, url, sender):
    sys.path.insert(0, directory)
    from tests.integration.ownership.machine import drive  # noqa: PLC0415 -- not before the path is set

    copied = sys.modules["defectoscope"].__file__
    assert Path(copied).is_relative_to(directory), f"{copied} is not the copy"
    findings = []
    try:
        drive(url, examples=EXAMPLES)
    except AssertionError as exc:
        findings.extend(_chain(exc))
    sender.send(findings)


def _chain(exc):
    while exc is not None:
        yield str(exc)
        exc = exc.__context__
