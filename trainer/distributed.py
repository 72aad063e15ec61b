"""Several processes for one training, one for each device, and what travels between them and the one that asked.

The parent trains nothing: it hears of epochs and checkpoints, tells its caller, and asks it whether to go on. A child
holds nothing that is not in the work directory, written whole or not at all; so a stop ends the children where they
stand, and the last checkpoint is what a kill would have left too. Lightning's own ways to start processes are not used:
one would run the trainer's command line again and claim the run twice, the other hides its children's ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess, parent_process
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import distributed, multiprocessing, nn

from defectoscope.errors import DefectoscopeError
from defectoscope.errors.training import TrainingFailed
from trainer.arrays import SampleSet
from trainer.checkpoint import Progress, read_checkpoint
from trainer.epochs import run_epochs
from trainer.failures import named_failures
from trainer.hardware import available_cores
from trainer.network import create_network
from trainer.plan import Plan, Reporter
from trainer.weights import copy_weights, save_weights, try_to_load

log = structlog.get_logger(__name__)

_START_NAME = "start.safetensors"
_MEETING_NAME = "meeting"
#: How often the parent asks whether to go on while it hears nothing.
_POLL_S = 0.2
#: How long a process waits for the others in a step; one that is killed is noticed by the parent at once.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class _Epoch:
    epoch: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class _CheckpointWritten:
    path: Path
    epoch: int


@dataclass(frozen=True, slots=True)
class _Finished:
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Failed:
    kind: type[DefectoscopeError]
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Work:
    plan: Plan
    train: SampleSet
    val: SampleSet
    resume_from: Path | None


def run_epochs_among_processes(
    network: nn.Module,
    *,
    plan: Plan,
    train: SampleSet,
    val: SampleSet,
    reporter: Reporter,
    resume_from: Path | None = None,
) -> Progress:
    """Train as `run_epochs` does, in as many processes as the plan says, and wait for their end.

    Args:
        network: gives the weights to start from; it is not changed. It is the one that the recipe describes.
        plan: for every process.
        train: sent to every process.
        val: likewise.
        reporter: called in this process.
        resume_from: a checkpoint of this training that was read once without complaint.

    Raises:
        TrainingFailed: a process ended by itself, or the loss is not a number any more.
        DefectoscopeError: whatever a process or the reporter raised; no process is left then.
    """
    save_weights(copy_weights(network), plan.work_dir / _START_NAME, config=plan.config)
    (plan.work_dir / _MEETING_NAME).unlink(missing_ok=True)
    work = _Work(plan, train, val, resume_from)
    context = multiprocessing.get_context("spawn")
    connections: list[Connection[Any, Any]] = []
    processes: list[SpawnProcess] = []
    try:
        for rank in range(plan.world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_train, args=(rank, work, theirs), name=f"training-{rank}")
            process.start()
            # Only the child holds its end now, so that the pipe ends when it does.
            theirs.close()
            connections.append(ours)
            processes.append(process)
        return _follow(connections, processes, reporter=reporter)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for connection in connections:
            connection.close()


def _follow(
    connections: Sequence[Connection[Any, Any]], processes: Sequence[BaseProcess], *, reporter: Reporter
) -> Progress:
    """Hear the children until each has finished; give what the first one says."""
    progress: dict[int, Progress] = {}
    while len(progress) < len(connections):
        waited_for = {connections[rank]: rank for rank in range(len(connections)) if rank not in progress}
        heard = wait(list(waited_for), timeout=_POLL_S)
        reporter.check()
        for connection, rank in waited_for.items():
            if connection not in heard:
                continue
            message = _receive(connection)
            if message is None:
                raise _lost(processes[rank], rank)
            if isinstance(message, _Failed):
                raise message.kind(message.message, **message.details)
            if isinstance(message, _Finished):
                progress[rank] = message.progress
            elif isinstance(message, _Epoch):
                reporter.epoch(message.epoch, message.figures)
            elif isinstance(message, _CheckpointWritten):
                reporter.checkpoint(message.path, message.epoch)
                # The child waits for this: it would overwrite the file with that of the next epoch.
                connection.send(message.epoch)
    return progress[0]


def _receive(connection: Connection[Any, Any]) -> object | None:
    with suppress(EOFError, ConnectionResetError):
        message: object = connection.recv()
        return message
    return None


def _lost(process: BaseProcess, rank: int) -> TrainingFailed:
    process.join()
    return TrainingFailed(
        f"Training process {rank} ended by itself, with status {process.exitcode}; "
        "a negative number is the signal that ended it, -9 most often for want of memory.",
        rank=rank,
        status=process.exitcode,
    )


class _ByPipe:
    """Tells the parent. It asks nothing: the parent ends this process when it is to stop."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        self._connection.send(_Epoch(epoch, figures))

    def checkpoint(self, path: Path, epoch: int) -> None:
        self._connection.send(_CheckpointWritten(path, epoch))
        self._connection.recv()

    def check(self) -> None:
        """Go on."""


def _train(rank: int, work: _Work, connection: Connection[Any, Any]) -> None:
    """Be one process of a training, from its start to its end."""
    _end_with_parent()
    torch.set_num_threads(max(1, available_cores() // work.plan.world))
    try:
        with named_failures():
            progress = _meet_and_train(rank, work, _ByPipe(connection))
    except DefectoscopeError as exc:
        connection.send(_Failed(type(exc), exc.message, exc.details))
    else:
        connection.send(_Finished(progress))
    connection.close()


def _meet_and_train(rank: int, work: _Work, reporter: Reporter) -> Progress:
    plan = work.plan
    network = create_network(plan.config)
    try_to_load(network, plan.work_dir / _START_NAME, config=plan.config)
    resume = None
    if work.resume_from is not None:
        resume = read_checkpoint(work.resume_from, fingerprint=plan.fingerprint)
    device = torch.device("cuda", rank) if plan.device_type == "cuda" else None
    # They meet over a file: no port has to be free, and nothing outside can join.
    distributed.init_process_group(
        "nccl" if device else "gloo",
        init_method=(plan.work_dir / _MEETING_NAME).absolute().as_uri(),
        rank=rank,
        world_size=plan.world,
        timeout=_PATIENCE,
        device_id=device,
    )
    try:
        return run_epochs(
            network, plan=plan, train=work.train, val=work.val, reporter=reporter, rank=rank, resume=resume
        )
    finally:
        distributed.destroy_process_group()


def _end_with_parent() -> None:
    """Leave stops to the parent, and do not outlive it."""
    # A terminal sends its signals to children as well; they would break off where the parent wants an orderly end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
