"""The demands of the gate one by one: a measured figure, its limit, whether it holds, and the sentence that says so."""

from __future__ import annotations

from defectoscope.registry.bootstrap import Interval
from defectoscope.registry.decision import Check
from defectoscope.registry.gate_rules import GateRules

#: Differences of means that are only rounding.
_ROUNDING = 1e-12


def check_groups(difference: Interval, *, rules: GateRules) -> Check:
    """Demand enough groups of images for a comparison."""
    return Check(
        name="groups",
        holds=difference.groups >= rules.min_groups,
        figure=difference.groups,
        limit=rules.min_groups,
        sentence=f"the validation images fall into {difference.groups} groups and {rules.min_groups} are needed",
    )


def check_finds_defects(pooled_iou: float, *, defective_images: int, rules: GateRules) -> Check:
    """Demand that a version finds defects at all, however many images are clean."""
    limit = rules.floor_pooled_iou
    if not defective_images:
        sentence = "no validation image shows a defect, so that nothing can be said about finding them"
        return Check(name="finds_defects", holds=None, figure=None, limit=limit, sentence=sentence)
    return Check(
        name="finds_defects",
        holds=pooled_iou >= limit,
        figure=pooled_iou,
        limit=limit,
        sentence=f"the IoU over all pixels is {pooled_iou:.4f} and {limit:g} is needed",
    )


def check_floor(mean_iou: float, *, rules: GateRules) -> Check:
    """Demand an absolute mean IoU of a version that nobody can be compared with."""
    return Check(
        name="floor",
        holds=mean_iou >= rules.floor_mean_iou,
        figure=mean_iou,
        limit=rules.floor_mean_iou,
        sentence=f"the mean IoU is {mean_iou:.4f} and a first version needs {rules.floor_mean_iou:g}",
    )


def check_bound(name: str, difference: Interval, *, other: str, rules: GateRules) -> Check:
    """Demand that the data rule out a loss of more than the margin against another version, named in ``other``."""
    return Check(
        name=name,
        holds=difference.low >= -rules.margin - _ROUNDING,
        figure=difference.low,
        limit=-rules.margin,
        sentence=f"with {rules.confidence:g} confidence the mean IoU less that of {other} is at least "
        f"{difference.low:+.4f} and {-rules.margin:+g} is needed",
    )


def check_mean(mean_iou: float, *, champion_iou: float) -> Check:
    """Demand that the mean is not lower than the champion's."""
    return Check(
        name="mean",
        holds=mean_iou - champion_iou >= -_ROUNDING,
        figure=mean_iou - champion_iou,
        limit=0.0,
        sentence=f"the mean IoU is {mean_iou:.4f} and the champion's {champion_iou:.4f}",
    )


def check_slice(name: str, difference: float, *, groups: int, rules: GateRules) -> Check:
    """Demand that a slice loses little, or say that it has too few groups to tell."""
    is_judged = groups >= rules.min_slice_groups
    sentence = (
        f"in the slice {name} the mean IoU differs by {difference:+.4f} and at least {-rules.slice_margin:+g} is needed"
        if is_judged
        else f"the slice {name} was not judged: it has {groups} of {rules.min_slice_groups} groups"
    )
    return Check(
        name=f"slice:{name}",
        holds=difference >= -rules.slice_margin - _ROUNDING if is_judged else None,
        figure=difference,
        limit=-rules.slice_margin,
        sentence=sentence,
    )
