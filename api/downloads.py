"""Sends stored files on. A browser shall save them and never run or show them as part of this site."""

from __future__ import annotations

from datetime import datetime

from fastapi import Response

from api.services import Services
from defectoscope.errors.retention import DeletedByRetention


def check_kept(deleted_at: datetime | None, what: str) -> None:
    """Raises: DeletedByRetention: it was given up."""
    if deleted_at is not None:
        moment = deleted_at.isoformat(timespec="seconds")
        raise DeletedByRetention(f"{what} was deleted by retention at {moment}.", deleted_at=moment)


def attach(services: Services, key: str, *, media_type: str, file_name: str) -> Response:
    """Return an object of our bucket as an attachment.

    Args:
        services: the parts to work with.
        key: the object.
        media_type: ours, never what an uploader claimed.
        file_name: ASCII, under which a browser saves it.

    Raises:
        ObjectNotFound: it is not stored.
    """
    return Response(
        services.storage.get(key),
        media_type=media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{file_name}"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
            # Stored under content hashes or written once: what was read stays true.
            "Cache-Control": "private, max-age=86400, immutable",
        },
    )
