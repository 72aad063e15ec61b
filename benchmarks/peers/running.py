"""Starts peers: makes their environments, hands them their work, and writes down what they say and what they use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import IO, Any

from benchmarks.peers.steps import Work
from benchmarks.processes import cpu_s

_CHECKOUT = Path(__file__).resolve().parents[2]
_READY_S = 300.0
_DONE_S = 3600.0
_END_S = 60.0
_LOG_LINES = 15


class PeerFailed(Exception):
    """A peer cannot be installed, did not get ready or did not finish; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Something to be compared with.

    Attributes:
        name: as the table has it.
        module: of `benchmarks.peers`; its requirements lie beside it where it does not run in our own environment.
        needs_shared_python: starts a Python of its own, which must find the shared library of ours.
        is_fp32: runs the fp32 network; the others run the file that the worker runs.
    """

    name: str
    module: str
    needs_shared_python: bool = False
    is_fp32: bool = False

    @property
    def requirements(self) -> Path | None:
        """The pinned packages of its own environment; None where ours will do."""
        path = Path(__file__).with_name(f"requirements-{self.module}.txt")
        return path if path.exists() else None


PEERS = (
    Peer(name="notebook loop, PyTorch", module="notebook", is_fp32=True),
    Peer(name="the same, small batches", module="notebook_batches", is_fp32=True),
    Peer(name="one after another, Pillow", module="pillow_loop"),
    Peer(name="Celery, one image a task", module="celery_single"),
    Peer(name="Ray Data map_batches", module="ray_data"),
    Peer(name="Triton (pytriton)", module="triton", needs_shared_python=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One run of one side.

    Attributes:
        seconds: of the timed part.
        cpu_s: that its processes used in it; those of the storage and the database are not among them.
        versions: of the packages that matter.
    """

    seconds: float
    cpu_s: float
    versions: dict[str, str]


def make_environment(peer: Peer, *, directory: Path) -> Path:
    """Return the interpreter of a peer; its environment is installed when it is not there or its pins have changed.

    Args:
        peer: whose.
        directory: keeps the environments, one below it for each peer.

    Raises:
        PeerFailed: it cannot be installed; the message ends with what the installer said.
    """
    requirements = peer.requirements
    if requirements is None:
        return Path(sys.executable)
    home = (directory / peer.module).absolute()
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    installed = home / "installed"
    if installed.exists() and installed.read_text() == wanted:
        return python
    uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if uv is None:
        raise PeerFailed(f"{peer.name} needs uv to be installed; `make setup` brings it.")
    for command in (
        (uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)),
        (uv, "pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements)),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- ours, as built above
        if done.returncode:
            raise PeerFailed(f"{peer.name} cannot be installed here: {done.stderr.strip()}")
    installed.write_text(wanted)
    return python


def run_peer(peer: Peer, work: Work, *, python: Path, environment: Mapping[str, str], log: Path) -> Turn:
    """Run a peer once, from its start to its end.

    Args:
        peer: which.
        work: what it is to do.
        python: from `make_environment`.
        environment: its secrets and where the broker is.
        log: file for what it and its libraries print.

    Raises:
        PeerFailed: it ended early or took too long; the message ends with the last lines of its log.
    """
    variables = {**os.environ, **environment, "PYTHONPATH": str(_CHECKOUT)}
    if peer.needs_shared_python:
        variables["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR") or ""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own module
            [str(python), "-m", f"benchmarks.peers.{peer.module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=variables,
            cwd=_CHECKOUT,
            text=True,
            bufsize=1,
        )
    assert process.stdin is not None  # noqa: S101 -- asked for above
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(work.to_json() + "\n")
        ready = _read(peer, process.stdout, within_s=_READY_S, log=log)
        used_before = cpu_s(process.pid)
        process.stdin.write("go\n")
        result = _read(peer, process.stdout, within_s=_DONE_S, log=log)
        used = cpu_s(process.pid) - used_before
        process.stdin.close()
        process.wait(_END_S)
    except (BrokenPipeError, subprocess.TimeoutExpired) as exc:
        raise PeerFailed(f"{peer.name}: {exc}. {_last_lines(log)}") from exc
    finally:
        _end(process)
    if result["images"] != len(work.keys):
        raise PeerFailed(f"{peer.name} did {result['images']} of {len(work.keys)} images.")
    return Turn(seconds=result["seconds"], cpu_s=used, versions=ready["versions"])


def _read(peer: Peer, answers: IO[str], *, within_s: float, log: Path) -> dict[str, Any]:
    with DefaultSelector() as selector:
        selector.register(answers, EVENT_READ)
        if not selector.select(within_s):
            raise PeerFailed(f"{peer.name} said nothing within {within_s:.0f} s. {_last_lines(log)}")
    line = answers.readline()
    if not line:
        raise PeerFailed(f"{peer.name} ended early. {_last_lines(log)}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Have a peer end if it has not, and close what led to it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        # What was written to somebody who is gone cannot be delivered.
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()


def _last_lines(log: Path) -> str:
    return "Its log ends with:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
