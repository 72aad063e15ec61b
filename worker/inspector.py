"""The worker's use cases, one method a task: each opens what it needs from `defectoscope` and says how it ended."""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from threading import Event

import structlog

from defectoscope import connect
from defectoscope.crash_points import CrashPoint, crash_point
from defectoscope.errors import NotNow
from defectoscope.errors.engine import ProviderUnavailable
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.inspection.chunks import ClaimedChunk, claim_next_chunk
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.enumeration import enumerate_job
from defectoscope.inspection.leases import Lease, Release, release_chunk
from defectoscope.inspection.reconciliation import reconcile
from defectoscope.nights import NightPlan, hold_night
from defectoscope.queue import ring_for_chunks
from defectoscope.registry import reconcile_imports
from defectoscope.settings import Settings
from defectoscope.storage import open_s3
from defectoscope.training import reconcile_runs
from worker import metrics
from worker.champion import ChampionWatch
from worker.collecting import collect_some
from worker.counting import count_completed
from worker.departure import Departure, LaneWatch
from worker.lease import EnumerationWord, Leases
from worker.line import InspectionLine
from worker.log_context import about_chunk, about_job
from worker.stages import stage

log = structlog.get_logger(__name__)

#: How a claim that is given back is counted.
_OUTCOME_OF = {Release.STOPPED: "released", Release.POSTPONED: "postponed", Release.BROKEN: "broken"}


class Inspector:
    """One process's worth of connections, loaded models and threads."""

    def __init__(self, settings: Settings) -> None:
        """Prepare every part; nothing connects and no model is loaded yet.

        Raises:
            SettingMissing: a server's address is not set.
        """
        self._settings = settings
        self._stopping = Event()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._database = connect.open_database(settings)
        self._queue = connect.open_queue(settings, name="worker")
        self._storage = open_s3(connect.s3_config(settings))
        self._buckets = connect.open_input_buckets(settings, own=self._storage)
        self._leases = Leases(database=self._database, lease_s=settings.inspection.lease_s)
        self._departure = Departure(database=self._database, before=self._stopping.set)
        self._line = InspectionLine(
            settings,
            database=self._database,
            storage=self._storage,
            buckets=self._buckets,
            on_lost=lambda exc: self._departure.begin(exc.message),
        )
        self._champion_watch = ChampionWatch(
            database=self._database,
            models=self._line.models,
            lane=self._line.lane,
            owner=self._owner,
            interval_s=settings.worker.champion_interval_s,
        )
        self._lane_watch = LaneWatch(
            lane=self._line.lane, departure=self._departure, stuck_after_s=settings.worker.stuck_after_s
        )

    def watch_champion(self) -> None:
        """Keep the model in service loaded from now on, and see that the lane moves."""
        self._champion_watch.start()
        self._lane_watch.start()

    def process_next_chunk(self) -> bool:
        """Claim the chunk whose turn it is, inspect its images and write what came out.

        One chunk and no more, so that enumerations and housekeeping get their turn on the same threads. The doorbell is
        passed on before the work begins: while anything is owed there is one for the next thread, whatever becomes of
        this one. A doorbell that finds nothing ends here.

        Returns:
            Whether a chunk was claimed.
        """
        inspection = self._settings.inspection
        try:
            chunk = claim_next_chunk(
                database=self._database,
                owner=self._owner,
                lease_s=inspection.lease_s,
                max_attempts=inspection.max_attempts,
                backoff=connect.backoff(self._settings),
            )
        except DatabaseUnavailable as exc:
            # Nothing is held, or a lease that runs out by itself.
            log.warning("chunk.postponed", code=exc.code, reason=exc.message)
            self._pause()
            ring_for_chunks(self._queue, chunks=1)
            return False
        if chunk is None:
            log.debug("chunk.none_owed")
            return False
        crash_point(CrashPoint.CHUNK_CLAIMED)
        ring_for_chunks(self._queue, chunks=1)
        crash_point(CrashPoint.DOORBELL_PASSED_ON)
        with about_chunk(chunk):
            self._work_on(chunk)
        return True

    def _work_on(self, chunk: ClaimedChunk) -> None:
        ended = False
        why = Release.BROKEN
        try:
            with self._departure.holding(chunk), self._leases.holding(chunk) as held:
                outcomes = self._line.inspect(
                    chunk, is_wanted=lambda: held.state is Lease.HELD and not self._stopping.is_set()
                )
            # A process that is asked to stop gives unfinished work back rather than to make its supervisor wait.
            if len(outcomes) == len(chunk.items) or held.state is not Lease.HELD:
                self._complete(chunk, outcomes, held.state)
                ended = True
            why = Release.STOPPED
        except (NotNow, ProviderUnavailable) as exc:
            # A server or this machine's GPU is away. Not the chunk's fault: it is owed again, the attempt not counted.
            why = Release.POSTPONED
            log.warning("chunk.postponed", code=exc.code, reason=exc.message)
        finally:
            if not ended:
                self._release(chunk, why)
        if why is Release.POSTPONED:
            # Given back first: another worker may have what this one lacks.
            self._pause()
            # Whoever was rung for the chunk while it rested has found nothing.
            ring_for_chunks(self._queue, chunks=1)

    def _pause(self) -> None:
        """Keep this thread from claiming chunk after chunk while a server it needs is away."""
        self._stopping.wait(self._settings.worker.retry_pause_s)

    def _complete(self, chunk: ClaimedChunk, outcomes: list[ItemOutcome], lease: Lease) -> None:
        is_ours = lease is not Lease.LOST
        if is_ours:
            crash_point(CrashPoint.CHUNK_INSPECTED)
            with stage("commit"):
                is_ours = complete_chunk(
                    database=self._database,
                    chunk=chunk,
                    outcomes=outcomes,
                    stopped=lease is Lease.STOPPED,
                    storage=self._storage,
                )
            crash_point(CrashPoint.CHUNK_COMMITTED)
        if not is_ours:
            metrics.lease_losses_total.inc()
            metrics.chunks_total.labels("lost").inc()
            log.warning("chunk.lost")
            return
        metrics.chunks_total.labels("stopped" if lease is Lease.STOPPED else "completed").inc()
        count_completed(outcomes)
        failed = sum(outcome.error is not None for outcome in outcomes)
        log.info("chunk.completed", images=len(outcomes), failed=failed)

    def _release(self, chunk: ClaimedChunk, why: Release) -> None:
        metrics.chunks_total.labels(_OUTCOME_OF[why]).inc()
        fault = None
        if why is Release.BROKEN:
            # An error that nobody foresaw is on its way up. It is no business of this method what becomes of it there.
            error = sys.exc_info()
            fault = None if error[0] is None else error[0].__name__
            log.error("chunk.broken", fault=fault, exc_info=error)
        try:
            release_chunk(
                database=self._database, chunk=chunk, why=why, fault=fault, backoff=connect.backoff(self._settings)
            )
        except DatabaseUnavailable as exc:
            # The lease will run out by itself.
            log.warning("chunk.not_released", reason=exc.message)

    def enumerate_job(self, job_id: int) -> None:
        """Write the items of a job whose images are not all known."""
        inspection = self._settings.inspection
        word = EnumerationWord(database=self._database, job_id=job_id, interval_s=inspection.resend_after_s / 3)
        try:
            with about_job(job_id), word:
                enumerate_job(
                    database=self._database,
                    queue=self._queue,
                    buckets=self._buckets,
                    limits=connect.archive_limits(self._settings),
                    max_manifest_bytes=inspection.max_manifest_bytes,
                    job_id=job_id,
                    chunk_size=inspection.chunk_size,
                )
        except NotNow as exc:
            log.warning("enumeration.postponed", job=job_id, code=exc.code, reason=exc.message)
        # While enumerations waited they counted as doorbells, and nobody rang for chunks.
        ring_for_chunks(self._queue, chunks=1)

    def reconcile(self) -> None:
        """Ring again for everything that is owed and held by nobody."""
        inspection = self._settings.inspection
        try:
            reconcile(
                database=self._database,
                queue=self._queue,
                resend_after_s=inspection.resend_after_s,
                max_attempts=inspection.max_attempts,
                backoff=connect.backoff(self._settings),
                chunk_size=inspection.chunk_size,
            )
            reconcile_runs(
                database=self._database,
                queue=self._queue,
                resend_after_s=inspection.resend_after_s,
                max_attempts=self._settings.trainer.max_attempts,
            )
            reconcile_imports(
                database=self._database,
                queue=self._queue,
                resend_after_s=inspection.resend_after_s,
                max_attempts=self._settings.trainer.max_attempts,
            )
        except DatabaseUnavailable as exc:
            log.warning("reconciliation.postponed", reason=exc.message)

    def collect_objects(self) -> None:
        """Go on deleting stored objects that nothing refers to, if it is time to."""
        collect_some(
            self._settings,
            database=self._database,
            storage=self._storage,
            queue=self._queue,
            owner=self._owner,
        )

    def start_night(self) -> None:
        """Ask for tonight's training run, or write down why there is none."""
        night = self._settings.night
        if night.dataset is None:
            log.warning("night.no_dataset", setting="DEFECTOSCOPE_NIGHT__DATASET")
            return
        plan = NightPlan(
            dataset=night.dataset,
            config={"preset": night.preset, "start": night.start, **night.recipe},
            min_new_labels=night.min_new_labels,
            timezone=night.timezone,
            clock_offset=timedelta(seconds=night.clock_offset_s),
        )
        try:
            held = hold_night(database=self._database, queue=self._queue, plan=plan)
        except DatabaseUnavailable as exc:
            log.error("night.missed", reason=exc.message)  # noqa: TRY400 -- a server that is away needs no trace
            return
        if held is not None:
            log.info("night.held", night=str(held.night), state=held.state.value, reason=held.reason)

    def request_stop(self) -> None:
        """Have chunks in work end between two batches and be given back."""
        self._stopping.set()

    def stop_process(self, *, at_once: bool) -> None:
        """Have chunks in work given back, and see that the process ends: in its grace time, or at once."""
        self.request_stop()
        grace_s = self._settings.worker.stop_grace_s
        if at_once:
            self._departure.begin("The process was told to end at once.", why=Release.STOPPED, grace_s=min(1, grace_s))
        else:
            self._departure.begin_after(grace_s, f"The process has not ended within its {grace_s:g} s.")

    def close(self) -> None:
        """Let the threads end and close the connections."""
        self._lane_watch.end()
        self._champion_watch.end()
        self._leases.end()
        self._line.close()
        self._database.close()
