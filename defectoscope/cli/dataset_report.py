"""Says what an import took, what it left out and why, for people and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from defectoscope.cli.dataset_staging import StagedPicture
from defectoscope.cli.job_report import group_errors
from defectoscope.cli.output import print_table, say
from defectoscope.dataset.formats import LeftOut, Remark
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.segmentation import IGNORED

if TYPE_CHECKING:
    from defectoscope.client.wire import CreatedDataset


def check_any(usable: Sequence[object], left_out: Sequence[LeftOut], *, as_json: bool) -> None:
    """Refuse an import of nothing, with the reasons.

    Raises:
        InvalidDataset: nothing is usable.
    """
    if usable:
        return
    if not as_json:
        print_findings("Left out", left_out)
    groups = group_errors((item.name, {"code": item.code, "message": item.reason}) for item in left_out)
    why = f" Most often: {groups[0].message}" if groups else ""
    raise InvalidDataset(f"There is no image that can be used with its label.{why}", left_out=to_json(left_out))


def read_moves(dataset: CreatedDataset) -> list[Remark]:
    """Return which images are not where, or not what, was asked, and why."""
    return [Remark(move["name"], move["code"], move["message"]) for move in dataset["moves"]]


def count_taken(taken: Sequence[StagedPicture]) -> dict[str, int]:
    """Count what was taken, by what the labels show."""
    return {
        "images": len(taken),
        "with_defects": sum(1 in picture.classes for picture in taken),
        "clean": sum(1 not in picture.classes for picture in taken),
        "with_ignored_pixels": sum(IGNORED in picture.classes for picture in taken),
    }


def print_taken(taken: Sequence[StagedPicture]) -> None:
    """Print what was taken, in one line."""
    counts = count_taken(taken)
    images = "image" if counts["images"] == 1 else "images"
    ignored = f", {counts['with_ignored_pixels']} with ignored pixels" if counts["with_ignored_pixels"] else ""
    say()
    say(f"Taken: {counts['images']} {images}, {counts['with_defects']} with defects, {counts['clean']} clean{ignored}")


def print_findings(title: str, findings: Sequence[LeftOut | Remark]) -> None:
    """Print findings by their code, the most frequent first, or nothing where there are none."""
    if not findings:
        return
    say()
    say(f"{title}: {len(findings)}", style="bold")
    groups = group_errors((item.name, {"code": item.code, "message": item.reason}) for item in findings)
    print_table(
        {"count": "right", "code": "left", "why": "left", "for example": "left"},
        [[group.count, group.code, group.message, ", ".join(group.names)] for group in groups],
        empty="",
    )


def to_json(findings: Sequence[LeftOut | Remark]) -> list[dict[str, str]]:
    """Return findings as JSON has them."""
    return [dataclasses.asdict(finding) for finding in findings]
