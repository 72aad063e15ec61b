"""The worker's Celery application on an engine that sleeps: ``celery -A benchmarks.slow_worker worker``.

ONNX Runtime's session is replaced, in this process alone, by one that sleeps before it runs. Nothing of the worker
knows: every thread, lease and transaction is what it is in production, and one core stands in for one GPU.
``BENCH_SLEEP_S`` says how long a call takes.
"""

from __future__ import annotations

import os
from time import sleep
from typing import Any

import onnxruntime

_SLEEP_S = float(os.environ["BENCH_SLEEP_S"])


class SleepingSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session whose calls take a while and no core."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Sleep, then run."""
        sleep(_SLEEP_S)
        return super().run(*arguments, **options)

    def run_with_iobinding(self, *arguments: Any, **options: Any) -> Any:
        """Sleep, then run."""
        sleep(_SLEEP_S)
        return super().run_with_iobinding(*arguments, **options)


onnxruntime.InferenceSession = SleepingSession

from worker.app import app  # noqa: E402 -- the session must be in place before an engine is built

__all__ = ["app"]
