"""Rules of retention: what is given up when it is old."""

from __future__ import annotations

import time
from typing import Annotated, Final

from fastapi import APIRouter, Path

from api.access import AccessScope, Caller, ScopedRoute, actor_of, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.retention import AppliedOut, DueOut, RetentionRuleIn, RetentionRuleOut, RuleCountOut
from api.services import Parts
from defectoscope.objects import apply_rules, count_given_up
from defectoscope.objects.retention import add_rule, list_rules, remove_rule

router = APIRouter(prefix="/retention-rules", tags=["retention"], route_class=ScopedRoute)

RuleId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[2])]

#: How long one request may go on giving up; whoever asked is told to ask again.
_APPLY_FOR_S: Final = 20.0


@router.post("", status_code=201, **requires(AccessScope.ADMIN))
def create(services: Parts, caller: Caller, wanted: RetentionRuleIn) -> RetentionRuleOut:
    """Have masks with overlays, or originals, deleted when they are old; followed once a day from now on."""
    with services.database.transaction() as session:
        rule = add_rule(
            session,
            what=wanted.what,
            older_than_days=wanted.older_than_days,
            keep_defective=wanted.keep_defective,
            job_id=wanted.job_id,
            actor=actor_of(caller, wanted.actor),
        )
        return RetentionRuleOut.of(rule)


@router.get("", **requires(AccessScope.VIEWER))
def read_rules(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[RetentionRuleOut]:
    """List rules, newest first."""
    with services.database.transaction() as session:
        rows = list_rules(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda rule: rule.id)
    return Page(items=[RetentionRuleOut.of(rule) for rule in page], next_cursor=next_cursor)


@router.get("/due", **requires(AccessScope.VIEWER))
def read_due(services: Parts) -> DueOut:
    """Count what each rule would give up now; nothing is deleted."""
    return DueOut(items=RuleCountOut.list_of(count_given_up(services.database)))


@router.post("/apply", **requires(AccessScope.ADMIN))
def apply(services: Parts) -> AppliedOut:
    """Follow the rules now; the objects themselves go with the next walk of the collector."""
    began_s = time.monotonic()
    given_up = apply_rules(services.database, stop_after_s=_APPLY_FOR_S)
    return AppliedOut(items=RuleCountOut.list_of(given_up), is_done=time.monotonic() - began_s < _APPLY_FOR_S)


@router.delete("/{rule_id}", **requires(AccessScope.ADMIN))
def delete(services: Parts, caller: Caller, rule_id: RuleId) -> RetentionRuleOut:
    """Take a rule back; what was given up under it is gone. What it was is the answer."""
    with services.database.transaction() as session:
        return RetentionRuleOut.of(remove_rule(session, rule_id, actor=caller.name))
