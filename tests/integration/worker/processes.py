"""Real worker processes, as `defectoscope up` starts them, on a model whose calls take as long as a test wants."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from defectoscope.settings import Settings


@dataclass
class WorkerProcesses:
    """Starts workers on the settings of a test, and ends what is left of them."""

    settings: Settings
    directory: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    def start(self, *, call_s=0.0, **variables):
        """Start a worker; ``call_s`` is what a call of the model takes, ``variables`` are further settings."""
        log = (self.directory / f"worker-{len(self.started)}.log").open("wb")
        options = ("-Q", "control,inspection", "--without-mingle", "--without-gossip")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "--quiet", "-A", "benchmarks.slow_worker", "worker", *options],
                env=self.environment() | {"BENCH_SLEEP_S": str(call_s)} | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def environment(self):
        settings, storage = self.settings, self.settings.storage
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")},
            "DEFECTOSCOPE_CONNECTION_FILE": str(self.directory / "no-connection.env"),
            "DEFECTOSCOPE_DATABASE__URL": settings.database.url.get_secret_value(),
            "DEFECTOSCOPE_QUEUE__URL": settings.queue.url.get_secret_value(),
            "DEFECTOSCOPE_QUEUE__KEY_PREFIX": settings.queue.key_prefix,
            "DEFECTOSCOPE_STORAGE__ENDPOINT_URL": storage.endpoint_url,
            "DEFECTOSCOPE_STORAGE__REGION": storage.region,
            "DEFECTOSCOPE_STORAGE__ACCESS_KEY": storage.access_key,
            "DEFECTOSCOPE_STORAGE__SECRET_KEY": storage.secret_key.get_secret_value(),
            "DEFECTOSCOPE_STORAGE__BUCKET": storage.bucket,
            "DEFECTOSCOPE_WORKER__DEVICE": "cpu",
            "DEFECTOSCOPE_WORKER__VARIANT": "fp32",
            "DEFECTOSCOPE_WORKER__INTRA_OP_THREADS": "1",
            "DEFECTOSCOPE_WORKER__BATCH_SIZE": "2",
            "DEFECTOSCOPE_WORKER__MODEL_CACHE_DIR": str(settings.worker.model_cache_dir),
            "DEFECTOSCOPE_METRICS__WORKER_PORT": "0",
        }

    def log(self, process):
        return (self.directory / f"worker-{self.started.index(process)}.log").read_text()

    def end(self):
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)


def wait_until(condition, *, within_s=60.0, every_s=0.02):
    """Wait for what other processes do; return how long it took, seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + within_s, f"not within {within_s} s"
        time.sleep(every_s)
    return time.monotonic() - began
