"""A state machine of everything that may happen to chunks, in any order, against the real database.

The clock is that of the rows: time passes by moving what they say of leases and rests into the past. What the machine
believes by itself is little: which claims were made, when they run out by its own clock, and what became of them. The
invariants are asked of the database after every step, and in the end everything that was accepted has to come out.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from defectoscope.database import Database
from defectoscope.errors import Conflict, ImageTruncated
from defectoscope.inspection.backoff import Backoff
from defectoscope.inspection.chunks import ClaimedChunk, claim_next_chunk
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.jobs import cancel_job, pause_job, resume_job, retry_failed
from defectoscope.inspection.leases import Lease, Release, look_after, release_chunk
from defectoscope.inspection.reconciliation import reconcile
from defectoscope.queue import MemoryQueue, ring_for_chunks
from tests.integration.inspection.scene import DEFECT, Scene, add_model_version, succeeded

LEASE_S = 60
MAX_ATTEMPTS = 3
BACKOFF = Backoff(first_s=40, longest_s=200)
#: No rest is shorter than half of the first one; the machine itself takes moments.
LEAST_REST_S = 15
#: More than the longest lease and the longest rest.
AGES_S = 600
TABLES = "jobs, chunks, job_items, results, defects, images, model_versions"

FINAL = {"succeeded", "partial", "failed", "cancelled"}
PICK = st.integers(0, 5)


@dataclass
class Claim:
    """A claim as its worker remembers it, long after others may have taken it over."""

    chunk: ClaimedChunk
    runs_out_at: float
    is_over: bool = False
    was_overtaken: bool = False
    may_be_settled: bool = False


class Ownership(RuleBasedStateMachine):
    """Jobs, workers that may fall silent at any moment, and a reconciler."""

    database: Database

    def __init__(self):
        super().__init__()
        with self.database.transaction() as session:
            session.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE"))
            # Whose turn it is among equals is drawn by lot, and the lot is part of the seed.
            session.execute(text("SELECT setseed(0.5)"))
        self.queue = MemoryQueue()
        self.scene = Scene(database=self.database, queue=self.queue, model_version_id=add_model_version(self.database))
        self.now = 0.0
        self.jobs = []
        self.claims = []
        self.rests_until = {}
        self.ended_items = {}

    # What people do.

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(
        images=st.integers(1, 5),
        chunk_size=st.integers(1, 3),
        deadline_s=st.sampled_from([None, None, 50, 500]),
        max_failed_share=st.sampled_from([None, None, 0.0, 0.05]),
    )
    def submit(self, images, chunk_size, deadline_s, max_failed_share):
        job_id = self.scene.submit(
            images=images,
            chunk_size=chunk_size,
            prefix=f"job-{len(self.jobs)}",
            deadline_s=deadline_s,
            max_failed_share=max_failed_share,
        )
        self.jobs.append(job_id)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def cancel(self, pick):
        job = self._job(pick)
        with self._refused_if(job["state"] in FINAL):
            cancel_job(database=self.database, job_id=job["id"])

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def pause(self, pick):
        job = self._job(pick)
        with self._refused_if(job["state"] in FINAL or job["cancel_requested_at"] or job["stopped_at"]):
            pause_job(database=self.database, job_id=job["id"])

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def resume(self, pick):
        job = self._job(pick)
        with self._refused_if(job["state"] in FINAL or job["cancel_requested_at"] or job["stopped_at"]):
            resume_job(database=self.database, queue=self.queue, job_id=job["id"])

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def retry(self, pick):
        job = self._job(pick)
        is_retryable = job["state"] in FINAL - {"cancelled"} and job["failed_images"] > 0
        with self._refused_if(not is_retryable):
            retry_failed(database=self.database, queue=self.queue, job_id=job["id"], chunk_size=2)
        if is_retryable:
            failed = [id_ for id_, (of, state, _) in self.ended_items.items() if (of, state) == (job["id"], "failed")]
            for item_id in failed:
                del self.ended_items[item_id]

    # What workers do.

    @rule()
    def claim(self):
        self._claim()

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, renews=st.booleans())
    def look(self, pick, renews):
        claim = self._pick_claim(pick)
        (found,) = look_after(database=self.database, chunks=[claim.chunk], renew_for_s=LEASE_S if renews else None)
        assert (found is not Lease.LOST) == self._is_current(claim) or claim.may_be_settled, "a look was wrong"
        if found is Lease.LOST:
            claim.is_over = True
        elif renews:
            claim.runs_out_at = self.now + LEASE_S
        if found is Lease.STOPPED:
            self._complete(claim, failed=set(), stopped=True, done=1)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, failed=st.sets(st.integers(0, 2)))
    def complete(self, pick, failed):
        self._complete(self._pick_claim(pick), failed=failed)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, why=st.sampled_from(Release))
    def release(self, pick, why):
        claim = self._pick_claim(pick)
        was_current = self._is_current(claim)
        release_chunk(database=self.database, chunk=claim.chunk, why=why, fault="Error", backoff=BACKOFF)
        claim.is_over = True
        if was_current and not claim.may_be_settled and why is not Release.STOPPED:
            self.rests_until[claim.chunk.chunk_id] = self.now + LEAST_REST_S

    # What happens by itself.

    @rule(seconds=st.sampled_from([5, 30, 70, AGES_S]))
    def pass_time(self, seconds):
        self._pass_time(seconds)

    @rule()
    def flush_broker(self):
        self.queue.messages.clear()

    @rule()
    def reconcile(self):
        self._reconcile()

    # What must be true at any moment.

    @invariant()
    def every_total_is_what_counting_gives(self):
        for job in self._rows("jobs"):
            items = [item for item in self._rows("job_items") if item["job_id"] == job["id"]]
            states = Counter(item["state"] for item in items)
            counted = [states[state] for state in ("pending", "succeeded", "failed", "cancelled")]
            kept = [job[f"{state}_images"] for state in ("pending", "succeeded", "failed", "cancelled")]
            assert kept == counted, "totals differ"
            shown = {item["result_id"] for item in items if item["result_id"]}
            defects = sum(result["defect_count"] for result in self._rows("results") if result["id"] in shown)
            assert job["defects"] == defects, "defects differ"

    @invariant()
    def an_image_ends_once_and_in_one_way(self):
        for item in self._rows("job_items"):
            end = (item["job_id"], item["state"], item["result_id"])
            if item["id"] in self.ended_items:
                assert self.ended_items[item["id"]] == end, "an image ended twice"
            elif item["state"] != "pending":
                self.ended_items[item["id"]] = end
            assert (item["result_id"] is not None) == (item["state"] == "succeeded"), "a result without success"
            assert (item["error_code"] is not None) == (item["state"] == "failed"), "an error without failure"

    @invariant()
    def no_result_is_there_twice(self):
        keys = [(row["image_id"], row["model_version_id"], row["params_sha256"]) for row in self._rows("results")]
        assert len(keys) == len(set(keys)), "a result twice"
        assert len(self._rows("defects")) == sum(row["defect_count"] for row in self._rows("results"))

    @invariant()
    def a_job_has_ended_if_and_only_if_nothing_of_it_is_owed(self):
        owed = Counter(row["job_id"] for row in self._rows("chunks") if row["state"] in {"pending", "running"})
        for job in self._rows("jobs"):
            assert (job["state"] in FINAL) == (owed[job["id"]] == 0), "a job has ended wrongly, or not at all"

    @invariant()
    def an_image_that_is_owed_is_in_a_chunk_that_is_owed(self):
        owed = {row["id"] for row in self._rows("chunks") if row["state"] in {"pending", "running"}}
        for item in self._rows("job_items"):
            assert item["state"] != "pending" or item["chunk_id"] in owed, "an image was lost"

    def teardown(self):
        """Let everything that was accepted come out, by what a system does without anybody's hand."""
        for job in self._rows("jobs"):
            if job["paused_at"] and not job["cancel_requested_at"] and not job["stopped_at"]:
                resume_job(database=self.database, queue=self.queue, job_id=job["id"])
        self.queue.messages.clear()
        for _ in range(20):
            self._pass_time(AGES_S)
            self._reconcile()
            while self.queue.messages:
                self.queue.messages.pop()
                claim = self._claim()
                if claim is not None:
                    self._complete(claim, failed=set())
            if all(job["state"] in FINAL for job in self._rows("jobs")):
                break
        assert all(job["state"] in FINAL for job in self._rows("jobs")), "something never ended"
        assert all(item["state"] != "pending" for item in self._rows("job_items"))
        self.every_total_is_what_counting_gives()
        self.an_image_ends_once_and_in_one_way()
        self.no_result_is_there_twice()

    # How it is done.

    def _claim(self):
        chunk = claim_next_chunk(
            database=self.database, owner="worker", lease_s=LEASE_S, max_attempts=MAX_ATTEMPTS, backoff=BACKOFF
        )
        if chunk is None:
            return None
        job = next(job for job in self._rows("jobs") if job["id"] == chunk.job_id)
        assert not job["paused_at"], "a paused job was claimed"
        assert not job["cancel_requested_at"], "a cancelled job was claimed"
        assert not job["stopped_at"], "a stopped job was claimed"
        assert self.rests_until.pop(chunk.chunk_id, 0) <= self.now, "a chunk was claimed while it rested"
        for other in self.claims:
            if other.chunk.chunk_id == chunk.chunk_id:
                # A chunk whose holder fell silent rests from the end of the lease on.
                lost_for_s = self.now - other.runs_out_at
                assert other.is_over or other.was_overtaken or lost_for_s >= LEAST_REST_S, "two holders"
                other.was_overtaken = True
        claim = Claim(chunk, runs_out_at=self.now + LEASE_S)
        self.claims.append(claim)
        ring_for_chunks(self.queue, chunks=1)
        return claim

    def _complete(self, claim, *, failed, stopped=False, done=None):
        outcomes = [
            ItemOutcome(item_id=item.item_id, error=ImageTruncated()) if number in failed else _good(item)
            for number, item in enumerate(claim.chunk.items[:done])
        ]
        accepted = complete_chunk(database=self.database, chunk=claim.chunk, outcomes=outcomes, stopped=stopped)
        assert accepted == self._is_current(claim) or claim.may_be_settled, "a late holder wrote, or a holder did not"
        claim.is_over = True

    def _is_current(self, claim):
        return not claim.is_over and not claim.was_overtaken

    def _reconcile(self):
        reconcile(
            database=self.database,
            queue=self.queue,
            resend_after_s=60,
            max_attempts=MAX_ATTEMPTS,
            backoff=BACKOFF,
        )
        for claim in self.claims:
            claim.may_be_settled |= claim.runs_out_at <= self.now

    def _pass_time(self, seconds):
        self.now += seconds
        with self.database.transaction() as session:
            past = {"past": f"{seconds} seconds"}
            session.execute(
                text(
                    "UPDATE chunks SET lease_expires_at = lease_expires_at - CAST(:past AS interval),"
                    " next_run_at = next_run_at - CAST(:past AS interval)"
                ),
                past,
            )
            session.execute(text("UPDATE jobs SET deadline_at = deadline_at - CAST(:past AS interval)"), past)

    def _job(self, pick):
        job_id = self.jobs[pick % len(self.jobs)]
        return next(job for job in self._rows("jobs") if job["id"] == job_id)

    def _pick_claim(self, pick):
        # The newest first: most of the others are over.
        return self.claims[-1 - pick % len(self.claims)]

    def _rows(self, table):
        with self.database.transaction() as session:
            return session.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings().all()  # noqa: S608

    @contextmanager
    def _refused_if(self, expected):
        refused = False
        try:
            yield
        except Conflict:
            refused = True
        assert refused == bool(expected), "a request was refused wrongly, or not at all"


def _good(item):
    """One of few pictures, so that jobs share results; one in three has a defect."""
    content = f"picture {item.item_id % 3}"
    return succeeded(item, content=content, defects=(replace(DEFECT),) if item.item_id % 3 == 0 else ())


def drive(url, *, examples, steps, seeded):
    """Run the machine; a seeded run is the same every time and stops at the first finding."""
    database = Database(url, pool_size=1)
    phases = [Phase.generate] if seeded else [Phase.generate, Phase.shrink]
    wanted = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=seeded,
        phases=phases,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    machine = type("Ownership", (Ownership,), {"database": database})
    try:
        run_state_machine_as_test(machine, settings=wanted)
    finally:
        database.close()


if __name__ == "__main__":
    drive(sys.argv[1], examples=int(sys.argv[2]), steps=int(sys.argv[3]), seeded=True)
