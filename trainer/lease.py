"""Holds a training run while it is worked on: renews its lease, reports stages and figures, and lets go of it, always.

Whoever leaves the block by an exception leaves an ended run behind, under the exception's own name; or, where going on
from the last checkpoint can help (a stop was asked for, a server is away), a run that is owed again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from defectoscope.database import Database
from defectoscope.errors import DefectoscopeError, NotNow
from defectoscope.errors.installation import DatabaseUnavailable, Unexpected
from defectoscope.errors.training import TrainerLost, TrainingInterrupted
from defectoscope.training import (
    ClaimedRun,
    add_stage_seconds,
    complete_run,
    fail_run,
    record_figures,
    record_metrics,
    release_run,
    report_stage,
)
from trainer.interruption import Interruption

log = structlog.get_logger(__name__)

#: Renewals in the time of one lease: three may be lost before it runs out.
_RENEWALS = 4
#: A cancellation is noticed within this time, seconds.
_LONGEST_INTERVAL_S = 5.0


def name_owner() -> str:
    """Return who holds the lease, for people: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class RunLease:
    """A claimed run. An `Observer` of the build: stages and figures become rows, a lost lease or a stop ends it."""

    def __init__(
        self, run: ClaimedRun, *, database: Database, lease_s: int, max_attempts: int, interruption: Interruption
    ) -> None:
        """Hold a run.

        Args:
            run: freshly claimed.
            database: holds the run.
            lease_s: how long silence is taken for work.
            max_attempts: claims of a run before it is given up.
            interruption: whether a stop was asked for.
        """
        self._run = run
        self._max_attempts = max_attempts
        self._database = database
        self._lease_s = lease_s
        self._interruption = interruption
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._stage: str | None = None
        self._stage_began_s = 0.0

    @contextmanager
    def held(self) -> Iterator[RunLease]:
        """Renew the lease in the background, and end the run when the block is left.

        Raises:
            DefectoscopeError: what the block raised, after the run was ended by it.
        """
        renewal = threading.Thread(target=self._renew, name="lease-renewal", daemon=True)
        renewal.start()
        failure: DefectoscopeError | None = None
        failed = True
        try:
            yield self
            failed = False
        except DefectoscopeError as exc:
            failure = exc
            raise
        finally:
            # Reached by every exception, named or not: no run may stay `running` because of a bug.
            self._ended.set()
            renewal.join()
            self._end_stage()
            if failed:
                # A stop can surface as anything: a process that lost its helpers complains about those.
                self._let_go(failure or (TrainingInterrupted() if self._interruption.is_told else Unexpected()))
        if complete_run(database=self._database, run=self._run):
            log.info("training_run.succeeded", run_id=self._run.run_id)

    def stage(self, name: str) -> None:
        """Report a stage.

        Raises:
            TrainerLost: the run was given up meanwhile.
            TrainingInterrupted: a stop was asked for.
        """
        self.check()
        self._end_stage()
        if not report_stage(database=self._database, run=self._run, stage=name, lease_s=self._lease_s):
            self._lost.set()
        self._stage, self._stage_began_s = name, time.monotonic()
        self.check()
        log.info("training_run.stage", run_id=self._run.run_id, stage=name)

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Record the figures of an epoch."""
        record_metrics(database=self._database, run=self._run, epoch=epoch, values=figures)
        log.info("training_run.epoch", run_id=self._run.run_id, epoch=epoch, **figures)

    def found(self, figures: dict[str, Any]) -> None:
        """Record what the run found."""
        record_figures(database=self._database, run=self._run, figures=figures)

    def check(self) -> None:
        """Go on, or not.

        Raises:
            TrainerLost: the run was given up meanwhile.
            TrainingInterrupted: a stop was asked for.
        """
        if self._lost.is_set():
            raise TrainerLost("The run was given up while this trainer worked on it; its lease had run out.")
        self._interruption.check()

    def _end_stage(self) -> None:
        """Write down how long the present stage took; without the database it is not, which spoils no run."""
        stage, self._stage = self._stage, None
        if stage is None:
            return
        seconds = time.monotonic() - self._stage_began_s
        try:
            add_stage_seconds(database=self._database, run=self._run, stage=stage, seconds=seconds)
        except DatabaseUnavailable as exc:
            log.warning("training_run.stage_not_timed", run_id=self._run.run_id, stage=stage, reason=exc.message)

    def _renew(self) -> None:
        while not self._ended.wait(min(self._lease_s / _RENEWALS, _LONGEST_INTERVAL_S)):
            try:
                if not report_stage(database=self._database, run=self._run, stage=None, lease_s=self._lease_s):
                    self._lost.set()
                    return
            except DatabaseUnavailable as exc:
                # The lease lasts for three further attempts.
                log.warning("training_run.lease_not_renewed", run_id=self._run.run_id, reason=exc.message)

    def _let_go(self, failure: DefectoscopeError) -> None:
        interrupted = isinstance(failure, TrainingInterrupted)
        owed_again = interrupted or (isinstance(failure, NotNow) and self._run.attempts < self._max_attempts)
        try:
            if owed_again:
                recorded = release_run(database=self._database, run=self._run, count_attempt=not interrupted)
            else:
                recorded = fail_run(database=self._database, run=self._run, error=failure)
        except DatabaseUnavailable as exc:
            # The lease will run out by itself.
            log.warning("training_run.end_not_recorded", run_id=self._run.run_id, reason=exc.message)
            return
        log.log(
            logging.WARNING if owed_again else logging.ERROR,
            "training_run.given_back" if owed_again else "training_run.failed",
            run_id=self._run.run_id,
            code=failure.code,
            reason=failure.message,
            recorded=recorded,
        )
