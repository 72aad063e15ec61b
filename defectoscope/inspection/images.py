"""Images and labels as rows: each known by its content, written once whoever comes first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import BigInteger, String, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from defectoscope.database import Image, Label


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """An image that was decoded. Sizes in pixels, upright.

    Attributes:
        part_id: the part or place it shows, if known.
        perceptual_hash: 64 bits, signed, if it was computed.
    """

    sha256: str
    key: str
    size_bytes: int
    width: int
    height: int
    format: str
    source_mode: str
    source_uri: str
    part_id: str | None = None
    perceptual_hash: int | None = None


def register_images(session: Session, facts: Iterable[ImageFacts]) -> dict[str, int]:
    """Write images that are not known yet, and what is not known yet of those that are: their part and their hash.

    Returns:
        Content hash to image id.
    """
    # In one order everywhere: two chunks that share images can then wait for each other but never deadlock.
    images = sorted({image.sha256: image for image in facts}.values(), key=lambda image: image.sha256)
    if not images:
        return {}
    session.execute(insert(Image).on_conflict_do_nothing(), [dataclasses.asdict(image) for image in images])
    told = [image for image in images if image.part_id is not None or image.perceptual_hash is not None]
    if told:
        part, perceptual_hash = bindparam("part", type_=String), bindparam("perceptual", type_=BigInteger)
        # The connection's: many rows at once, in their order.
        session.connection().execute(
            update(Image)
            .where(Image.sha256 == bindparam("content"))
            .where(
                or_(
                    and_(Image.part_id.is_(None), part.is_not(None)),
                    and_(Image.perceptual_hash.is_(None), perceptual_hash.is_not(None)),
                )
            )
            .values(
                part_id=func.coalesce(Image.part_id, part),
                perceptual_hash=func.coalesce(Image.perceptual_hash, perceptual_hash),
            ),
            [{"content": image.sha256, "part": image.part_id, "perceptual": image.perceptual_hash} for image in told],
        )
    hashes = [image.sha256 for image in images]
    return dict(session.execute(select(Image.sha256, Image.id).where(Image.sha256.in_(hashes))).all())


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
