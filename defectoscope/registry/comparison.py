"""Compares two versions on the validation images that both were scored on, and says what the gate makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from defectoscope.database import DatasetItem, DatasetRevision, Evaluation, Label, ModelVersion, Split
from defectoscope.errors.models import ScoresNotComparable
from defectoscope.registry.decision import Decision
from defectoscope.registry.evaluations import find_best_ever, find_evaluation
from defectoscope.registry.gate import GateImage, judge
from defectoscope.registry.gate_rules import GateRules
from defectoscope.registry.versions import SERVED_PRECISION, find_version
from defectoscope.segmentation import PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedImage:
    """A validation image under two versions.

    Attributes:
        image_id: of the image.
        name: that it has in the dataset revision.
        a: pixel counts of the first version.
        b: of the second one.
    """

    image_id: int
    name: str
    a: PixelCounts
    b: PixelCounts

    @property
    def difference(self) -> float:
        """IoU of the defect class under b, less that under a; in [-1, 1]."""
        return self.b.iou_defect - self.a.iou_defect


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Version b against version a.

    Attributes:
        a: number of the version in the champion's place.
        b: number of the version in the challenger's place.
        dataset: revision that both were scored on, such as ``steel@4``.
        best_ever: number of the third version that the gate looked at; None where it is a, b, or was not scored there.
        images: those on which b lost most first.
        decision: what the gate would say, with means, bounds and slices.
    """

    a: int
    b: int
    dataset: str
    best_ever: int | None
    images: Sequence[ComparedImage]
    decision: Decision


def compare(
    session: Session, a: int, b: int, *, revision_id: int | None = None, rules: GateRules | None = None
) -> Comparison:
    """Compare two versions by their fp32 files; b is what would replace a.

    Args:
        session: of a transaction.
        a: number of the version in the champion's place.
        b: number of the version in the challenger's place.
        revision_id: the dataset revision to compare on; None for the latest that both were scored on.
        rules: of the gate; its defaults when left out.

    Raises:
        ModelVersionNotFound: there is no such version.
        ScoresNotComparable: they are one version, or were not both scored there.
    """
    for number in (a, b):
        find_version(session, number)
    if a == b:
        raise ScoresNotComparable(f"Version {a} cannot be compared with itself; name two versions.")
    revision = _shared_revision(session, a, b, revision_id)
    scores = {number: find_evaluation(session, number=number, revision_id=revision.id) for number in (a, b)}
    best = find_best_ever(session)
    third: dict[int, PixelCounts] = {}
    if best is not None and best.number not in {a, b}:
        third = find_evaluation(session, number=best.number, revision_id=revision.id)
    decision = judge(
        gate_images(session, revision.id),
        challenger=scores[b],
        champion=scores[a],
        best_ever=third or None,
        rules=rules,
    )
    names = _names(session, revision.id)
    images = [
        ComparedImage(image_id=image_id, name=names[image_id], a=counts, b=scores[b][image_id])
        for image_id, counts in scores[a].items()
    ]
    return Comparison(
        a=a,
        b=b,
        dataset=f"{revision.name}@{revision.number}",
        best_ever=best.number if best is not None and third else None,
        images=sorted(images, key=lambda image: (image.difference, image.name)),
        decision=decision,
    )


def gate_images(session: Session, revision_id: int) -> list[GateImage]:
    """Return the validation images of a revision as the gate takes them.

    An image without a group is one of its own. Where a label came from is a slice: ``dataset:tiles``.
    """
    rows = session.execute(
        select(DatasetItem.image_id, DatasetItem.group_key, Label.source)
        .join(Label, Label.id == DatasetItem.label_id)
        .where(DatasetItem.revision_id == revision_id, DatasetItem.split == Split.VAL)
        .order_by(DatasetItem.image_id)
    )
    return [
        GateImage(
            image_id=image_id,
            group=group_key or f"image:{image_id}",
            slices=(source,) if source.startswith("dataset:") else (),
        )
        for image_id, group_key, source in rows
    ]


def _names(session: Session, revision_id: int) -> dict[int, str]:
    rows = session.execute(select(DatasetItem.image_id, DatasetItem.name).where(DatasetItem.revision_id == revision_id))
    return dict(rows.all())


def _shared_revision(session: Session, a: int, b: int, revision_id: int | None) -> DatasetRevision:
    scored = {number: _revisions(session, number) for number in (a, b)}
    wanted = scored[a].keys() & scored[b].keys()
    if revision_id is not None:
        wanted &= {revision_id}
    if wanted:
        return scored[a][max(wanted)]
    where = {number: [f"{row.name}@{row.number}" for row in rows.values()] for number, rows in scored.items()}
    told = " and ".join(f"version {number} on {', '.join(names) or 'no revision'}" for number, names in where.items())
    raise ScoresNotComparable(
        f"The two versions were not scored on the same dataset revision: {told}. A training run scores its version and "
        "the champion on its revision; start one, or compare versions that share one.",
        scored={str(number): names for number, names in where.items()},
    )


def _revisions(session: Session, number: int) -> dict[int, DatasetRevision]:
    """Return the revisions that a version's fp32 file was scored on, by id."""
    rows = session.scalars(
        select(DatasetRevision)
        .join(Evaluation, Evaluation.dataset_revision_id == DatasetRevision.id)
        .join(ModelVersion, ModelVersion.id == Evaluation.model_version_id)
        .where(ModelVersion.number == number, Evaluation.precision == SERVED_PRECISION)
        .order_by(DatasetRevision.id)
    )
    return {row.id: row for row in rows}
