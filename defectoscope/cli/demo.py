"""`defectoscope demo`: the main job from nothing, by the commands that a person would type.

Each step is the real command in a process of its own against a real `defectoscope up`; the demo only types, and at the
end checks what came out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from defectoscope.errors.installation import ServerStartFailed

_PREFIX = "DEFECTOSCOPE_"
#: Seeds of two sets that share no picture.
_TRAINING_SEED = 1
_BATCH_SEED = 2
_TRAINING_IMAGES = 240
_BATCH_IMAGES = 40
#: On two free cores the recipe needs 130 s. On a busy machine it does fewer epochs, so that the demo stays short.
_TRAINING_BUDGET_S = 200
#: Pooled defect IoU on unseen samples below which the demo has failed. A random start reaches about 0.6.
_LEAST_IOU = 0.5
_START_TIMEOUT_S = 60


def demo(
    out: Annotated[Path, typer.Option(help="Directory for masks, overlays and the demo's log.")] = Path("demo-output"),
) -> None:
    """Train on drawn samples, inspect 40 unseen images, and print what was found, on servers of its own."""
    started = time.monotonic()
    out = out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(prefix="defectoscope-demo-"))
    # When we are root, PostgreSQL runs as another account, which has to get to its own directory below this one.
    scratch.chmod(0o711)
    try:
        with _running_stack(scratch, out / "up.log") as shell:
            problems = _tell_the_story(shell, scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"\nMasks and overlays: {out}\nStart it for real:  make up")
    print(f"The demo took {time.monotonic() - started:.0f} s.")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


class _Shell:
    """Types commands of `defectoscope` and shows them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def type(self, *arguments: str) -> None:
        """Run a command in view; it ends the demo when it fails."""
        print(f"\n$ defectoscope {' '.join(arguments)}", flush=True)
        status = self._run(*arguments, capture=False).returncode
        if status:
            raise typer.Exit(status)

    def ask(self, *arguments: str) -> Any:
        """Run a command with `--json` and return its answer."""
        answer = self._run(*arguments, "--json", capture=True)
        if answer.returncode:
            sys.stderr.write(answer.stderr)
            raise typer.Exit(answer.returncode)
        return json.loads(answer.stdout)

    def _run(self, *arguments: str, capture: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "defectoscope", *arguments],
            env=self._environment,
            capture_output=capture,
            text=True,
            check=False,
        )


def _tell_the_story(shell: _Shell, scratch: Path, out: Path) -> list[str]:
    training, batch = scratch / "training", scratch / "batch"
    shell.type("samples", "generate", str(training), "--count", str(_TRAINING_IMAGES), "--seed", str(_TRAINING_SEED))
    shell.type("datasets", "import", str(training), "--name", "samples")
    shell.type(
        *("training", "start", "--dataset", "samples", "--preset", "quick"),
        *("--set", f"time_budget_s={_TRAINING_BUDGET_S}", "--watch"),
    )
    shell.type("models", "history")
    shell.type(
        *("samples", "generate", str(batch), "--count", str(_BATCH_IMAGES)),
        *("--seed", str(_BATCH_SEED), "--layout", "flat"),
    )
    shell.type("jobs", "submit", str(batch), "--name", "demo", "--overlays", "all", "--watch")
    job_id = str(shell.ask("jobs", "list")["items"][0]["id"])
    shell.type("defects", "list", "--job", job_id, "--largest", "10")
    shell.type("results", "download", "--job", job_id, "--out", str(out), "--what", "both")
    return _check(shell.ask("jobs", "show", job_id))


def _check(job: dict[str, Any]) -> list[str]:
    """Return what is wrong with the finished job, in sentences."""
    problems = []
    succeeded = job["images"]["succeeded"]
    if succeeded != _BATCH_IMAGES:
        problems.append(f"{succeeded} of {_BATCH_IMAGES} images have a result.")
    scores = job["qa"]
    if scores is None or scores["images"] != _BATCH_IMAGES:
        problems.append("Not every image was scored against its label.")
    elif scores["pooled"]["iou_defect"] < _LEAST_IOU:
        problems.append(f"The pooled defect IoU is {scores['pooled']['iou_defect']:.3f}, below {_LEAST_IOU}.")
    return problems


@contextmanager
def _running_stack(scratch: Path, log_path: Path) -> Iterator[_Shell]:
    """Run `defectoscope up` on a data directory of its own while the demo lasts.

    Raises:
        ServerStartFailed: it was not ready in time.
    """
    connection_file = scratch / "connection.env"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
    environment |= {f"{_PREFIX}CONNECTION_FILE": str(connection_file)}
    for section in ("WORKER__MODEL_CACHE_DIR", "TRAINER__WORK_DIR"):
        environment[_PREFIX + section] = str(scratch / section.lower())
    print(f"Starting PostgreSQL, Valkey, SeaweedFS, API, worker, trainer and beat (log: {log_path}) ...", flush=True)
    with log_path.open("w") as log:
        stack = subprocess.Popen(
            [sys.executable, "-m", "defectoscope", "up", "--data-dir", str(scratch / "data"), "--port", "0"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(stack, log_path)
            yield _Shell(environment)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait()


def _wait_until_ready(stack: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while " ready at " not in log_path.read_text():
        if stack.poll() is not None or time.monotonic() > deadline:
            raise ServerStartFailed(f"The servers did not start; see {log_path}.")
        time.sleep(0.2)
