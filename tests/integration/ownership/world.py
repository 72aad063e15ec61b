"""What workers, people, time and the reconciler do to the real database, and what a state machine believes of it.

The clock is that of the rows: time passes by moving what they say of leases and rests into the past. What is believed
is little: which claims were made, when they run out, and what became of them. It is held against what happens on the
spot; nothing here asks a row for its token.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import text

from defectoscope.errors import Conflict
from defectoscope.inspection.backoff import Backoff
from defectoscope.inspection.chunks import ATTEMPTS_BEFORE_SPLIT, ClaimedChunk, claim_next_chunk
from defectoscope.inspection.completion import complete_chunk
from defectoscope.inspection.leases import Lease, Release, look_after, release_chunk
from defectoscope.inspection.quarantine import note_suspect
from defectoscope.inspection.reconciliation import reconcile
from defectoscope.queue import MemoryQueue, ring_for_chunks
from tests.integration.inspection.scene import Scene, add_model_version

LEASE_S = 60
MAX_ATTEMPTS = 3
BACKOFF = Backoff(first_s=40, longest_s=200)
#: No rest is shorter than half of the first one, 20 s; a call may take a while to come back.
LEAST_REST_S = 15
#: More than the longest lease and the longest rest.
AGES_S = 600

TABLES = ("jobs", "chunks", "job_items", "results", "defects")
FINAL = {"succeeded", "partial", "failed", "cancelled"}
OWED = {"pending", "running"}

_EMPTY = text(f"TRUNCATE {', '.join(TABLES)}, images, model_versions, quarantined_images RESTART IDENTITY CASCADE")
_ALL_OF = ", ".join(f"'{name}', (SELECT coalesce(json_agg(r ORDER BY r.id), '[]') FROM {name} r)" for name in TABLES)  # noqa: S608 -- made of constants
_ROWS = text(f"SELECT json_build_object({_ALL_OF})")


@dataclass(eq=False)
class Claim:
    """A claim as its worker remembers it, long after others may have taken it over."""

    chunk: ClaimedChunk
    runs_out_at: float
    is_over: bool = False


class World(RuleBasedStateMachine):
    """One database with jobs in it, and whoever may do something to their chunks."""

    database = None

    def __init__(self):
        super().__init__()
        with self.database.transaction() as session:
            session.execute(_EMPTY)
            # Whose turn it is among equals is drawn by lot, and the lot is part of the seed. Nobody waits for the disk:
            # what is lost when PostgreSQL itself dies is not asked here.
            session.execute(text("SELECT setseed(0.5), set_config('synchronous_commit', 'off', false)"))
        self.queue = MemoryQueue()
        self.scene = Scene(database=self.database, queue=self.queue, model_version_id=add_model_version(self.database))
        self.passed_s = -monotonic()
        self.claims = []
        #: Claims of a chunk that count against it.
        self.tries = Counter()
        self.rests_until = {}

    @property
    def now(self):
        """Seconds. A machine that is slow, or stands still, makes the rows older than their moves alone."""
        return self.passed_s + monotonic()

    def rows(self):
        """Return all rows of every table, in the order of their ids."""
        with self.database.transaction() as session:
            return session.scalars(_ROWS).one()

    # What a worker does.

    def make_claim(self):
        before = self.rows()
        chunk = claim_next_chunk(
            database=self.database, owner="worker", lease_s=LEASE_S, max_attempts=MAX_ATTEMPTS, backoff=BACKOFF
        )
        if chunk is None:
            return None
        claim = Claim(chunk, runs_out_at=self.now + LEASE_S)
        (job,) = (job for job in before["jobs"] if job["id"] == chunk.job_id)
        (row,) = (row for row in before["chunks"] if row["id"] == chunk.chunk_id)
        assert not job["paused_at"], "a paused job was claimed"
        assert not job["cancel_requested_at"], "a cancelled job was claimed"
        assert not job["stopped_at"], "a stopped job was claimed"
        assert self.rests_until.pop(chunk.chunk_id, 0) <= self.now, "a chunk was claimed while it rested"
        bound = min(ATTEMPTS_BEFORE_SPLIT, MAX_ATTEMPTS) if row["image_count"] > 1 else MAX_ATTEMPTS
        assert self.tries[chunk.chunk_id] < bound, "a worn chunk was claimed"
        for other in self.claims:
            if other.chunk.chunk_id == chunk.chunk_id and not other.is_over:
                # A chunk whose holder fell silent rests from the end of the lease on.
                assert self.now - other.runs_out_at >= LEAST_REST_S, "a chunk had two holders"
                other.is_over = True
        self.tries[chunk.chunk_id] += 1
        self.claims.append(claim)
        ring_for_chunks(self.queue, chunks=1)
        return claim

    def look(self, claim, *, renews):
        with self.nothing_changes_if(claim.is_over):
            (found,) = look_after(database=self.database, chunks=[claim.chunk], renew_for_s=LEASE_S if renews else None)
        assert found is not Lease.LOST or claim.is_over, "a holder was told that it had lost its chunk"
        assert found is Lease.LOST or not claim.is_over, "a late holder was told that it still held its chunk"
        if renews and not claim.is_over:
            claim.runs_out_at = self.now + LEASE_S
        return found

    def complete(self, claim, outcomes, *, stopped=False):
        with self.nothing_changes_if(claim.is_over):
            accepted = complete_chunk(database=self.database, chunk=claim.chunk, outcomes=outcomes, stopped=stopped)
        assert accepted or claim.is_over, "a holder could not complete its chunk"
        assert not (accepted and claim.is_over), "a late holder completed a chunk"
        claim.is_over = True

    def release(self, claim, why):
        with self.nothing_changes_if(claim.is_over):
            release_chunk(database=self.database, chunk=claim.chunk, why=why, fault="Error", backoff=BACKOFF)
        if claim.is_over:
            return
        claim.is_over = True
        if why is not Release.BROKEN:
            self.tries[claim.chunk.chunk_id] -= 1
        if why is not Release.STOPPED:
            self.rests_until[claim.chunk.chunk_id] = self.now + LEAST_REST_S

    def suspect(self, claim):
        with self.nothing_changes_if(claim.is_over):
            note_suspect(database=self.database, chunk=claim.chunk, sha256=f"{self.claims.index(claim):064d}")

    # What happens by itself.

    def tick(self):
        """Reconcile. Nobody who still holds a chunk loses it."""
        silent = {claim.chunk.chunk_id for claim in self.claims if not claim.is_over and claim.runs_out_at <= self.now}
        held = {claim.chunk.chunk_id for claim in self.claims if not claim.is_over} - silent
        reconcile(
            database=self.database, queue=self.queue, resend_after_s=60, max_attempts=MAX_ATTEMPTS, backoff=BACKOFF
        )
        running = {row["id"] for row in self.rows()["chunks"] if row["state"] == "running"}
        assert held <= running, "a chunk was taken from its holder"
        for claim in self.claims:
            claim.is_over |= claim.chunk.chunk_id in silent - running

    def pass_time(self, seconds):
        self.passed_s += seconds
        with self.database.transaction() as session:
            past = {"past": f"{seconds} seconds"}
            session.execute(
                text(
                    "UPDATE chunks SET lease_expires_at = lease_expires_at - CAST(:past AS interval),"
                    " next_run_at = next_run_at - CAST(:past AS interval) WHERE state IN ('pending', 'running')"
                ),
                past,
            )
            session.execute(
                text("UPDATE jobs SET deadline_at = deadline_at - CAST(:past AS interval)"),
                past,
            )

    # How it is judged.

    @contextmanager
    def nothing_changes_if(self, is_late):
        before = self.rows() if is_late else None
        yield
        assert before is None or before == self.rows(), "a late holder changed something"

    @contextmanager
    def refused_if(self, expected):
        refused = False
        try:
            yield
        except Conflict:
            refused = True
        assert refused == bool(expected), "a request was refused wrongly, or not at all"
