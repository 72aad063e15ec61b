"""Images and labels as rows: each known by its content, written once whoever comes first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from defectoscope.database import Image, Label


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """An image that was decoded. Sizes in pixels, upright."""

    sha256: str
    key: str
    size_bytes: int
    width: int
    height: int
    format: str
    source_mode: str
    source_uri: str


def register_images(session: Session, facts: Iterable[ImageFacts]) -> dict[str, int]:
    """Write images that are not known yet.

    Returns:
        Content hash to image id.
    """
    rows = {
        image.sha256: {
            "sha256": image.sha256,
            "key": image.key,
            "size_bytes": image.size_bytes,
            "width": image.width,
            "height": image.height,
            "format": image.format,
            "source_mode": image.source_mode,
            "source_uri": image.source_uri,
        }
        for image in facts
    }
    if not rows:
        return {}
    # In one order everywhere: two chunks that share images can then wait for each other but never deadlock.
    session.execute(insert(Image).on_conflict_do_nothing(), [rows[sha256] for sha256 in sorted(rows)])
    return dict(session.execute(select(Image.sha256, Image.id).where(Image.sha256.in_(rows))).all())


def register_label(
    session: Session, *, image_id: int, key: str, sha256: str, defect_px: int, source: str, author: str | None = None
) -> int:
    """Write a label that is not known yet and return its id."""
    session.execute(
        insert(Label)
        .values(image_id=image_id, key=key, sha256=sha256, defect_px=defect_px, source=source, author=author)
        .on_conflict_do_nothing()
    )
    return session.scalars(select(Label.id).where(Label.image_id == image_id, Label.sha256 == sha256)).one()
