"""The promotion gate: may a challenger take the champion's place, judged by their scores on the same images?

It takes pixel counts and gives a decision with its reasons. It refuses to compare versions that did not see the same
images with the same labels, and it reads no database: whoever calls it has scored the versions and keeps the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectoscope.errors.models import ScoresNotComparable
from defectoscope.registry.bootstrap import SEED, FloatArray, Interval, bootstrap_mean
from defectoscope.registry.decision import Check, Decision
from defectoscope.registry.gate_checks import (
    check_bound,
    check_finds_defects,
    check_floor,
    check_groups,
    check_mean,
    check_slice,
)
from defectoscope.registry.gate_rules import GateRules, size_band
from defectoscope.segmentation import PixelCounts, pooled


@dataclass(frozen=True, slots=True, kw_only=True)
class GateImage:
    """An image of the validation side.

    Attributes:
        image_id: its key in the scores.
        group: images of the same group show the same part and are drawn together.
        slices: what must hold on its own beside the size bands, such as ("dataset:tiles",).
    """

    image_id: int
    group: str
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Scores:
    """One version on all images."""

    iou: FloatArray  # (N,) of the defect class
    pooled_iou: float

    @property
    def mean_iou(self) -> float:
        return float(self.iou.mean())

    def to_json(self) -> dict[str, float]:
        return {"mean_iou": self.mean_iou, "pooled_iou": self.pooled_iou}


def judge(
    images: Sequence[GateImage],
    *,
    challenger: Mapping[int, PixelCounts],
    champion: Mapping[int, PixelCounts] | None,
    best_ever: Mapping[int, PixelCounts] | None,
    rules: GateRules | None = None,
) -> Decision:
    """Decide whether a challenger is promoted.

    A challenger is promoted when all of this holds:

    - there are enough groups of images, and it finds defects at all (``floor_pooled_iou``);
    - the lower bound of the mean difference of its per-image defect IoU to the champion's is at least -``margin``
      (a paired test of non-inferiority by the bootstrap over groups);
    - the mean difference is not negative;
    - the same lower bound holds against the best version ever, so that losses too small to be seen do not add up;
    - in every slice with enough groups its mean is at most ``slice_margin`` lower. The slices are the bands of
      `size_band`, which the labels give, and those of the images. Smaller slices are reported as not judged.

    A challenger with the champion's very scores is promoted once there are enough groups (about 200 by the default
    rules) to rule out a hidden loss: it has seen newer labels and costs the users nothing. On fewer it is refused.

    A first version has nobody to be compared with. It needs defects in the validation images, a mean IoU of
    ``floor_mean_iou`` and ``floor_pooled_iou``, and no number of groups.

    Args:
        images: the current validation images, at least one, each once.
        challenger: pixel counts by image id, of the file that would be served.
        champion: the same of the version in service; None when there is none.
        best_ever: the same of the best version ever (see `Decision.is_new_best`); None when it is the champion.
        rules: the defaults when left out.

    Returns:
        The decision. Equal input gives an equal decision.

    Raises:
        ScoresNotComparable: there are no images, one is there twice, or a version was scored on other images or with
            other labels.
    """
    rules = rules or GateRules()
    _demand_comparable(images, challenger, champion, best_ever)
    groups = [image.group for image in images]
    ours = _score(images, challenger)
    counts = [challenger[image.image_id] for image in images]
    defective = sum(count.tp + count.fn > 0 for count in counts)
    figures: dict[str, Any] = {
        "images": len(images),
        "groups": len(set(groups)),
        "defective_images": defective,
        "challenger": ours.to_json(),
        "champion": None,
        "best_ever": None,
        "difference": None,
        "difference_to_best": None,
        "rules": rules.to_json(),
        "seed": SEED,
    }
    checks = [check_finds_defects(ours.pooled_iou, defective_images=defective, rules=rules)]
    slices = _slices(images, counts)
    if champion is None:
        checks.append(check_floor(ours.mean_iou, rules=rules))
        figures["slices"] = {name: _slice_figures(rows, groups, ours=ours) for name, rows in slices.items()}
        return _decide(checks, figures, is_new_best=True)

    theirs = _score(images, champion)
    difference = _bound(ours.iou - theirs.iou, groups, rules=rules)
    figures |= {"champion": theirs.to_json(), "difference": difference.to_json()}
    checks = [
        check_groups(difference, rules=rules),
        *checks,
        check_bound("lower_bound", difference, other="the champion", rules=rules),
        check_mean(ours.mean_iou, champion_iou=theirs.mean_iou),
    ]
    lead = difference
    if best_ever is not None:
        best = _score(images, best_ever)
        lead = _bound(ours.iou - best.iou, groups, rules=rules)
        figures |= {"best_ever": best.to_json(), "difference_to_best": lead.to_json()}
        if rules.ratchet:
            checks.append(check_bound("best_ever", lead, other="the best version ever", rules=rules))
    figures["slices"] = {name: _slice_figures(rows, groups, ours=ours, theirs=theirs) for name, rows in slices.items()}
    checks += [
        check_slice(name, found["difference"], groups=found["groups"], rules=rules)
        for name, found in figures["slices"].items()
    ]
    return _decide(checks, figures, is_new_best=lead.low > 0)


def _demand_comparable(images: Sequence[GateImage], *versions: Mapping[int, PixelCounts] | None) -> None:
    wanted = {image.image_id for image in images}
    if not images or len(wanted) != len(images):
        raise ScoresNotComparable("The gate needs at least one validation image, and each of them once.")
    scored = [version for version in versions if version is not None]
    for version in scored:
        differing = wanted ^ version.keys()
        if differing:
            raise ScoresNotComparable(
                f"The versions were not scored on the same images: {len(differing)} of them lack a score or are not "
                f"in the validation side, such as image {min(differing)}.",
                image_ids=sorted(differing)[:16],
            )
        # The label alone decides how many pixels count and how many of them are defect, whatever a version claims.
        relabelled = [key for key in wanted if _label_of(version[key]) != _label_of(scored[0][key])]
        if relabelled:
            raise ScoresNotComparable(
                f"The versions were scored with different labels of {len(relabelled)} images, such as image "
                f"{min(relabelled)}.",
                image_ids=sorted(relabelled)[:16],
            )


def _label_of(counts: PixelCounts) -> tuple[int, int]:
    return counts.tp + counts.fn, counts.fp + counts.tn


def _score(images: Sequence[GateImage], version: Mapping[int, PixelCounts]) -> _Scores:
    counts = [version[image.image_id] for image in images]
    return _Scores(np.array([count.iou_defect for count in counts], dtype=np.float64), pooled(counts).iou_defect)


def _bound(differences: FloatArray, groups: Sequence[str], *, rules: GateRules) -> Interval:
    return bootstrap_mean(
        differences,
        groups,
        tail=1 - rules.confidence,
        resamples=rules.resamples,
        pseudo_groups=(-rules.unseen_loss, rules.unseen_loss) if rules.unseen_loss else (),
    )


def _slices(images: Sequence[GateImage], counts: Sequence[PixelCounts]) -> dict[str, list[int]]:
    """Return the rows of the images in each slice, size bands first."""
    rows: dict[str, list[int]] = {f"size:{band}": [] for band in ("none", "small", "medium", "large")}
    for row, (image, count) in enumerate(zip(images, counts, strict=True)):
        defect_px, background_px = _label_of(count)
        for name in dict.fromkeys((f"size:{size_band(defect_px, defect_px + background_px)}", *image.slices)):
            rows.setdefault(name, []).append(row)
    return {name: found for name, found in rows.items() if found}


def _slice_figures(
    rows: list[int], groups: Sequence[str], *, ours: _Scores, theirs: _Scores | None = None
) -> dict[str, Any]:
    mean = float(ours.iou[rows].mean())
    champion = None if theirs is None else float(theirs.iou[rows].mean())
    return {
        "images": len(rows),
        "groups": len({groups[row] for row in rows}),
        "challenger": mean,
        "champion": champion,
        "difference": None if champion is None else mean - champion,
    }


def _decide(checks: Sequence[Check], figures: dict[str, Any], *, is_new_best: bool) -> Decision:
    promoted = not any(check.blocks for check in checks)
    return Decision(
        promoted=promoted,
        is_new_best=promoted and is_new_best,
        reason="; ".join(_reasons(checks, promoted=promoted)) + ".",
        checks=tuple(checks),
        figures=figures,
    )


def _reasons(checks: Sequence[Check], *, promoted: bool) -> Iterator[str]:
    if promoted:
        told = [check for check in checks if check.name in {"mean", "lower_bound", "floor", "finds_defects"}]
        yield "Promoted: " + "; ".join(check.sentence for check in told)
        unjudged = [check.name.removeprefix("slice:") for check in checks if check.holds is None]
        if unjudged:
            yield f"not judged for want of images: {', '.join(unjudged)}"
    else:
        yield "Refused: " + "; ".join(check.sentence for check in checks if check.blocks)
