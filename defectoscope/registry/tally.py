"""How often each decision was taken, for monitoring. Read only."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from defectoscope.database import LedgerAction, Promotion


def count_decisions(session: Session) -> dict[LedgerAction, int]:
    """Return the lines of the ledger by what was done, all actions among them."""
    counted: dict[LedgerAction, int] = dict(
        session.execute(select(Promotion.action, func.count()).group_by(Promotion.action)).all()
    )
    return {action: counted.get(action, 0) for action in LedgerAction}
