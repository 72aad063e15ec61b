"""What writers call so that no object is deleted between the moment they rely on it and the row that points at it.

Keys made of a content's hash are used again: an object may have been nobody's for a month, and a worker may point at it
a moment after the collector looked. Age alone cannot tell, and S3 deletes without conditions. Hence an agreement over
one advisory lock, `COLLECTOR_LOCK`, that is never held during a request to the storage:

1. The collector takes the lock alone, asks which of its old objects rows and leases point at, writes the others down as
   condemned, and commits. Then it deletes them, and only then writes that they are deleted.
2. A writer stores its objects, writes the rows that point at them, takes the lock with all other writers, and asks for
   its keys among the condemned, as its last statement before the commit (`confirm_stored`).

Either the writer's commit comes first, and the collector sees the rows; or the collector's does, and the writer sees
its keys condemned. A key that is being deleted makes the writer begin again a little later (`ObjectsBeingDeleted`).
One that was deleted may have been stored again since, so the writer looks: nobody can condemn it while the writer holds
the lock, and an object that is there stays. One that is gone is stored again by the next attempt.

A collector that dies leaves its keys condemned and the request perhaps on its way. They count as being deleted for
`SETTLED_S`, and a collector sends no request later than `SEND_WITHIN_S` after it condemned. What is not excluded: a
collector that is stopped between its last look at the clock and its request, and continued minutes later.

A lease works the other way round: first the row, then the look (`lease_objects`). It is for clients, who are told that
a content need not be sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from defectoscope.database import Database
from defectoscope.errors.storage import ObjectsBeingDeleted
from defectoscope.objects.kinds import kind_of
from defectoscope.storage import Storage

#: Text whose hash is the number of the advisory lock.
COLLECTOR_LOCK = "objects.collector"
#: After so long a request to delete has had its effect or never will.
SETTLED_S = 120.0
#: A collector that has not sent its request by then lets it be.
SEND_WITHIN_S = 30.0

_LOCK = text(f"SELECT pg_advisory_xact_lock_shared(hashtext('{COLLECTOR_LOCK}'))")
# A statement after the one that locks: it sees what the collector committed before it gave the lock up.
_CONDEMNED = text("""
    SELECT key, deleted_at IS NULL AND condemned_at > clock_timestamp() - make_interval(secs => :settled_s)
    FROM condemned_objects WHERE key = ANY(CAST(:keys AS text[]))
""")
# In one order everywhere: two requests with the same files then wait for each other and never deadlock.
_LEASE = text("""
    INSERT INTO object_leases (key, expires_at)
    SELECT key, now() + make_interval(secs => :seconds) FROM unnest(CAST(:keys AS text[])) AS wanted (key) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET expires_at = greatest(object_leases.expires_at, excluded.expires_at)
""")


def confirm_stored(session: Session, storage: Storage, keys: Iterable[str]) -> None:
    """Make sure that objects are there and stay, as the last statement of the transaction that points at them.

    Args:
        session: of the transaction, with the rows that point at the objects written.
        storage: our own bucket.
        keys: of the objects; those of nobody's kind are passed over.

    Raises:
        ObjectsBeingDeleted: some were collected meanwhile. Roll back, store them again, and write the rows again.
        StorageUnavailable: it could not be looked.
    """
    wanted = sorted({key for key in keys if kind_of(key) is not None})
    if not wanted:
        return
    gone = [key for key, is_being_deleted in _condemned(session, wanted) if is_being_deleted or not storage.exists(key)]
    if gone:
        raise ObjectsBeingDeleted(keys=gone[:10], count=len(gone))


def lease_objects(session: Session, keys: Sequence[str], *, lasts: timedelta) -> None:
    """Keep objects for a while, whether they are there yet or not. Look whether they are there after the commit.

    Args:
        session: of the transaction.
        keys: any number.
        lasts: how long; a longer lease stays as it is.

    Raises:
        ObjectsBeingDeleted: some are being collected at this moment; try again in a few seconds.
    """
    session.execute(_LEASE, {"keys": sorted(set(keys)), "seconds": lasts.total_seconds()})
    being_deleted = [key for key, is_being_deleted in _condemned(session, keys) if is_being_deleted]
    if being_deleted:
        raise ObjectsBeingDeleted(keys=being_deleted[:10], count=len(being_deleted))


@contextmanager
def keeping_all(database: Database) -> Iterator[None]:
    """Have no object condemned within the block, however long it lasts; writers go on.

    Takes a connection of its own. A collector that comes by leaves its objects to the next walk.

    Raises:
        DatabaseUnavailable: the connection, and the lock with it, was lost before the end.
    """
    with database.transaction() as session:
        # An idle transaction is ended elsewhere, so that a stopped process keeps no locks. This one is idle on purpose.
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        session.execute(_LOCK)
        yield
        # Says whether the lock was held to the end.
        session.execute(text("SELECT 1"))


def own_key(uri: str, *, bucket: str) -> str | None:
    """Return the key of an object that the system wrote, by its address; None for every other address."""
    key = uri.removeprefix(f"s3://{bucket}/")
    return key if key != uri and kind_of(key) is not None else None


def _condemned(session: Session, keys: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the keys among those condemned of late, and whether they may be being deleted at this moment."""
    session.flush()
    session.execute(_LOCK)
    found = session.execute(_CONDEMNED, {"keys": list(keys), "settled_s": SETTLED_S})
    return [(key, is_being_deleted) for key, is_being_deleted in found]
