"""Processes that die at a crash point, and what a test needs around them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from defectoscope.crash_points import VARIABLE, CrashPoint
from defectoscope.queue import Message
from defectoscope.queue.messages import CONTROL_QUEUE, RECONCILE
from defectoscope.settings import ENVIRONMENT_PREFIX, Settings

_DIES_WITHIN_S = 60.0
_RING_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Crasher:
    """Starts processes on the settings of a test, one point armed."""

    settings: Settings
    directory: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, point: CrashPoint | None, *argv: str, **environment: str) -> subprocess.Popen[str]:
        self.started.append(
            subprocess.Popen(
                [sys.executable, *argv],
                env=self._environment(point) | environment,
                cwd=self.directory,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self.started[-1]

    def end(self) -> None:
        """Leave nothing behind, whatever became of the test."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def start_worker(self, point: CrashPoint | None) -> subprocess.Popen[str]:
        """Start a worker as `defectoscope up` does."""
        options = ("-Q", "control,inspection", "-n", f"{point}@%h", "--without-mingle", "--without-gossip")
        return self.start(point, "-m", "celery", "--quiet", "-A", "worker.app", "worker", *options)

    def wait_for_death(self, process: subprocess.Popen[str], point: CrashPoint, *, queue: object) -> None:
        """Ring as beat does until the process is dead, and see that it died where it should."""
        deadline = time.monotonic() + _DIES_WITHIN_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"it never came to {point}:\n{process.communicate()[0]}")
            queue.send([Message(RECONCILE, CONTROL_QUEUE)])
            try:
                process.wait(_RING_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
        self.see_death(process, point)

    def see_death(self, process: subprocess.Popen[str], point: CrashPoint) -> None:
        output, _ = process.communicate(timeout=_DIES_WITHIN_S)
        assert process.returncode == -signal.SIGKILL, output
        assert f"died at {point}" in output

    def _environment(self, point: CrashPoint | None) -> dict[str, str]:
        settings = self.settings
        ours = {
            "DATABASE__URL": settings.database.url.get_secret_value(),
            "QUEUE__URL": settings.queue.url.get_secret_value(),
            "QUEUE__KEY_PREFIX": settings.queue.key_prefix,
            "STORAGE__ENDPOINT_URL": settings.storage.endpoint_url,
            "STORAGE__REGION": settings.storage.region,
            "STORAGE__ACCESS_KEY": settings.storage.access_key,
            "STORAGE__SECRET_KEY": settings.storage.secret_key.get_secret_value(),
            "STORAGE__BUCKET": settings.storage.bucket,
            "INSPECTION__CHUNK_SIZE": str(settings.inspection.chunk_size),
            "INSPECTION__LEASE_S": str(settings.inspection.lease_s),
            "WORKER__DEVICE": "cpu",
            "WORKER__INTRA_OP_THREADS": "1",
            "WORKER__MODEL_CACHE_DIR": str(settings.worker.model_cache_dir),
            "METRICS__API_PORT": "0",
            "METRICS__WORKER_PORT": "0",
            "CONNECTION_FILE": str(self.directory / "none.env"),
        }
        armed = {} if point is None else {VARIABLE: point.value}
        return {
            **os.environ,
            **{ENVIRONMENT_PREFIX + name: value for name, value in ours.items()},
            **armed,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
        }
