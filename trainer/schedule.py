"""What beat sends, and when. A doubled or lost message is harmless: what is owed stands in the database."""

from __future__ import annotations

from typing import Any

from defectoscope.queue.messages import CONTROL_QUEUE, RECONCILE


def schedule(*, reconcile_interval_s: int) -> dict[str, dict[str, Any]]:
    """Return the beat schedule.

    Args:
        reconcile_interval_s: how often owed work without a message is looked for.
    """
    return {
        "reconcile": {
            "task": RECONCILE,
            "schedule": float(reconcile_interval_s),
            # A message nobody took in time is worth nothing: the next one asks for the same.
            "options": {"queue": CONTROL_QUEUE, "expires": float(reconcile_interval_s)},
        }
    }
