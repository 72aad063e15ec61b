"""Dataset revisions: immutable sets of labelled images, each on its side of the split and in its group."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ARRAY, BigInteger, any_, func, literal, select, text
from sqlalchemy.orm import Session

from defectoscope.database import Database, DatasetItem, DatasetRevision, Image, Label, Split
from defectoscope.dataset.assignments import load_assignments, lock_assignments, remember_parts, save_assignments
from defectoscope.dataset.groups import Candidate, Placed
from defectoscope.dataset.splits import Move, MoveCode, decide, side_name
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.objects import confirm_stored
from defectoscope.storage import Storage

#: Share of the images that goes to validation where nothing else is said.
VAL_FRACTION = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionEntry:
    """A labelled image, the side of the split that is wished for it, and the part that it shows, if known."""

    label_id: int
    name: str
    split: Split | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedRevision:
    """A revision, whether it is new, and which images are not where, or not what, was asked."""

    revision: DatasetRevision
    is_new: bool
    moves: list[Move]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A labelled image of the revision to be."""

    image_id: int
    label_id: int
    name: str
    asked: Split | None
    part: str | None
    image_sha256: str
    label_sha256: str
    perceptual_hash: int | None
    size_wh: tuple[int, int]
    shows_defect: bool


def create_revision(
    *,
    database: Database,
    storage: Storage,
    name: str,
    entries: Sequence[RevisionEntry],
    extends: bool = False,
    val_fraction: float = VAL_FRACTION,
) -> CreatedRevision:
    """Decide on the sides of new images, write a manifest and the revision that it defines.

    An image keeps for ever, in every dataset, the side it has once been on. A new one goes where its group is, see
    `splits`. An unchanged set gives back the revision that it already is.

    Args:
        database: where the revision is recorded.
        storage: where its manifest goes.
        name: the dataset's name.
        entries: an image counts once, where it was asked for validation if it was.
        extends: whether what the latest revision has stays in; a new label of the same image replaces the old one.
        val_fraction: the share of validation that is aimed at where no side is asked, 0 to 1.

    Returns:
        The revision, and what the caller did not expect.

    Raises:
        InvalidDataset: a side is empty, or a label is unknown; nothing was written.
    """
    with database.transaction() as session:
        lock_assignments(session)
        base = _latest_members(session, name) if extends else []
        asked, moves_of_twins = _once(_resolve(session, entries))
        remember_parts(session, {member.image_id: member.part for member in asked if member.part is not None})
        replaced = {member.image_id for member in asked}
        wanted = [*(member for member in base if member.image_id not in replaced), *asked]
        placed, moves = _place(session, wanted, val_fraction=val_fraction)
        wanted.sort(key=lambda member: (member.name, member.image_sha256))
        members = [(member, placed[member.image_id]) for member in wanted]
        counts = Counter(split for _, (split, _) in members)
        for split in Split:
            if not counts[split]:
                raise InvalidDataset(f"The dataset has no {split} image.", split=split.value)
        twins = [replace(twin, split=placed[image_id][0]) for image_id, twin in moves_of_twins]
        revision, is_new = _store(session, storage, name, members, counts)
        told = sorted([*moves, *twins], key=lambda move: (move.name, move.code))
        return CreatedRevision(revision=revision, is_new=is_new, moves=told)


def _members(session: Session, label_ids: Sequence[int]) -> dict[int, _Member]:
    """Return what is known of labels and their images, by label id; names and sides are not."""
    rows = session.execute(
        select(
            Label.id,
            Label.sha256,
            Label.defect_px,
            Image.id,
            Image.sha256,
            Image.part_id,
            Image.perceptual_hash,
            Image.width,
            Image.height,
        )
        .join(Image, Image.id == Label.image_id)
        # One array is one parameter; PostgreSQL takes 65 535 at the most.
        .where(Label.id == any_(literal(list(label_ids), ARRAY(BigInteger))))
    )
    return {
        label_id: _Member(
            image_id=image_id,
            label_id=label_id,
            name="",
            asked=None,
            part=part,
            image_sha256=image_sha256,
            label_sha256=label_sha256,
            perceptual_hash=perceptual_hash,
            size_wh=(width, height),
            shows_defect=defect_px > 0,
        )
        for label_id, label_sha256, defect_px, image_id, image_sha256, part, perceptual_hash, width, height in rows
    }


def _resolve(session: Session, entries: Sequence[RevisionEntry]) -> list[_Member]:
    known = _members(session, [entry.label_id for entry in entries])
    for entry in entries:
        if entry.label_id not in known:
            raise InvalidDataset(f"There is no label {entry.label_id}.", label_id=entry.label_id)
    return [
        replace(
            known[entry.label_id],
            name=entry.name,
            asked=entry.split,
            # The part that is known already stays: groups were made by it.
            part=known[entry.label_id].part or entry.part,
        )
        for entry in entries
    ]


def _latest_members(session: Session, name: str) -> list[_Member]:
    """Return the members of the latest revision; none where there is no revision."""
    latest = session.scalar(select(func.max(DatasetRevision.id)).where(DatasetRevision.name == name))
    items = session.execute(
        select(DatasetItem.label_id, DatasetItem.name, DatasetItem.split).where(DatasetItem.revision_id == latest)
    ).all()
    known = _members(session, [label_id for label_id, _, _ in items])
    return [replace(known[label_id], name=item_name, asked=split) for label_id, item_name, split in items]


def _once(members: Sequence[_Member]) -> tuple[list[_Member], list[tuple[int, Move]]]:
    """Keep each image once, the first that asks for validation before the first; the others by image, with why."""
    kept: dict[int, _Member] = {}
    for member in members:
        earlier = kept.setdefault(member.image_id, member)
        if member.asked is Split.VAL is not earlier.asked:
            kept[member.image_id] = member
    parts = {member.image_id: member.part for member in reversed(members) if member.part is not None}
    twins = [
        (
            member.image_id,
            Move(
                name=member.name,
                split=kept[member.image_id].asked or Split.TRAIN,
                code=MoveCode.IMAGE_TWICE,
                message=f"It is the same image as {kept[member.image_id].name}, which is kept.",
            ),
        )
        for member in members
        if kept[member.image_id] is not member
    ]
    return [replace(member, part=parts.get(image_id)) for image_id, member in kept.items()], twins


def _place(
    session: Session, members: Sequence[_Member], *, val_fraction: float
) -> tuple[dict[int, tuple[Split, str]], list[Move]]:
    """Return side and group of each member by image id, after writing those that are new."""
    known: dict[int, Placed] = {image.image_id: image for image in load_assignments(session)}
    moves = [
        Move(
            name=member.name,
            split=known[member.image_id].split,
            code=MoveCode.SPLIT_KEPT,
            message=f"It has been in {side_name(known[member.image_id].split)} before and stays there.",
        )
        for member in members
        if member.image_id in known and member.asked not in (None, known[member.image_id].split)
    ]
    decisions, told = decide(
        [
            Candidate(
                image_id=member.image_id,
                sha256=member.image_sha256,
                name=member.name,
                asked=member.asked,
                part=member.part,
                perceptual_hash=member.perceptual_hash,
                size_wh=member.size_wh,
                shows_defect=member.shows_defect,
            )
            # In an order that does not depend on that of the request.
            for member in sorted(members, key=lambda member: member.image_sha256)
            if member.image_id not in known
        ],
        list(known.values()),
        counted=_count_strata(members, known),
        val_fraction=val_fraction,
    )
    save_assignments(session, decisions)
    placed = {image.image_id: (image.split, image.group_key) for image in known.values()}
    placed.update((decision.image_id, (decision.split, decision.group_key)) for decision in decisions)
    return placed, [*moves, *told]


def _count_strata(members: Sequence[_Member], known: dict[int, Placed]) -> Counter[tuple[Split, bool]]:
    """Count the members that have their side, by side and by whether their group shows a defect."""
    mine = [(known[member.image_id], member.shows_defect) for member in members if member.image_id in known]
    defective = {image.group_key for image, shows_defect in mine if shows_defect}
    return Counter((image.split, image.group_key in defective) for image, _ in mine)


def _store(
    session: Session,
    storage: Storage,
    name: str,
    members: Sequence[tuple[_Member, tuple[Split, str]]],
    counts: Counter[Split],
) -> tuple[DatasetRevision, bool]:
    """Write the revision, unless it is known; return it, and whether it is new."""
    manifest = _manifest(name, members)
    sha256 = hashlib.sha256(manifest).hexdigest()
    known = session.scalar(
        select(DatasetRevision).where(DatasetRevision.name == name, DatasetRevision.sha256 == sha256)
    )
    if known is not None:
        return known, False
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
        group_count=len({group for _, (_, group) in members}),
    )
    session.add(revision)
    session.flush()
    session.execute(
        text(
            "INSERT INTO dataset_items (revision_id, image_id, label_id, name, split, group_key) "
            "SELECT :revision_id, * FROM unnest(CAST(:image_ids AS bigint[]), CAST(:label_ids AS bigint[]), "
            "CAST(:names AS text[]), CAST(:splits AS text[]), CAST(:groups AS text[]))"
        ),
        {
            "revision_id": revision.id,
            "image_ids": [member.image_id for member, _ in members],
            "label_ids": [member.label_id for member, _ in members],
            "names": [member.name for member, _ in members],
            "splits": [split.value for _, (split, _) in members],
            "groups": [group for _, (_, group) in members],
        },
    )
    session.refresh(revision)
    confirm_stored(session, storage, [key])
    return revision, True


def _manifest(name: str, members: Sequence[tuple[_Member, tuple[Split, str]]]) -> bytes:
    """Return the canonical bytes of a manifest: the same set always hashes the same."""
    items = [
        {
            "name": member.name,
            "split": split.value,
            "group": group,
            "image_sha256": member.image_sha256,
            "label_sha256": member.label_sha256,
        }
        for member, (split, group) in members
    ]
    return json.dumps({"dataset": name, "items": items}, sort_keys=True, indent=1).encode()
