"""A whole system, started as a person starts it, and the command line to talk to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from defectoscope.samples import generate_samples

#: A training that takes seconds: what it learns does not matter, what becomes of it does.
TINY_TRAINING = (
    *("--preset", "quick", "--set", "epochs=1", "--set", "batch_size=4", "--set", "input_size_wh=[64,64]"),
    *("--set", "time_budget_s=20"),
)


@dataclass
class System:
    """A running `defectoscope up`, and its commands."""

    data_dir: Path
    environment: dict[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self.log_path.touch()
        seen = self.log_path.stat().st_size
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "defectoscope", "up", "--data-dir", str(self.data_dir), "--port", "0"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while b" ready at " not in self.log_path.read_bytes()[seen:]:
            assert self.process.poll() is None, self.log_path.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log_path.read_text()[-3000:]
            time.sleep(0.1)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "defectoscope", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=170,
        )

    def ask(self, *arguments: str, status: int = 0) -> Any:
        answer = self.run(*arguments, "--json")
        assert answer.returncode == status, answer.stderr
        return json.loads(answer.stdout)

    def process_ids(self, module: str = "") -> list[int]:
        """Processes of this system: all of them, or those that run `python -m MODULE`."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            ours = self.environment["DEFECTOSCOPE_CONNECTION_FILE"] in environment
            if ours and (not module or command.startswith(f"{sys.executable} -m {module}")):
                found.append(int(entry.name))
        return found


@pytest.fixture(scope="session")
def make_system(
    make_data_dir: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., System]]:
    systems: list[System] = []

    def make(**settings: str) -> System:
        directory = tmp_path_factory.mktemp("system")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")}
        environment = {
            **clean,
            "DEFECTOSCOPE_CONNECTION_FILE": str(directory / "connection.env"),
            "DEFECTOSCOPE_WORKER__MODEL_CACHE_DIR": str(directory / "models"),
            "DEFECTOSCOPE_TRAINER__WORK_DIR": str(directory / "training"),
            **settings,
        }
        system = System(make_data_dir(), environment, directory / "up.log")
        systems.append(system)
        return system

    yield make
    for system in systems:
        if system.process is not None and system.process.poll() is None:
            system.stop()


@pytest.fixture(scope="session")
def system(make_system: Callable[..., System], tmp_path_factory: pytest.TempPathFactory) -> System:
    """A system with short leases, an allowed input bucket and a first model version in service."""
    started = make_system(
        DEFECTOSCOPE_INSPECTION__LEASE_S="4",
        DEFECTOSCOPE_INSPECTION__RECONCILE_INTERVAL_S="2",
        DEFECTOSCOPE_INSPECTION__CHUNK_SIZE="4",
        DEFECTOSCOPE_STORAGE__INPUT_BUCKETS="incoming,nowhere",
    )
    started.start()
    training = tmp_path_factory.mktemp("training")
    generate_samples(training, count=24, seed=5)
    started.ask("datasets", "import", str(training), "--name", "samples")
    run = started.ask("training", "start", "--dataset", "samples", *TINY_TRAINING, "--watch")
    assert run["state"] == "succeeded"
    if started.ask("models", "history")["in_service"] is None:
        # The gate refuses what has learned so little, and rightly. Here any model will do.
        started.ask("models", "promote", str(run["model_version"]), "--reason", "any model will do")
    return started
