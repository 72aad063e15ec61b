"""Dataset revisions: immutable sets of labelled images with a train / validation split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from defectoscope.database import Database, DatasetItem, DatasetRevision, Image, Label, Split
from defectoscope.errors import DatasetNotFound, InvalidDataset
from defectoscope.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionEntry:
    """A labelled image and the side of the split it goes to."""

    label_id: int
    name: str
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One labelled image of a revision, with the object keys of both files."""

    image_id: int
    label_id: int
    name: str
    split: Split
    image_key: str
    image_sha256: str
    label_key: str
    label_sha256: str


def create_revision(
    *, database: Database, storage: Storage, name: str, entries: Sequence[RevisionEntry]
) -> DatasetRevision:
    """Write a manifest and the revision that it defines; an unchanged set gives back the revision it already is.

    Args:
        database: where the revision is recorded.
        storage: where its manifest goes.
        name: the dataset's name.
        entries: at least one for each side of the split; an image stands on one side only.

    Raises:
        InvalidDataset: a side is empty, an image is on both sides, or a label is unknown.
    """
    with database.transaction() as session:
        members = _resolve(session, entries)
        counts = Counter(member.split for member in members)
        for split in Split:
            if not counts[split]:
                raise InvalidDataset(f"The dataset has no {split} image.", split=split.value)
        manifest = _manifest(name, members)
        sha256 = hashlib.sha256(manifest).hexdigest()
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"dataset:{name}"})
        known = session.scalar(
            select(DatasetRevision).where(DatasetRevision.name == name, DatasetRevision.sha256 == sha256)
        )
        if known is not None:
            return known
        key = f"datasets/{sha256}.json"
        storage.put(key, manifest, content_type="application/json")
        last = session.scalar(select(func.max(DatasetRevision.number)).where(DatasetRevision.name == name)) or 0
        revision = DatasetRevision(
            name=name,
            number=last + 1,
            sha256=sha256,
            manifest_key=key,
            train_count=counts[Split.TRAIN],
            val_count=counts[Split.VAL],
        )
        session.add(revision)
        session.flush()
        session.execute(
            insert(DatasetItem),
            [
                {
                    "revision_id": revision.id,
                    "image_id": member.image_id,
                    "label_id": member.label_id,
                    "name": member.name,
                    "split": member.split,
                }
                for member in members
            ],
        )
        session.refresh(revision)
        return revision


def _resolve(session: Session, entries: Sequence[RevisionEntry]) -> list[LabelledImage]:
    rows = {
        label.id: (label, image)
        for label, image in session.execute(
            select(Label, Image)
            .join(Image, Image.id == Label.image_id)
            .where(Label.id.in_([entry.label_id for entry in entries]))
        )
    }
    members: dict[int, LabelledImage] = {}
    for entry in entries:
        if entry.label_id not in rows:
            raise InvalidDataset(f"There is no label {entry.label_id}.", label_id=entry.label_id)
        label, image = rows[entry.label_id]
        earlier = members.get(image.id)
        if earlier is not None:
            if earlier.split is not entry.split:
                raise InvalidDataset(
                    f"{entry.name} and {earlier.name} are the same image on both sides of the split.",
                    names=[earlier.name, entry.name],
                )
            continue
        members[image.id] = LabelledImage(
            image_id=image.id,
            label_id=label.id,
            name=entry.name,
            split=entry.split,
            image_key=image.key,
            image_sha256=image.sha256,
            label_key=label.key,
            label_sha256=label.sha256,
        )
    return sorted(members.values(), key=lambda member: (member.name, member.image_sha256))


def _manifest(name: str, members: Sequence[LabelledImage]) -> bytes:
    """Return the canonical bytes of a manifest: the same set always hashes the same."""
    items = [
        {
            "name": member.name,
            "split": member.split.value,
            "image_sha256": member.image_sha256,
            "label_sha256": member.label_sha256,
        }
        for member in members
    ]
    return json.dumps({"dataset": name, "items": items}, sort_keys=True, indent=1).encode()


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
    rows = session.execute(
        select(DatasetItem, Image, Label)
        .join(Image, Image.id == DatasetItem.image_id)
        .join(Label, Label.id == DatasetItem.label_id)
        .where(DatasetItem.revision_id == revision_id)
        .order_by(DatasetItem.name)
    )
    return [
        LabelledImage(
            image_id=image.id,
            label_id=label.id,
            name=item.name,
            split=item.split,
            image_key=image.key,
            image_sha256=image.sha256,
            label_key=label.key,
            label_sha256=label.sha256,
        )
        for item, image, label in rows
    ]
