"""The worker's share in retention and collecting: some steps at a time, then the next worker is asked to go on.

Once a day it also follows the rules of retention and forgets old lines of the audit log, before the walk begins.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from defectoscope import connect
from defectoscope.access.forgetting import forget_old
from defectoscope.database import Database
from defectoscope.errors import NotNow
from defectoscope.errors.retention import CollectionRunning
from defectoscope.objects import apply_rules, collect
from defectoscope.queue import Queue, messages, send_or_leave
from defectoscope.settings import Settings
from defectoscope.storage import Buckets, Storage

#: Housekeeping shares its threads with chunks: nobody shall wait longer for one.
_STOP_AFTER_S = 20.0

log = structlog.get_logger(__name__)


def collect_some(settings: Settings, *, database: Database, storage: Storage, queue: Queue, owner: str) -> None:
    """Begin a walk over the bucket if one is due, or go on with one that nobody holds, for some seconds.

    Args:
        settings: of the worker.
        database: says what is referred to.
        storage: our own bucket.
        queue: where the next worker is asked to go on.
        owner: host and process, for people.
    """
    try:
        done = collect(
            database=database,
            storage=storage,
            bucket=settings.storage.bucket,
            grace=timedelta(days=settings.storage.grace_days),
            owner=owner,
            every=timedelta(seconds=settings.storage.collect_interval_s),
            stop_after_s=_STOP_AFTER_S,
            uploads=Buckets(connect.s3_config(settings)),
            prepare=lambda: _give_up(database, audit_keep_days=settings.database.audit_keep_days),
        )
    except CollectionRunning:
        log.debug("collection.held")
        return
    except NotNow as exc:
        log.warning("collection.postponed", code=exc.code, reason=exc.message)
        return
    if done is not None and not done.is_finished:
        send_or_leave(queue, [messages.collect_objects()])


def _give_up(database: Database, *, audit_keep_days: int) -> None:
    forget_old(database, days=audit_keep_days, stop_after_s=_STOP_AFTER_S)
    apply_rules(database, stop_after_s=_STOP_AFTER_S)
