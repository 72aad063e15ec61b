"""Quarantine: an image that took down its workers until it was given up is not handed to one again by a later job.

It is remembered by its content, or by its address and etag where no worker lived to read it. People let it out.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from defectoscope.database import Database, QuarantinedImage
from defectoscope.errors.jobs import QuarantinedImageNotFound
from defectoscope.inspection.chunks import ClaimedChunk

_QUARANTINE = text("""
    INSERT INTO quarantined_images (sha256, source_uri, source_etag, name, job_id)
    SELECT chunks.suspect_sha256, job_items.source_uri, job_items.source_etag, job_items.name, job_items.job_id
    FROM job_items JOIN chunks ON chunks.id = job_items.chunk_id
    WHERE job_items.chunk_id = :chunk_id AND job_items.state = 'pending'
    ON CONFLICT DO NOTHING
""")
_SUSPECT = text("""
    UPDATE chunks SET suspect_sha256 = :sha256
    WHERE id = :chunk_id AND lease_token = :token AND state = 'running' AND suspect_sha256 IS DISTINCT FROM :sha256
""")


def quarantine_images(session: Session, chunk_id: int) -> None:
    """Remember what is pending in a chunk that is given up because its workers were lost; once for each image."""
    session.flush()
    session.execute(_QUARANTINE, {"chunk_id": chunk_id})


def note_suspect(*, database: Database, chunk: ClaimedChunk, sha256: str) -> None:
    """Write down the content of an image before anything is done with it, in case its worker does not survive that.

    Args:
        database: where it is written, and committed.
        chunk: of one image, as claimed; nothing happens when it is no longer ours.
        sha256: of the bytes that were read.
    """
    with database.transaction() as session:
        session.execute(_SUSPECT, {"chunk_id": chunk.chunk_id, "token": chunk.token, "sha256": sha256})


def list_quarantined(session: Session, *, before: int | None = None, limit: int = 50) -> Sequence[QuarantinedImage]:
    """Return images in quarantine, the latest first, those with an id below ``before``."""
    statement = select(QuarantinedImage)
    if before is not None:
        statement = statement.where(QuarantinedImage.id < before)
    return session.scalars(statement.order_by(QuarantinedImage.id.desc()).limit(limit)).all()


def release_image(*, database: Database, quarantined_id: int) -> QuarantinedImage:
    """Let an image out: jobs hand it to workers again, from their next claims on.

    Returns:
        What it was.

    Raises:
        QuarantinedImageNotFound: nothing in quarantine has this id.
    """
    with database.transaction() as session:
        found = session.get(QuarantinedImage, quarantined_id)
        if found is None:
            raise QuarantinedImageNotFound(
                f"There is no image {quarantined_id} in quarantine.", quarantined_id=quarantined_id
            )
        session.delete(found)
        return found
