"""The guards of ownership by name: where each stands in the package, and what goes wrong without it.

A row is no description: its text is cut out of a copy of the package, or its key dropped from the database, and the
state machine then has to find what goes wrong.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """Some text of one file of `defectoscope/inspection`, what is left in its place, and how what is found begins."""

    name: str
    path: str
    text: str
    finding: str
    leaving: str = ""


GUARDS = (
    # Completion.
    Guard(
        name="the-token-of-a-completion",
        path="completion_sql.py",
        text=" AND lease_token = :token AND state = 'running' RETURNING",
        leaving=" AND state = 'running' RETURNING",
        finding="a late holder",
    ),
    Guard(
        name="the-state-of-a-completed-chunk",
        path="completion_sql.py",
        text=" AND lease_token = :token AND state = 'running' RETURNING",
        leaving=" AND lease_token = :token RETURNING",
        finding="a late holder",
    ),
    Guard(
        name="what-is-owed-before-a-job-ends",
        path="ending.py",
        text='    if session.scalar(_IS_OWED, {"job_id": job_id}) is not None:\n        return False\n',
        finding="a job has ended wrongly, or not at all",
    ),
    # Leases.
    Guard(
        name="the-token-of-a-release",
        path="leases.py",
        text="chunks.id = :id AND chunks.lease_token = :token AND",
        leaving="chunks.id = :id AND",
        finding="a late holder",
    ),
    Guard(
        name="the-state-of-a-released-chunk",
        path="leases.py",
        text="chunks.lease_token = :token AND chunks.state = 'running'",
        leaving="chunks.lease_token = :token",
        finding="a late holder",
    ),
    Guard(
        name="the-token-of-a-renewal",
        path="leases.py",
        text="chunks.lease_token = held.token AND chunks.state = 'running'\n        FOR UPDATE",
        leaving="chunks.state = 'running'\n        FOR UPDATE",
        finding="a late holder",
    ),
    Guard(
        name="the-renewal",
        path="leases.py",
        text='            session.execute(_RENEW, {**held, "lease_s": renew_for_s})\n',
        leaving="            pass\n",
        finding="a chunk had two holders",
    ),
    Guard(
        name="the-token-of-a-suspicion",
        path="quarantine.py",
        text=" AND lease_token = :token AND state = 'running' AND",
        leaving=" AND state = 'running' AND",
        finding="a late holder",
    ),
    # Claims.
    Guard(
        name="the-raising-of-the-token",
        path="chunks.py",
        text="lease_token = chunks.lease_token + 1",
        leaving="lease_token = chunks.lease_token",
        finding="a late holder",
    ),
    Guard(
        name="the-lease",
        path="chunks.py",
        text="chunks.lease_expires_at < now() AND chunks.lease_expires_at + {DELAY} <= now()",
        leaving="true",
        finding="a chunk had two holders",
    ),
    Guard(
        name="the-rest-after-a-fault",
        path="chunks.py",
        text="chunks.next_run_at IS NULL OR chunks.next_run_at <= now()",
        leaving="true",
        finding="a chunk was claimed while it rested",
    ),
    Guard(
        name="the-attempts-counted-at-the-claim",
        path="chunks.py",
        text="attempts = chunks.attempts + 1",
        leaving="attempts = 1",
        finding="a worn chunk was claimed",
    ),
    Guard(
        name="the-bound-of-the-attempts",
        path="chunks.py",
        text="ELSE :max_attempts END\n",
        leaving="ELSE :max_attempts END + 1\n",
        finding="a worn chunk was claimed",
    ),
    Guard(
        name="the-cancellation-in-a-claim",
        path="chunks.py",
        text=" AND jobs.cancel_requested_at IS NULL",
        finding="a cancelled job was claimed",
    ),
    Guard(
        name="the-pause-in-a-claim",
        path="chunks.py",
        text=" AND jobs.paused_at IS NULL",
        finding="a paused job was claimed",
    ),
    Guard(
        name="the-stop-in-a-claim",
        path="chunks.py",
        text="jobs.stopped_at IS NULL AND (jobs.deadline_at",
        leaving="(jobs.deadline_at",
        finding="a stopped job was claimed",
    ),
    # Reconciliation.
    Guard(
        name="the-reconciler",
        path="reconciliation.py",
        text="    stale = func.now() - cast(timedelta(seconds=resend_after_s), Interval)\n",
        leaving="    return\n    stale = None\n",
        finding="something never ended",
    ),
    Guard(
        name="the-doorbell-of-the-reconciler",
        path="reconciliation.py",
        text="    ring_for_chunks(queue, chunks=owed, most=owed)\n",
        finding="something never ended",
    ),
    Guard(
        name="the-settling-of-worn-chunks",
        path="reconciliation.py",
        text="            _settle_worn(session, queue, max_attempts)\n",
        leaving="            pass\n",
        finding="something never ended",
    ),
    Guard(
        name="the-end-of-stopping-chunks",
        path="reconciliation.py",
        text="_is_elected(session) and _end_some(session)",
        leaving="False",
        finding="something never ended",
    ),
    Guard(
        name="the-deadline",
        path="reconciliation.py",
        text="_is_elected(session) and stop_overdue_jobs(session, most=_JOBS_STOPPED_AT_ONCE)",
        leaving="False",
        finding="something never ended",
    ),
    Guard(
        name="the-lease-of-a-worn-chunk",
        path="reconciliation.py",
        text="attempts > 0 AND (state = 'pending' OR lease_expires_at < now())",
        leaving="attempts > 0",
        finding="a chunk was taken from its holder",
    ),
    Guard(
        name="the-lease-of-a-stopping-chunk",
        path="reconciliation.py",
        text="            AND (chunks.state = 'pending' OR chunks.lease_expires_at < now())\n",
        finding="a chunk was taken from its holder",
    ),
    # Submission.
    Guard(
        name="the-comparison-under-an-idempotency-key",
        path="submission.py",
        text="            raise IdempotencyConflict(job_id=job.id)\n",
        leaving="            pass\n",
        finding="a request was refused wrongly, or not at all",
    ),
)
