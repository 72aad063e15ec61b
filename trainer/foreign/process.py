"""Wraps a foreign file in a process of its own, which the operating system holds to its limits and may lose.

What reads, infers shapes and compiles a graph is native code, and the file comes from anywhere: a crash, an endless
constant fold or a graph that eats all memory ends that process and becomes a named error here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from defectoscope.errors.catalogue import from_json
from defectoscope.errors.models import InvalidModel, ModelCheckCrashed, ModelCheckTimeout
from trainer.foreign.limits import FileLimits, ProcessLimits
from trainer.foreign.wrap import ForeignFacts, WrapReport

_MODULE = "trainer.foreign"


def wrap_in_process(
    path: Path,
    *,
    out: Path,
    facts: ForeignFacts,
    limits: FileLimits | None = None,
    process_limits: ProcessLimits | None = None,
) -> WrapReport:
    """Do what `wrap_foreign` does, in a limited process.

    Args:
        path: the foreign file.
        out: the file to write; complete or absent.
        facts: what the foreign file does not say.
        limits: what it may weigh.
        process_limits: what its check may use.

    Raises:
        InvalidModel: one of its kinds says why the file is refused.
        ModelCheckTimeout: the process took too long and was ended.
        ModelCheckCrashed: the process ended without an answer.
    """
    process_limits = process_limits or ProcessLimits()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".wrap-") as scratch:
        made = Path(scratch, "model.onnx").absolute()
        order = {
            "path": str(path.absolute()),
            "out": str(made),
            "facts": asdict(facts),
            "limits": asdict(limits or FileLimits()),
            "max_memory_bytes": process_limits.max_memory_bytes,
            "max_cpu_s": _cpu_seconds(process_limits.timeout_s),
        }
        answer = _ask(order, timeout_s=process_limits.timeout_s)
        if "error" in answer:
            raise from_json(answer["error"], unknown=InvalidModel)
        made.replace(out)
    return WrapReport.from_json({**answer["report"], "path": str(out)})


def _ask(order: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    try:
        done = subprocess.run(  # noqa: S603 -- our own interpreter and module
            [sys.executable, "-m", _MODULE],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
            # No secret of this process is the business of a file from outside.
            env={name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")},
        )
    except subprocess.TimeoutExpired as exc:
        raise ModelCheckTimeout(timeout_s=timeout_s) from exc
    if done.returncode == -signal.SIGXCPU:
        raise ModelCheckTimeout(timeout_s=timeout_s)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as exc:
        raise ModelCheckCrashed(exit_status=done.returncode) from exc
    return answer


def _cpu_seconds(timeout_s: float) -> int:
    """Return the processor time that no honest check exceeds: every core busy until the timeout."""
    return max(1, int(timeout_s * (os.cpu_count() or 1)))
