"""Retention: rules say what is given up when it is old, holds say what is not, whatever the rules say.

Giving up is a mark on a row (`results.deleted_at`, `images.deleted_at`): it points at its objects no more, the API says
so (410), and the collector deletes what nothing else points at. Equal masks are one object, so that one goes with the
last result that has it. Verdicts, defects and scores stay for ever. What is inspected again is stored again.

Never given up is what a hold, a label or a dataset revision refers to, and what a job that is not old or has not ended
uses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from defectoscope.database import Database, Hold, Image, Job, RetainedWhat, RetentionRule
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.jobs import ImageNotFound, JobNotFound
from defectoscope.errors.retention import HoldNotFound, RetentionRuleNotFound
from defectoscope.events import record_event
from defectoscope.objects import retention_sql as sql

#: A hundred years; the arithmetic of dates ends somewhere.
MAX_DAYS: Final = 36_500

#: Rows marked in one transaction.
_AT_ONCE = 1000

_COUNT = {RetainedWhat.MASKS: sql.COUNT_RESULTS, RetainedWhat.ORIGINALS: sql.COUNT_IMAGES}
_GIVE_UP = {RetainedWhat.MASKS: sql.GIVE_UP_RESULTS, RetainedWhat.ORIGINALS: sql.GIVE_UP_IMAGES}

log = structlog.get_logger(__name__)


def add_rule(
    session: Session,
    *,
    what: RetainedWhat,
    older_than_days: int,
    keep_defective: bool,
    actor: str,
    job_id: int | None = None,
) -> RetentionRule:
    """Write a rule; it is followed from the next walk of the collector on.

    Args:
        session: of the transaction.
        what: masks with overlays, or originals.
        older_than_days: counted from when it was made and from the last job that used it, whichever is later.
        keep_defective: spare results with defects, and images that have such a result.
        actor: who decided.
        job_id: only what this job used and no other.

    Raises:
        JobNotFound: there is no such job.
        InvalidRequest: the time is not 1 to `MAX_DAYS` days.
    """
    if not 1 <= older_than_days <= MAX_DAYS:
        raise InvalidRequest(f"What is kept for less than a day cannot be relied on; say 1 to {MAX_DAYS} days.")
    _check_job(session, job_id)
    rule = RetentionRule(
        what=what, older_than_days=older_than_days, keep_defective=keep_defective, job_id=job_id, actor=actor
    )
    session.add(rule)
    session.flush()
    session.refresh(rule)
    record_event(
        session,
        kind="retention.rule_added",
        subject=f"retention_rule:{rule.id}",
        message=f"{actor} had {what.value} deleted after {older_than_days} days.",
        what=what.value,
        older_than_days=older_than_days,
        keep_defective=keep_defective,
        job_id=job_id,
    )
    return rule


def remove_rule(session: Session, rule_id: int, *, actor: str) -> RetentionRule:
    """Take a rule back; what was given up under it stays so.

    Returns:
        What it was.

    Raises:
        RetentionRuleNotFound: there is no such rule.
    """
    rule = session.get(RetentionRule, rule_id, with_for_update=True)
    if rule is None:
        raise RetentionRuleNotFound(f"There is no rule of retention {rule_id}.", rule_id=rule_id)
    session.delete(rule)
    record_event(
        session,
        kind="retention.rule_removed",
        subject=f"retention_rule:{rule_id}",
        message=f"{actor} took back rule {rule_id}, under which {rule.what.value} were deleted.",
    )
    return rule


def list_rules(session: Session, *, before: int | None = None, limit: int | None = None) -> Sequence[RetentionRule]:
    """Return rules, newest first, those with an id below ``before``; every one without a limit."""
    statement = select(RetentionRule)
    if before is not None:
        statement = statement.where(RetentionRule.id < before)
    return session.scalars(statement.order_by(RetentionRule.id.desc()).limit(limit)).all()


def add_hold(
    session: Session, *, reason: str, actor: str, job_id: int | None = None, image_id: int | None = None
) -> Hold:
    """Have nothing of a job, or of an image, given up until the hold is removed.

    Raises:
        JobNotFound, ImageNotFound: there is no such thing.
        InvalidRequest: neither or both are named, or the reason is empty.
    """
    if (job_id is None) == (image_id is None) or not reason.strip():
        raise InvalidRequest("A hold is on one job or on one image, for a reason.")
    _check_job(session, job_id)
    if image_id is not None and session.get(Image, image_id) is None:
        raise ImageNotFound(f"There is no image {image_id}.", image_id=image_id)
    hold = Hold(job_id=job_id, image_id=image_id, reason=reason, actor=actor)
    session.add(hold)
    session.flush()
    session.refresh(hold)
    record_event(
        session,
        kind="retention.hold_added",
        subject=f"job:{job_id}" if job_id is not None else f"image:{image_id}",
        message=f"{actor} put a hold on it: {reason}",
        hold_id=hold.id,
    )
    return hold


def remove_hold(session: Session, hold_id: int, *, actor: str) -> Hold:
    """Let the rules hold again for what a hold spared.

    Returns:
        What it was.

    Raises:
        HoldNotFound: there is no such hold.
    """
    hold = session.get(Hold, hold_id, with_for_update=True)
    if hold is None:
        raise HoldNotFound(f"There is no hold {hold_id}.", hold_id=hold_id)
    session.delete(hold)
    record_event(
        session,
        kind="retention.hold_removed",
        subject=f"job:{hold.job_id}" if hold.job_id is not None else f"image:{hold.image_id}",
        message=f"{actor} removed the hold on it.",
        hold_id=hold_id,
    )
    return hold


def list_holds(session: Session, *, before: int | None = None, limit: int | None = None) -> Sequence[Hold]:
    """Return holds, newest first, those with an id below ``before``; every one without a limit."""
    statement = select(Hold)
    if before is not None:
        statement = statement.where(Hold.id < before)
    return session.scalars(statement.order_by(Hold.id.desc()).limit(limit)).all()


def count_given_up(database: Database) -> dict[int, int]:
    """Return how many rows each rule would give up now, by the rule's id. A row may fall under several."""
    with database.transaction() as session:
        return {rule.id: int(session.scalars(_COUNT[rule.what], _values(rule)).one()) for rule in list_rules(session)}


def apply_rules(database: Database, *, stop_after_s: float = float("inf")) -> dict[int, int]:
    """Give up what the rules say, in transactions of a bounded size.

    Args:
        database: of the rows.
        stop_after_s: no further transaction begins after this; the next call goes on.

    Returns:
        How many rows each rule gave up, by its id.
    """
    began_s = time.monotonic()
    with database.transaction() as session:
        rules = list_rules(session)
    given_up = dict.fromkeys((rule.id for rule in rules), 0)
    for rule in rules:
        after = 0
        while time.monotonic() - began_s < stop_after_s:
            values = {**_values(rule), "limit": _AT_ONCE, "after": after}
            with database.transaction() as session:
                marked = session.scalars(_GIVE_UP[rule.what], values).all()
            given_up[rule.id] += len(marked)
            if len(marked) < _AT_ONCE:
                break
            after = max(marked)
        if given_up[rule.id]:
            log.info("retention.applied", rule=rule.id, what=rule.what.value, rows=given_up[rule.id])
    return given_up


def _values(rule: RetentionRule) -> dict[str, object]:
    return {"days": rule.older_than_days, "keep_defective": rule.keep_defective, "job_id": rule.job_id}


def _check_job(session: Session, job_id: int | None) -> None:
    if job_id is not None and session.get(Job, job_id) is None:
        raise JobNotFound(f"There is no job {job_id}.", job_id=job_id)
