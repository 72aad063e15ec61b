"""Puts images into groups that must never be on both sides of the split.

A group is the images of one part where parts are named, else the images that look the same, else one image. Two named
parts are never one group, however much they look alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from defectoscope.database import Split
from defectoscope.dataset.similarity import Components


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image that has no side yet.

    Attributes:
        asked: the side that the caller wants, if any.
        part: what it shows, if known.
        perceptual_hash: as `similarity` computes it, if known.
        size_wh: pixels.
        shows_defect: by its label.
    """

    image_id: int
    sha256: str
    name: str
    asked: Split | None
    part: str | None
    perceptual_hash: int | None
    size_wh: tuple[int, int]
    shows_defect: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An image that has its side, in any dataset."""

    image_id: int
    name: str
    split: Split
    group_key: str
    part: str | None
    perceptual_hash: int | None
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """From a new image to one that has its side: they show one part, or look the same."""

    candidate: int
    placed: Placed
    by_part: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """New images that go to one side together.

    Attributes:
        key: its name: that of the group it joins, or by its part, or by its content, so that it is one everywhere.
        members: positions among the candidates.
        links: to images that have their side, the one that says most first.
        shows_defect: whether any member does.
    """

    key: str
    members: list[int]
    links: list[Link]
    shows_defect: bool


def find_groups(
    candidates: Sequence[Candidate], placed: Sequence[Placed], pairs: Iterable[tuple[int, int]]
) -> list[Group]:
    """Put the candidates into groups, and find what each group has to do with images that have their side.

    Args:
        candidates: images without a side.
        placed: images with one.
        pairs: of near-duplicates, by position among candidates and then placed images, the smaller one first.
    """
    count = len(candidates)
    everything: list[Candidate | Placed] = [*candidates, *placed]
    components = Components(count)
    links: dict[int, list[Link]] = defaultdict(list)
    first_of_part: dict[str, int] = {}
    for at, candidate in enumerate(candidates):
        if candidate.part is not None:
            components.join(first_of_part.setdefault(candidate.part, at), at)
    for image in placed:
        if image.part in first_of_part:
            at = first_of_part[image.part]
            links[at].append(Link(candidate=at, placed=image, by_part=True))
    part_of = {components.root(at): part for part, at in first_of_part.items()}
    for first, second in pairs:
        if first >= count or (everything[first].part is not None and everything[second].part is not None):
            continue
        if second < count:
            roots = {components.root(first), components.root(second)}
            parts = {part_of[root] for root in roots if root in part_of}
            # Nor do they become one through an image that looks like both: it goes with the first.
            if len(parts) <= 1:
                components.join(first, second)
                part_of.update((components.root(first), part) for part in parts)
        else:
            links[first].append(Link(candidate=first, placed=placed[second - count], by_part=False))
    members: dict[int, list[int]] = defaultdict(list)
    for at in range(count):
        members[components.root(at)].append(at)
    return [_new_group(group, [link for at in group for link in links[at]], candidates) for group in members.values()]


def _new_group(members: list[int], links: list[Link], candidates: Sequence[Candidate]) -> Group:
    # Its part before its looks; and what has to do with both sides goes to validation.
    links.sort(key=lambda link: (not link.by_part, link.placed.split is not Split.VAL, link.placed.image_id))
    part = next((candidates[at].part for at in members if candidates[at].part is not None), None)
    if links:
        key = links[0].placed.group_key
    elif part is not None:
        key = f"part:{part}"
    else:
        key = f"image:{min(candidates[at].sha256 for at in members)}"
    shows_defect = any(candidates[at].shows_defect for at in members)
    return Group(key=key, members=members, links=links, shows_defect=shows_defect)
