"""A state machine of everything that may happen to chunks, in any order and in chains that matter.

After every step what must be true at any moment is asked of the database, and in the end everything that was accepted
has to come out.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from defectoscope.database import Database
from defectoscope.inspection.jobs import cancel_job, pause_job, resume_job, retry_failed
from defectoscope.inspection.leases import Lease, Release
from tests.integration.ownership.order import check_order
from tests.integration.ownership.workers import Workers
from tests.integration.ownership.world import AGES_S, FINAL, LEASE_S, MAX_ATTEMPTS

#: Runs of the machine, and steps of each.
EXAMPLES = 20
STEPS = 30

PICK = st.integers(0, 5)
JOB = st.fixed_dictionaries(
    {
        "images": st.integers(1, 5),
        "chunk_size": st.integers(1, 3),
        "deadline_s": st.sampled_from([None, None, 50, 500]),
        "max_failed_share": st.sampled_from([None, None, 0.0, 0.05]),
    }
)
FAILED = st.sets(st.integers(0, 2))
SECONDS = st.sampled_from([5, 30, 70, AGES_S])
#: What somebody may do with a chunk, whether or not it is still held.
ACTS = ["complete", "release", "look", "renew", "suspect"]
ACT = st.sampled_from(ACTS)


class Ownership(Workers):
    """Jobs, workers that may fall silent at any moment, and a reconciler."""

    def __init__(self):
        super().__init__()
        self.ended_items = {}

    # What people do.

    @initialize(job=JOB)
    def begin(self, job):
        self.submit(job)

    @rule(job=JOB)
    def submit_another(self, job):
        self.submit(job)

    @rule(pick=PICK, images=st.integers(-1, 1))
    def submit_again(self, pick, images):
        """Send a request once more under its key, or another one of more images or fewer."""
        job_id = self._job(pick)["id"]
        key, job = self.jobs[job_id]
        job = job | {"images": max(job["images"] + images, 1)}
        before = self.rows()
        with self.refused_if(job != self.jobs[job_id][1]):
            same = self.scene.submit(**job, prefix=key, idempotency_key=key)
            assert same == job_id, "a request was taken for another one"
        assert self.rows() == before, "a request that was known changed something"

    @rule(pick=PICK)
    def cancel(self, pick):
        job = self._job(pick)
        with self.refused_if(job["state"] in FINAL):
            cancel_job(database=self.database, job_id=job["id"])

    @rule(pick=PICK)
    def pause(self, pick):
        job = self._job(pick)
        with self.refused_if(job["state"] in FINAL or job["cancel_requested_at"] or job["stopped_at"]):
            pause_job(database=self.database, job_id=job["id"])

    @rule(pick=PICK)
    def resume(self, pick):
        job = self._job(pick)
        with self.refused_if(job["state"] in FINAL or job["cancel_requested_at"] or job["stopped_at"]):
            resume_job(database=self.database, queue=self.queue, job_id=job["id"])

    @rule(pick=PICK)
    def retry(self, pick):
        job = self._job(pick)
        is_retryable = job["state"] in FINAL - {"cancelled"} and job["failed_images"] > 0
        with self.refused_if(not is_retryable):
            retry_failed(database=self.database, queue=self.queue, job_id=job["id"], chunk_size=2)
        if is_retryable:
            failed = [id_ for id_, (of, state, _) in self.ended_items.items() if (of, state) == (job["id"], "failed")]
            for item_id in failed:
                del self.ended_items[item_id]

    # What workers do.

    @rule()
    def claim(self):
        self.make_claim()

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, failed=FAILED)
    def finish(self, pick, failed):
        self.finish_chunk(self._pick_claim(pick), failed)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, why=st.sampled_from(Release))
    def give_back(self, pick, why):
        self.release(self._pick_claim(pick), why)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, act=ACT)
    def act(self, pick, act):
        self.act_on(self._pick_claim(pick), act)

    # Chains of it that are rare by chance.

    @rule(acts=st.permutations(ACTS), reconciled=st.booleans(), finishes_first=st.booleans())
    def come_back_late(self, acts, reconciled, finishes_first):
        """A worker is silent until others have taken over its chunk, and then goes on as if nothing had happened."""
        late = self.claim_something()
        self.pass_time(AGES_S)
        if reconciled:
            self.tick()
        successor = self.take_over(late)
        if successor and finishes_first:
            self.finish_chunk(successor, set())
        for act in acts:
            self.act_on(late, act)
        if successor and not finishes_first:
            self.finish_chunk(successor, set())

    @rule(why=st.sampled_from(Release))
    def give_back_and_look(self, why):
        """A chunk comes back while others look for work."""
        self.release(self.claim_something(), why)
        self.look_for_work()

    @rule(failed=FAILED)
    def work_for_long(self, failed):
        """A worker takes longer than a lease and renews it in time: nobody else gets its chunk."""
        claim = self.claim_something()
        for _ in range(2):
            self.pass_time(LEASE_S - 5)
            if self.act_on(claim, "renew") is not Lease.HELD:
                return
            self.tick()
            self.look_for_work()
        self.finish_chunk(claim, failed)

    @rule(why=st.sampled_from(["cancelled", "failed", "paused"]), reconciled=st.booleans(), act=ACT)
    def stop_in_work(self, why, reconciled, act):
        """A job is cancelled, has too many failures or is paused while somebody holds a chunk of it."""
        self.submit({"images": 2, "chunk_size": 1, "deadline_s": None, "max_failed_share": 0.0})
        job_id = max(self.jobs)
        held, other = self.take_all_of(job_id)
        if why == "failed":
            self.finish_chunk(other, {0})
        else:
            (cancel_job if why == "cancelled" else pause_job)(database=self.database, job_id=job_id)
            self.release(other, Release.STOPPED)
        if reconciled:
            self.tick()
        self.look_for_work()
        self.pass_time(AGES_S)
        self.look_for_work()
        self.act_on(held, act)

    @rule(lost=st.integers(0, MAX_ATTEMPTS), seconds=SECONDS, act=ACT)
    def wear_out(self, lost, seconds, act):
        """Workers with one chunk are lost one after the other, and the last of them perhaps is not."""
        claim = self.claim_something()
        for _ in range(lost):
            self.pass_time(AGES_S)
            claim = self.take_over(claim) or claim
        self.pass_time(seconds)
        self.tick()
        self.act_on(claim, act)

    # What happens by itself.

    @rule(seconds=SECONDS)
    def wait(self, seconds):
        self.pass_time(seconds)

    @rule()
    def flush_broker(self):
        self.queue.messages.clear()

    @rule()
    def reconcile(self):
        self.tick()

    # What must be true at any moment.

    @invariant()
    def everything_is_in_order(self):
        check_order(self.rows(), self.ended_items)

    def teardown(self):
        """Let everything that was accepted come out, by what a system does without anybody's hand."""
        for job in self.rows()["jobs"]:
            if job["paused_at"] and not job["cancel_requested_at"] and not job["stopped_at"]:
                resume_job(database=self.database, queue=self.queue, job_id=job["id"])
        self.queue.messages.clear()
        for _ in range(6):
            if all(job["state"] in FINAL for job in self.rows()["jobs"]):
                break
            self.pass_time(AGES_S)
            self.tick()
            while self.queue.messages:
                self.queue.messages.pop()
                claim = self.make_claim()
                if claim is not None:
                    self.finish_chunk(claim, set())
        assert all(job["state"] in FINAL for job in self.rows()["jobs"]), "something never ended"
        self.everything_is_in_order()

    # How it is done.

    def _job(self, pick):
        jobs = self.rows()["jobs"]
        return jobs[pick % len(jobs)]

    def _pick_claim(self, pick):
        # The newest first: most of the others are over.
        return self.claims[-1 - pick % len(self.claims)]


def drive(url, *, examples=EXAMPLES, seeded_by=None):
    """Run the machine until its first finding; without a seed it is the same every time."""
    database = Database(url, pool_size=1)
    machine = type("Ownership", (Ownership,), {"database": database})
    wanted = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        derandomize=seeded_by is None,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine if seeded_by is None else seed(seeded_by)(machine), settings=wanted)
    finally:
        database.close()
