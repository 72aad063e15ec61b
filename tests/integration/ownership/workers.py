"""What several workers do one after the other, as the chains of a state machine are made of it."""

from __future__ import annotations

from dataclasses import replace

from defectoscope.errors.images import ImageTruncated
from defectoscope.inspection.completion import ItemOutcome
from defectoscope.inspection.leases import Lease, Release
from tests.integration.inspection.scene import DEFECT, succeeded
from tests.integration.ownership.world import World


class Workers(World):
    """Workers who take chunks, and whoever submits jobs for them."""

    def __init__(self):
        super().__init__()
        #: What was asked for under which key.
        self.jobs = {}

    def submit(self, job):
        key = f"job-{len(self.jobs)}"
        self.jobs[self.scene.submit(**job, prefix=key, idempotency_key=key)] = (key, job)

    def act_on(self, claim, act):
        match act:
            case "complete":
                self.finish_chunk(claim, set())
            case "release":
                self.release(claim, Release.STOPPED)
            case "suspect":
                self.suspect(claim)
            case _:
                found = self.look(claim, renews=act == "renew")
                if found is Lease.STOPPED:
                    # Between two batches: what is done is kept.
                    self.finish_chunk(claim, set(), stopped=True, done=1)
                return found
        return None

    def finish_chunk(self, claim, failed, *, stopped=False, done=None):
        outcomes = [
            ItemOutcome(item_id=item.item_id, error=ImageTruncated()) if number in failed else _good(item)
            for number, item in enumerate(claim.chunk.items[:done])
        ]
        self.complete(claim, outcomes, stopped=stopped)

    def claim_something(self):
        """Claim whatever is owed; where nothing is, somebody submits a job just now."""
        claim = self.make_claim()
        if claim is None:
            self.submit({"images": 2, "chunk_size": 2, "deadline_s": None, "max_failed_share": None})
            claim = self.make_claim()
        return claim

    def look_for_work(self, is_sought=lambda _: False):
        """Claim until what is sought is found, or nothing is left; give back the rest."""
        taken = []
        while (claim := self.make_claim()) and not is_sought(claim.chunk):
            taken.append(claim)
        for other in taken:
            self.release(other, Release.STOPPED)
        return claim

    def take_over(self, late):
        """Have somebody get a chunk whose holder was silent for long, if anybody may."""
        return self.look_for_work(lambda chunk: chunk.chunk_id == late.chunk.chunk_id)

    def take_all_of(self, job_id):
        """Have workers begin every chunk of a job that was just submitted."""
        owed = sum(row["job_id"] == job_id for row in self.rows()["chunks"])
        return [self.look_for_work(lambda chunk: chunk.job_id == job_id) for _ in range(owed)]


def _good(item):
    """One of few pictures, so that jobs share results; one in three has a defect."""
    content = f"picture {item.item_id % 3}"
    return succeeded(item, content=content, defects=(replace(DEFECT),) if item.item_id % 3 == 0 else ())
