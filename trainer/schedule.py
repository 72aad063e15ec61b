"""What beat sends, and when. A doubled or lost message is harmless: what is owed stands in the database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import ParseException, crontab
from celery.schedules import schedule as every

from defectoscope.errors.installation import SettingMissing
from defectoscope.queue.messages import COLLECT_OBJECTS, CONTROL_QUEUE, RECONCILE, START_NIGHT
from defectoscope.settings import NightSettings

#: A night whose message nobody took for so long is over.
_NIGHT_EXPIRES_S = 6 * 3600.0
#: How often a worker is asked whether unused objects are to be looked for; one that dies at it is followed this soon.
_COLLECT_S = 600.0
#: Intervals for which a message to reconcile may wait.
_RECONCILE_EXPIRES = 4


def schedule(
    *, reconcile_interval_s: int, night: NightSettings, collect_objects: bool = True
) -> dict[str, dict[str, Any]]:
    """Return the beat schedule.

    Args:
        reconcile_interval_s: how often owed work without a message is looked for.
        night: when the nightly retraining is asked for; not at all where it names no dataset.
        collect_objects: whether stored objects that nothing refers to are looked for.

    Raises:
        SettingMissing: the crontab is not one.
    """
    # Beat compares the times of its entries: all of them have to look at the same clock.
    now = _shifted_clock(night.clock_offset_s)
    entries: dict[str, dict[str, Any]] = {
        "reconcile": {
            "task": RECONCILE,
            "schedule": every(float(reconcile_interval_s), nowfun=now),
            # The next one asks for the same, so that old ones need not pile up. Workers whose threads are all busy for
            # longer than one interval must find one nevertheless, or nobody would reconcile while there is much to do.
            "options": {"queue": CONTROL_QUEUE, "expires": _RECONCILE_EXPIRES * float(reconcile_interval_s)},
        }
    }
    if collect_objects:
        entries["collect"] = {
            "task": COLLECT_OBJECTS,
            "schedule": every(_COLLECT_S, nowfun=now),
            "options": {"queue": CONTROL_QUEUE, "expires": _COLLECT_S},
        }
    if night.dataset is not None:
        entries["night"] = {
            "task": START_NIGHT,
            "schedule": _read_crontab(night.crontab, now=now),
            "options": {"queue": CONTROL_QUEUE, "expires": _NIGHT_EXPIRES_S},
        }
    return entries


def _read_crontab(text: str, *, now: Callable[[], datetime]) -> crontab:
    try:
        minute, hour, day_of_month, month, day_of_week = text.split()
        return crontab(minute, hour, day_of_week, day_of_month, month, nowfun=now)
    except (ParseException, ValueError) as exc:
        raise SettingMissing(
            f"DEFECTOSCOPE_NIGHT__CRONTAB is {text!r} and must be five fields such as '0 2 * * *': {exc}."
        ) from exc


def _shifted_clock(offset_s: int) -> Callable[[], datetime]:
    offset = timedelta(seconds=offset_s)
    return lambda: datetime.now(UTC) + offset
