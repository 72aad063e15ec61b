"""The statements of the collector: who holds the walk, how far it is, and what it has condemned."""

from __future__ import annotations

from sqlalchemy import text

from defectoscope.objects.safekeeping import COLLECTOR_LOCK

#: For so long it is remembered what was deleted: longer than any work takes between storing and its commit.
REMEMBERED = "7 days"

LOCK_WALKS = text("SELECT pg_advisory_xact_lock(hashtext('objects.walks'))")
IS_HELD = text("SELECT id FROM object_collections WHERE finished_at IS NULL AND lease_expires_at > now()")
BEGIN = text("""
    INSERT INTO object_collections (started_at)
    SELECT now() WHERE NOT EXISTS (
        SELECT FROM object_collections
        WHERE finished_at IS NULL OR started_at > now() - make_interval(secs => :every_s)
    )
""")
TAKE = text("""
    UPDATE object_collections SET lease_owner = :owner, lease_token = lease_token + 1,
        lease_expires_at = now() + make_interval(secs => :lease_s)
    WHERE finished_at IS NULL RETURNING id, lease_token, cursor
""")
RENEW = text("""
    UPDATE object_collections SET lease_expires_at = now() + make_interval(secs => :lease_s)
    WHERE id = :id AND lease_token = :token AND finished_at IS NULL RETURNING id
""")
RELEASE = text("""
    UPDATE object_collections SET lease_owner = NULL, lease_expires_at = NULL WHERE id = :id AND lease_token = :token
""")
ADVANCE = text("""
    UPDATE object_collections SET cursor = :cursor, lease_expires_at = now() + make_interval(secs => :lease_s),
        examined_objects = examined_objects + :examined_objects, examined_bytes = examined_bytes + :examined_bytes,
        deleted_objects = deleted_objects + :deleted_objects, deleted_bytes = deleted_bytes + :deleted_bytes
    WHERE id = :id AND lease_token = :token AND finished_at IS NULL RETURNING id
""")
FINISH = text("""
    UPDATE object_collections SET finished_at = now(), lease_owner = NULL, lease_expires_at = NULL,
        aborted_uploads = aborted_uploads + :aborted_uploads
    WHERE id = :id AND lease_token = :token AND finished_at IS NULL
    RETURNING examined_objects, examined_bytes, deleted_objects, deleted_bytes, aborted_uploads
""")
LEASED = text("SELECT key FROM object_leases WHERE key = ANY(CAST(:keys AS text[])) AND expires_at > now()")
# Tried for and not waited for: who waits for the lock alone makes every writer behind it wait too.
TRY_LOCK = text(f"SELECT pg_try_advisory_xact_lock(hashtext('{COLLECTOR_LOCK}'))")
CONDEMN = text("""
    INSERT INTO condemned_objects (key, condemned_at)
    SELECT key, clock_timestamp() FROM unnest(CAST(:keys AS text[])) AS condemned (key)
    ON CONFLICT (key) DO UPDATE SET condemned_at = excluded.condemned_at, deleted_at = NULL
""")
SETTLE = text("UPDATE condemned_objects SET deleted_at = now() WHERE key = ANY(CAST(:keys AS text[]))")
FORGET = text(f"""
    WITH forgotten AS (DELETE FROM object_leases WHERE expires_at < now())
    DELETE FROM condemned_objects WHERE condemned_at < now() - interval '{REMEMBERED}'
""")  # noqa: S608 -- a constant
