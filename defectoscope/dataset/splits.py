"""Decides on which side of the split new images go, once and for ever; images of one group never part.

A decision is never revised: no network is then ever scored on what it or its predecessor was trained on. Nothing is
read or written here; `assignments` keeps the decisions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from defectoscope.database import Split
from defectoscope.dataset.groups import Candidate, Group, Placed, find_groups
from defectoscope.dataset.similarity import find_alike

_SIDE_NAMES = {Split.TRAIN: "training", Split.VAL: "validation"}


class Reason(StrEnum):
    """Why an image is on its side."""

    GIVEN = "given"
    PART = "part"
    NEAR_DUPLICATE = "near_duplicate"
    DRAWN = "drawn"


class MoveCode(StrEnum):
    """What happened to an image that is not where, or not what, was asked."""

    SPLIT_KEPT = "split_kept"
    DUPLICATE_OF_VALIDATION = "duplicate_of_validation"
    DUPLICATE_OF_TRAINING = "duplicate_of_training"
    IMAGE_TWICE = "image_twice"
    TOO_ALIKE = "too_alike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """An image whose side the server decided otherwise than asked, or that was left out, and why.

    Attributes:
        name: the image.
        split: the side that it, or the image that it is the same as, is on.
        code: stable, for programs.
        message: one sentence.
    """

    name: str
    split: Split
    code: MoveCode
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The side of an image, from now on."""

    image_id: int
    split: Split
    group_key: str
    reason: Reason


def decide(
    candidates: Sequence[Candidate],
    placed: Sequence[Placed],
    *,
    counted: Mapping[tuple[Split, bool], int],
    val_fraction: float,
) -> tuple[list[Decision], list[Move]]:
    """Decide on the sides of new images.

    Args:
        candidates: those without a side, of one dataset.
        placed: all that have one.
        counted: images of this dataset that have one, by side and by whether they show a defect.
        val_fraction: the share of validation that is aimed at where no side is asked, among images with a defect and
            among those without.

    Returns:
        One decision for each candidate, in their order, and what the caller did not expect.
    """
    if not candidates:
        return [], []
    everything: list[Candidate | Placed] = [*candidates, *placed]
    alike = find_alike([image.perceptual_hash for image in everything], [image.size_wh for image in everything])
    groups = find_groups(candidates, placed, alike.pairs)
    required = [_required_split(group, candidates) for group in groups]
    drawn = _draw(groups, required, counted=counted, val_fraction=val_fraction)
    decisions: dict[int, Decision] = {}
    moves: dict[int, Move] = {}
    for group, split in zip(groups, required, strict=True):
        for at in group.members:
            reason = Reason.DRAWN if split is None else _reason(at, group, split, candidates)
            decisions[at] = Decision(
                image_id=candidates[at].image_id,
                split=split or drawn[group.key],
                group_key=group.key,
                reason=reason,
            )
            if split is not None and (move := _move(at, group, split, reason, candidates)):
                moves[at] = move
    crowd = [at for at in sorted(alike.crowded) if at < len(candidates) and candidates[at].part is None]
    told = [moves[at] for at in sorted(moves)]
    if crowd:
        first = crowd[0]
        told.append(
            Move(
                name=candidates[first].name,
                split=decisions[first].split,
                code=MoveCode.TOO_ALIKE,
                message=f"{len(crowd)} images look so much alike that near-duplicates among them cannot be told; "
                "name the part that each of them shows.",
            )
        )
    return [decisions[at] for at in range(len(candidates))], told


def _required_split(group: Group, candidates: Sequence[Candidate]) -> Split | None:
    """Return the side that a group must be on; None where nothing says so."""
    if group.links:
        return group.links[0].placed.split
    asked = {candidates[at].asked for at in group.members}
    return next((split for split in (Split.VAL, Split.TRAIN) if split in asked), None)


def _reason(at: int, group: Group, split: Split, candidates: Sequence[Candidate]) -> Reason:
    if candidates[at].asked is split:
        return Reason.GIVEN
    _, by_part = _cause(at, group, split, candidates)
    return Reason.PART if by_part else Reason.NEAR_DUPLICATE


def _cause(at: int, group: Group, split: Split, candidates: Sequence[Candidate]) -> tuple[str, bool]:
    """Return the name of the image for whose sake one is on its side, and whether they show one part."""
    part = candidates[at].part
    links = [link for link in group.links if link.placed.split is split]
    # Its own link before that of another of its group.
    links.sort(key=lambda link: not (link.placed.part == part if link.by_part else link.candidate == at))
    if links:
        return links[0].placed.name, links[0].by_part and links[0].placed.part == part
    others = [candidates[other] for other in group.members if candidates[other].asked is split]
    others.sort(key=lambda other: part is None or other.part != part)
    return others[0].name, part is not None and others[0].part == part


def _move(at: int, group: Group, split: Split, reason: Reason, candidates: Sequence[Candidate]) -> Move | None:
    """Tell where an image went if that is not what was asked, or if it was found to be a near-duplicate."""
    asked = candidates[at].asked
    # Where nothing was asked, an image that joins its part is no surprise, and neither is a copy of a training image.
    if asked is split or (asked is None and (reason is not Reason.NEAR_DUPLICATE or split is Split.TRAIN)):
        return None
    name, by_part = _cause(at, group, split, candidates)
    shown = f"It shows the same part as {name}" if by_part else f"It looks the same as {name}"
    code = MoveCode.DUPLICATE_OF_VALIDATION if split is Split.VAL else MoveCode.DUPLICATE_OF_TRAINING
    return Move(name=candidates[at].name, split=split, code=code, message=f"{shown}, which is in {side_name(split)}.")


def _draw(
    groups: Sequence[Group],
    required: Sequence[Split | None],
    *,
    counted: Mapping[tuple[Split, bool], int],
    val_fraction: float,
) -> dict[str, Split]:
    """Give each group that may go anywhere its side, by name, in an order that depends on the names alone."""
    tally: Counter[tuple[Split, bool]] = Counter(counted)
    free: list[Group] = []
    for group, split in zip(groups, required, strict=True):
        if split is None:
            free.append(group)
        else:
            tally[split, group.shows_defect] += len(group.members)
    free.sort(key=lambda group: _order(group.key))
    drawn: dict[str, Split] = {}
    for stratum in (True, False):
        mine = [group for group in free if group.shows_defect is stratum]
        total = tally[Split.TRAIN, stratum] + tally[Split.VAL, stratum] + sum(len(group.members) for group in mine)
        for group in mine:
            # To validation where that comes nearer to its share than leaving the group out of it.
            is_val = tally[Split.VAL, stratum] + len(group.members) / 2 < val_fraction * total
            drawn[group.key] = Split.VAL if is_val else Split.TRAIN
            tally[drawn[group.key], stratum] += len(group.members)
    for empty, full in ((Split.VAL, Split.TRAIN), (Split.TRAIN, Split.VAL)):
        images = tally[full, True] + tally[full, False]
        is_empty = not (tally[empty, True] or tally[empty, False])
        if is_empty and free and images > len((group := _to_change_over(free)).members):
            drawn[group.key] = empty
    return drawn


def _to_change_over(free: Sequence[Group]) -> Group:
    """Return the group that goes to a side that would be empty: a small one, since there is only a handful."""
    # A side without a defect teaches and proves little, unless the other side would then have none.
    defective = [group for group in free if group.shows_defect]
    pool = defective if len(defective) > 1 else [group for group in free if not group.shows_defect] or defective
    return min(pool, key=lambda group: len(group.members))


def _order(group_key: str) -> bytes:
    """Return what puts names in an order that has nothing to do with what they mean."""
    return hashlib.sha256(group_key.encode()).digest()


def side_name(split: Split) -> str:
    """Return what a side is called in a sentence.

    >>> side_name(Split.VAL)
    'validation'
    """
    return _SIDE_NAMES[split]
