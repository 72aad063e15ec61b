"""What people and processes ask of dataset revisions. Read only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from defectoscope.database import DatasetItem, DatasetRevision, Image, Label, Split
from defectoscope.errors.datasets import DatasetNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One labelled image of a revision, with the object keys of both files.

    Attributes:
        group: images of one group are never on both sides, and are resampled together; empty: the image alone.
    """

    image_id: int
    label_id: int
    name: str
    split: Split
    image_key: str
    image_sha256: str
    label_key: str
    label_sha256: str
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionItem:
    """A labelled image of a revision, and the size of both of its files in pixels."""

    image: LabelledImage
    size_wh: tuple[int, int]


def list_revisions(
    session: Session, *, before: int | None = None, limit: int = 50, name: str | None = None
) -> Sequence[DatasetRevision]:
    """Return revisions, newest first, those with an id below ``before``; of one dataset when it is named."""
    statement = select(DatasetRevision)
    if before is not None:
        statement = statement.where(DatasetRevision.id < before)
    if name is not None:
        statement = statement.where(DatasetRevision.name == name)
    return session.scalars(statement.order_by(DatasetRevision.id.desc()).limit(limit)).all()


def find_revision(session: Session, reference: str) -> DatasetRevision:
    """Return a revision by `name` (its latest) or `name@number`.

    Raises:
        DatasetNotFound: there is none.
    """
    name, _, number = reference.partition("@")
    statement = select(DatasetRevision).where(DatasetRevision.name == name)
    if number:
        statement = statement.where(DatasetRevision.number == (int(number) if number.isdecimal() else -1))
    revision = session.scalar(statement.order_by(DatasetRevision.number.desc()).limit(1))
    if revision is None:
        raise DatasetNotFound(f"There is no dataset {reference}.", dataset=reference)
    return revision


def labelled_images(session: Session, revision_id: int) -> list[LabelledImage]:
    """Return every labelled image of a revision, by name."""
    items = _items(session, revision_id, after=0, limit=None)
    return sorted((item.image for item in items), key=lambda image: (image.name, image.image_sha256))


def list_items(session: Session, revision_id: int, *, after: int = 0, limit: int) -> list[RevisionItem]:
    """Return labelled images of a revision by image id, those with an id above ``after``."""
    return _items(session, revision_id, after=after, limit=limit)


def new_labels_since(session: Session, revision: DatasetRevision, *, since_revision: DatasetRevision | None) -> int:
    """Count the labels of a revision that another has not; all of them where there is no other.

    An image of both whose label changed counts, an image that only changed its name does not.
    """
    mine, other = aliased(DatasetItem), aliased(DatasetItem)
    statement = select(func.count()).select_from(mine).where(mine.revision_id == revision.id)
    if since_revision is not None:
        is_there = (
            exists()
            .where(other.revision_id == since_revision.id)
            .where(other.image_id == mine.image_id, other.label_id == mine.label_id)
        )
        statement = statement.where(~is_there)
    return session.scalars(statement).one()


def _items(session: Session, revision_id: int, *, after: int, limit: int | None) -> list[RevisionItem]:
    rows = session.execute(
        select(DatasetItem, Image, Label)
        .join(Image, Image.id == DatasetItem.image_id)
        .join(Label, Label.id == DatasetItem.label_id)
        .where(DatasetItem.revision_id == revision_id, DatasetItem.image_id > after)
        .order_by(DatasetItem.image_id)
        .limit(limit)
    )
    return [
        RevisionItem(
            image=LabelledImage(
                image_id=image.id,
                label_id=label.id,
                name=item.name,
                split=item.split,
                image_key=image.key,
                image_sha256=image.sha256,
                label_key=label.key,
                label_sha256=label.sha256,
                # Revisions from before there were groups have none.
                group=item.group_key or f"image:{image.id}",
            ),
            size_wh=(image.width, image.height),
        )
        for item, image, label in rows
    ]
