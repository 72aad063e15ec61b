"""What keeps things from being deleted while nobody can ask the API: workers follow the rules also when it is down.

It writes straight into the database of the settings, as somebody who may, and into the audit log. What deletes, or lets
something be deleted, has no such way.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, cast

from defectoscope.cli.model_ledger import account
from defectoscope.cli.operating import note_in_audit, opened_database

if TYPE_CHECKING:
    from defectoscope.client.wire import Hold, RetentionRule

_HOLD = ("id", "job_id", "image_id", "reason", "actor")
_RULE = ("id", "what", "older_than_days", "keep_defective", "job_id", "actor")


def hold_in_database(*, reason: str, job_id: int | None, image_id: int | None) -> Hold:
    """Put a hold on a job or on an image.

    Raises:
        SettingMissing, DatabaseUnavailable: the database is not named, or does not answer.
        InvalidRequest, JobNotFound, ImageNotFound: as the API would say.
    """
    from defectoscope.objects.retention import add_hold

    actor = account()
    with opened_database() as database, database.transaction() as session:
        hold = add_hold(session, reason=reason, actor=actor, job_id=job_id, image_id=image_id)
        note_in_audit(session, actor=actor, action="defectoscope holds add --database", subject=f"holds/{hold.id}")
        return cast("Hold", _shown(hold, _HOLD))


def remove_rule_in_database(rule_id: int) -> RetentionRule:
    """Take a rule of retention back; returns what it was.

    Raises:
        SettingMissing, DatabaseUnavailable: the database is not named, or does not answer.
        RetentionRuleNotFound: there is no such rule.
    """
    from defectoscope.objects.retention import remove_rule

    actor = account()
    with opened_database() as database, database.transaction() as session:
        rule = remove_rule(session, rule_id, actor=actor)
        subject = f"retention-rules/{rule_id}"
        note_in_audit(session, actor=actor, action="defectoscope retention remove --database", subject=subject)
        return cast("RetentionRule", _shown(rule, _RULE))


def _shown(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    # As the API writes moments.
    created_at = row.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return {name: getattr(row, name) for name in names} | {"created_at": created_at}
