"""Images and labels as rows: each known by its content, written once whoever comes first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import BigInteger, String, and_, bindparam, func, or_, text, update
from sqlalchemy.orm import Session

from defectoscope.database import Image

_ADD_IMAGES = text("""
    INSERT INTO images (sha256, key, size_bytes, width, height, format, source_mode, source_uri, part_id,
        perceptual_hash)
    SELECT * FROM unnest(
        CAST(:sha256 AS text[]), CAST(:key AS text[]), CAST(:size_bytes AS bigint[]), CAST(:width AS bigint[]),
        CAST(:height AS bigint[]), CAST(:format AS text[]), CAST(:source_mode AS text[]), CAST(:source_uri AS text[]),
        CAST(:part_id AS text[]), CAST(:perceptual_hash AS bigint[])
    ) ON CONFLICT DO NOTHING
""")
_FIND_IMAGES = text("""
    SELECT sha256, id, deleted_at IS NOT NULL AS is_deleted FROM images WHERE sha256 = ANY(CAST(:sha256s AS text[]))
""")
_RESTORE_IMAGES = text("UPDATE images SET deleted_at = NULL WHERE id = ANY(CAST(:ids AS bigint[]))")
_ADD_LABELS = text("""
    INSERT INTO labels (image_id, key, sha256, defect_px, source, author)
    SELECT image_id, key, sha256, defect_px, :source, CAST(:author AS text) FROM unnest(
        CAST(:image_ids AS bigint[]), CAST(:keys AS text[]), CAST(:sha256s AS text[]), CAST(:defect_pxs AS bigint[])
    ) AS rows (image_id, key, sha256, defect_px)
    ON CONFLICT DO NOTHING
""")
_FIND_LABELS = text("""
    SELECT labels.image_id, labels.sha256, labels.id FROM labels
    JOIN unnest(CAST(:image_ids AS bigint[]), CAST(:sha256s AS text[])) AS wanted (image_id, sha256)
        ON wanted.image_id = labels.image_id AND wanted.sha256 = labels.sha256
""")


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


#: Columns of an image, as in the statement that adds them.
_FACTS = tuple(fact.name for fact in fields(ImageFacts))


def register_images(session: Session, facts: Iterable[ImageFacts]) -> dict[str, int]:
    """Write images that are not known yet, and what is not known yet of those that are: their part and their hash.

    Returns:
        Content hash to image id.
    """
    # In one order everywhere: two chunks that share images can then wait for each other but never deadlock.
    images = sorted({image.sha256: image for image in facts}.values(), key=lambda image: image.sha256)
    if not images:
        return {}
    session.execute(_ADD_IMAGES, {name: [getattr(image, name) for image in images] for name in _FACTS})
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
    found = session.execute(_FIND_IMAGES, {"sha256s": [image.sha256 for image in images]}).all()
    if given_up := sorted(row.id for row in found if row.is_deleted):
        # Retention had deleted the bytes; whoever registers them has just stored them again.
        session.execute(_RESTORE_IMAGES, {"ids": given_up})
    return {row.sha256: row.id for row in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """A ground-truth mask of a registered image."""

    image_id: int
    key: str
    sha256: str
    defect_px: int


def register_labels(
    session: Session, labels: Iterable[LabelRow], *, source: str, author: str | None = None
) -> dict[tuple[int, str], int]:
    """Write labels that are not known yet.

    Returns:
        Image id and content hash to label id.
    """
    # In one order everywhere, as the images are.
    rows = sorted(labels, key=lambda label: (label.image_id, label.sha256))
    values: dict[str, Any] = {
        "image_ids": [label.image_id for label in rows],
        "keys": [label.key for label in rows],
        "sha256s": [label.sha256 for label in rows],
        "defect_pxs": [label.defect_px for label in rows],
    }
    session.execute(_ADD_LABELS, {**values, "source": source, "author": author})
    found = session.execute(_FIND_LABELS, {name: values[name] for name in ("image_ids", "sha256s")})
    return {(image_id, sha256): label_id for image_id, sha256, label_id in found}


def register_label(
    session: Session, *, image_id: int, key: str, sha256: str, defect_px: int, source: str, author: str | None = None
) -> int:
    """Write a label that is not known yet and return its id."""
    label = LabelRow(image_id=image_id, key=key, sha256=sha256, defect_px=defect_px)
    return register_labels(session, [label], source=source, author=author)[image_id, sha256]
