"""Keeps which side of the split each image is on. Written once for an image; nothing here changes or deletes a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ARRAY, BigInteger, any_, func, literal, select, text
from sqlalchemy.orm import Session

from defectoscope.database import DatasetItem, DatasetRevision, Image, SplitAssignment
from defectoscope.dataset.groups import Placed
from defectoscope.dataset.splits import Decision

#: Held by whoever decides on sides, so that two imports at once agree. Any number that nothing else uses.
_LOCK = 0x5B117


def lock_assignments(session: Session) -> None:
    """Wait until no other transaction decides on sides; holds until this one ends."""
    # An import of very many images takes longer than the time that one waits for an ordinary lock.
    session.execute(text("SET LOCAL lock_timeout = '55s'"))
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def load_assignments(session: Session) -> list[Placed]:
    """Return every image that has its side, under the name that it has in the latest revision of a dataset."""
    latest = select(func.max(DatasetRevision.id)).group_by(DatasetRevision.name)
    names = (
        select(DatasetItem.image_id, func.min(DatasetItem.name).label("name"))
        .where(DatasetItem.revision_id.in_(latest))
        .group_by(DatasetItem.image_id)
        .subquery()
    )
    rows = session.execute(
        select(
            SplitAssignment.image_id,
            names.c.name,
            SplitAssignment.split,
            SplitAssignment.group_key,
            Image.part_id,
            Image.perceptual_hash,
            Image.width,
            Image.height,
        )
        .join(Image, Image.id == SplitAssignment.image_id)
        .outerjoin(names, names.c.image_id == SplitAssignment.image_id)
        .order_by(SplitAssignment.image_id)
    )
    return [
        Placed(
            image_id=image_id,
            name=name or f"image {image_id}",
            split=split,
            group_key=group_key,
            part=part,
            perceptual_hash=perceptual_hash,
            size_wh=(width, height),
        )
        for image_id, name, split, group_key, part, perceptual_hash, width, height in rows
    ]


def save_assignments(session: Session, decisions: Sequence[Decision]) -> None:
    """Write new sides."""
    if not decisions:
        return
    # One array a column: a statement of a parameter a value would be over PostgreSQL's limit, and slow.
    session.execute(
        text(
            "INSERT INTO split_assignments (image_id, split, group_key, reason) SELECT * FROM unnest("
            "CAST(:image_ids AS bigint[]), CAST(:splits AS text[]), CAST(:groups AS text[]), CAST(:reasons AS text[]))"
        ),
        {
            "image_ids": [decision.image_id for decision in decisions],
            "splits": [decision.split.value for decision in decisions],
            "groups": [decision.group_key for decision in decisions],
            "reasons": [decision.reason.value for decision in decisions],
        },
    )


def remember_parts(session: Session, parts: Mapping[int, str]) -> None:
    """Write which part images show, by image id, where that is not known yet."""
    if not parts:
        return
    # In the order of content, as `register_images` does: two writers can then wait for each other but never deadlock.
    unknown = session.scalars(
        select(Image.id)
        .where(Image.id == any_(literal(list(parts), ARRAY(BigInteger))), Image.part_id.is_(None))
        .order_by(Image.sha256)
        .with_for_update(key_share=True)
    ).all()
    session.execute(
        text(
            "UPDATE images SET part_id = given.part FROM unnest("
            "CAST(:image_ids AS bigint[]), CAST(:parts AS text[])) AS given (image_id, part) "
            "WHERE images.id = given.image_id"
        ),
        {"image_ids": list(unknown), "parts": [parts[image_id] for image_id in unknown]},
    )
