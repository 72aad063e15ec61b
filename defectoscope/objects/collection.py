"""The collector: walks our bucket in key order, in bounded steps, and deletes old objects that no row points at.

One collector at a time holds the walk, by a lease; another goes on where a dead one stopped. `safekeeping.py` says why
nothing is deleted that somebody points at a moment later. Nothing outside the prefixes of `KINDS` is looked at.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from defectoscope.database import Database
from defectoscope.errors.retention import CollectionRunning
from defectoscope.events import record_event
from defectoscope.objects import collection_sql as sql
from defectoscope.objects.kinds import KINDS, Kind, find_pointed, kind_of
from defectoscope.objects.safekeeping import SEND_WITHIN_S
from defectoscope.storage import ObjectInfo, Storage

#: Objects looked at in one step: one page of a listing.
STEP_OBJECTS = 1000
#: A collector that is silent for so long is taken for dead. A step takes seconds.
LEASE_S = 120
#: How often the lock is tried for; writers hold it for the moment of their commit.
_LOCK_ATTEMPTS = 100
_LOCK_PAUSE_S = 0.05

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Collection:
    """What a walk came to, so far.

    ``unreferenced`` counts the objects that were, or in a survey would be, deleted, by the name of their kind.
    """

    is_finished: bool = False
    examined_objects: int = 0
    examined_bytes: int = 0
    deleted_objects: int = 0
    deleted_bytes: int = 0
    unreferenced: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """A walk that this process holds."""

    walk_id: int
    token: int
    cursor: str


class StaleUploads(Protocol):
    """What aborts uploads in parts that were begun and never ended: `storage.Buckets`."""

    def abort_uploads(self, prefix: str, *, before: datetime) -> int:
        """Abort those below a prefix that began before a moment, and return how many."""


class _Lost(Exception):
    """Another collector holds the walk now."""


def survey(*, database: Database, storage: Storage, bucket: str, grace: timedelta) -> Collection:
    """Walk the whole bucket and count what would be deleted; nothing is.

    Args:
        database: says what is pointed at.
        storage: our own bucket.
        bucket: its name.
        grace: younger objects stay.
    """
    found = Collection()
    cursor = ""
    with database.transaction() as session:
        before = session.scalars(select(func.now())).one() - grace
    while step := list(islice(_walk(storage, cursor), STEP_OBJECTS)):
        cursor = step[-1].key
        with database.transaction() as session:
            _count(found, step, _unreferenced(session, step, before=before, bucket=bucket))
    found.is_finished = True
    return found


def collect(
    *,
    database: Database,
    storage: Storage,
    bucket: str,
    grace: timedelta,
    owner: str,
    every: timedelta = timedelta(0),
    stop_after_s: float = float("inf"),
    uploads: StaleUploads | None = None,
    prepare: Callable[[], object] | None = None,
) -> Collection | None:
    """Begin a walk, or go on with one that nobody holds, and delete what no row has pointed at for the time of grace.

    Args:
        database: says what is pointed at, and how far the walk has come.
        storage: our own bucket.
        bucket: its name.
        grace: younger objects stay: longer than any work takes between storing an object and its commit.
        owner: host and process, for people.
        every: a walk begins no sooner than this after the one before began.
        stop_after_s: no further step begins after this; the walk goes on with the next call.
        uploads: of our own bucket, when those that were begun and never ended shall be aborted too.

        prepare: called before a walk begins, for up to half a lease: gives up what is pointed at for too long.

    Returns:
        What this call did; None when no walk is due.

    Raises:
        CollectionRunning: another process holds the walk.
        StorageUnavailable, DatabaseUnavailable: call again later; what was done stays.
    """
    started_s = time.monotonic()
    walk = _take(database, owner=owner, every=every)
    if walk is None:
        return None
    if prepare is not None and not walk.cursor:
        prepare()
    done = Collection()
    try:
        while True:
            walk = _step(walk, done, database=database, storage=storage, bucket=bucket, grace=grace)
            if done.is_finished or time.monotonic() - started_s > stop_after_s:
                break
        if done.is_finished:
            aborted = 0 if uploads is None else _abort_uploads(uploads, database=database, grace=grace)
            _finish(walk, database=database, aborted_uploads=aborted)
            return done
    except _Lost:
        log.warning("collection.lost", walk=walk.walk_id)
        return done
    with database.transaction() as session:
        session.execute(sql.RELEASE, {"id": walk.walk_id, "token": walk.token})
    return done


def _take(database: Database, *, owner: str, every: timedelta) -> _Walk | None:
    with database.transaction() as session:
        # Of two at the same moment the second waits here, and then finds the walk of the first.
        session.execute(sql.LOCK_WALKS)
        if session.scalars(sql.IS_HELD).one_or_none() is not None:
            raise CollectionRunning
        session.execute(sql.BEGIN, {"every_s": every.total_seconds()})
        taken = session.execute(sql.TAKE, {"owner": owner, "lease_s": LEASE_S}).one_or_none()
        if taken is None:
            return None
        # What a predecessor left condemned is looked at again by this walk, or was by its own.
        session.execute(sql.FORGET)
        return _Walk(walk_id=taken.id, token=taken.lease_token, cursor=taken.cursor)


def _step(
    walk: _Walk, done: Collection, *, database: Database, storage: Storage, bucket: str, grace: timedelta
) -> _Walk:
    """Look at the next objects, delete those that may go, and move the cursor."""
    step = list(islice(_walk(storage, walk.cursor), STEP_OBJECTS))
    with database.transaction() as session:
        before: datetime = session.scalars(select(func.now())).one() - grace
        candidates = _unreferenced(session, step, before=before, bucket=bucket)
    condemned: list[ObjectInfo] = []
    if candidates:
        began_s = time.monotonic()
        with database.transaction() as session:
            _renew(session, walk)
            if not _lock_alone(session):
                # Somebody holds the lock for long. The next walk comes by here again.
                log.warning("collection.objects_left", walk=walk.walk_id, objects=len(candidates))
                candidates = []
            # Asked again, now that nobody can come to point at them before they are condemned.
            condemned = _unreferenced(session, candidates, before=before, bucket=bucket)
            if condemned:
                session.execute(sql.CONDEMN, {"keys": [info.key for info in condemned]})
        if condemned and time.monotonic() - began_s < SEND_WITHIN_S:
            storage.delete(info.key for info in condemned)
        elif condemned:
            log.warning("collection.too_slow", walk=walk.walk_id, objects=len(condemned))
            condemned = []
    _count(done, step, condemned, deleted=True)
    done.is_finished = len(step) < STEP_OBJECTS
    cursor = step[-1].key if step else walk.cursor
    with database.transaction() as session:
        session.execute(sql.SETTLE, {"keys": [info.key for info in condemned]})
        _advance(session, walk, step, condemned, cursor=cursor)
    return _Walk(walk_id=walk.walk_id, token=walk.token, cursor=cursor)


def _walk(storage: Storage, cursor: str) -> Iterator[ObjectInfo]:
    """List the objects of every kind after a key; prefixes are in key order, and so is what is listed."""
    for kind in KINDS:
        if cursor < kind.prefix or cursor.startswith(kind.prefix):
            yield from storage.list(kind.prefix, start_after=cursor or None)


def _unreferenced(session: Session, infos: Sequence[ObjectInfo], *, before: datetime, bucket: str) -> list[ObjectInfo]:
    """Return the objects that are older than a moment and that neither a row nor a lease points at."""
    by_kind: dict[str, tuple[Kind, list[ObjectInfo]]] = {}
    for info in infos:
        kind = kind_of(info.key)
        if kind is not None and info.modified_at < before:
            by_kind.setdefault(kind.name, (kind, []))[1].append(info)
    free: list[ObjectInfo] = []
    for kind, old in by_kind.values():
        keys = [info.key for info in old]
        kept = find_pointed(session, kind, keys, bucket=bucket)
        kept.update(session.scalars(sql.LEASED, {"keys": keys}))
        free.extend(info for info in old if info.key not in kept)
    return free


def _lock_alone(session: Session) -> bool:
    """Take the lock that writers share, without making any of them wait behind us."""
    for _ in range(_LOCK_ATTEMPTS):
        if session.scalars(sql.TRY_LOCK).one():
            return True
        time.sleep(_LOCK_PAUSE_S)
    return False


def _renew(session: Session, walk: _Walk) -> None:
    renewed = session.scalar(sql.RENEW, {"id": walk.walk_id, "token": walk.token, "lease_s": LEASE_S})
    if renewed is None:
        raise _Lost


def _advance(
    session: Session, walk: _Walk, step: Sequence[ObjectInfo], deleted: Sequence[ObjectInfo], *, cursor: str
) -> None:
    advanced = session.scalar(
        sql.ADVANCE,
        {
            "id": walk.walk_id,
            "token": walk.token,
            "lease_s": LEASE_S,
            "cursor": cursor,
            "examined_objects": len(step),
            "examined_bytes": sum(info.size_bytes for info in step),
            "deleted_objects": len(deleted),
            "deleted_bytes": sum(info.size_bytes for info in deleted),
        },
    )
    if advanced is None:
        raise _Lost


def _abort_uploads(uploads: StaleUploads, *, database: Database, grace: timedelta) -> int:
    with database.transaction() as session:
        before = session.scalars(select(func.now())).one() - grace
    return sum(uploads.abort_uploads(kind.prefix, before=before) for kind in KINDS)


def _finish(walk: _Walk, *, database: Database, aborted_uploads: int) -> None:
    with database.transaction() as session:
        totals = session.execute(
            sql.FINISH, {"id": walk.walk_id, "token": walk.token, "aborted_uploads": aborted_uploads}
        ).one_or_none()
        if totals is None:
            raise _Lost
        facts = totals._asdict()
        if totals.deleted_objects or aborted_uploads:
            record_event(
                session,
                kind="storage.collected",
                subject=f"object_collection:{walk.walk_id}",
                message=f"{totals.deleted_objects} stored objects that nothing refers to were deleted.",
                **facts,
            )
    log.info("collection.finished", walk=walk.walk_id, **facts)


def _count(found: Collection, step: Sequence[ObjectInfo], free: Sequence[ObjectInfo], *, deleted: bool = False) -> None:
    found.examined_objects += len(step)
    found.examined_bytes += sum(info.size_bytes for info in step)
    found.unreferenced.update(kind.name for info in free if (kind := kind_of(info.key)) is not None)
    if deleted:
        found.deleted_objects += len(free)
        found.deleted_bytes += sum(info.size_bytes for info in free)
