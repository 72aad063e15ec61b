"""Chooses the threshold and the minimum area a model is released with, on the validation images.

What is chosen is what is served: the masks are those of the serving functions. Where the images cannot support a choice
(no defects, or costs without clean images) the recipe's own values stay, and a sentence says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from defectoscope.errors.api import InvalidRequest
from defectoscope.registry.bootstrap import Interval, bootstrap_mean
from defectoscope.segmentation import Engine, ModelContract, find_lowest_level
from trainer.data import LabelledFile
from trainer.threshold_sweep import Sweep, sweep

#: Levels of the model's output, 0 to 255, that are tried as thresholds, beside the recipe's own.
CANDIDATE_LEVELS = tuple(range(8, 249, 10))
#: Minimum areas that are tried, in pixels of the image, beside the recipe's own.
CANDIDATE_MIN_AREAS_PX = (0, 4, 16, 64, 256)

#: Differences of means that are only rounding.
_ROUNDING = 1e-9
#: One group more that was right throughout and one that was wrong: see `bootstrap_mean`.
_PSEUDO_GROUPS = (0.0, 1.0)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a wrong verdict costs, in any unit, the same for both.

    Attributes:
        escape: of a defective image that is called clean, at least 0.
        false_call: of a clean image that is called defective, at least 0; one of the two is above 0.
        defect_share: of the images in production, in (0, 1); that of the validation images when None. Validation
            sets often hold more defects than a line does.
    """

    escape: float
    false_call: float
    defect_share: float | None = None

    def __post_init__(self) -> None:
        values = (self.escape, self.false_call)
        if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
            raise InvalidRequest("The costs of a wrong verdict must not be negative, and one must be above 0.")
        if self.defect_share is not None and not 0 < self.defect_share < 1:
            raise InvalidRequest("The share of defective images must be above 0 and below 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFigures:
    """What one threshold and minimum area give.

    Attributes:
        threshold: in (0, 1].
        min_area_px: in pixels of the image.
        mean_iou: of the defect class, over the images.
        escape_rate: share of the defective images that are called clean; None where there are none.
        false_call_rate: share of the clean images that are called defective; None where there are none.
        expected_cost: of an image, in the unit of the costs; None where no costs are stated or a rate is unknown.
    """

    threshold: float
    min_area_px: int
    mean_iou: float
    escape_rate: float | None
    false_call_rate: float | None
    expected_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """The values a model is released with, and what supports them.

    The figures come from the images on which the values were chosen, and flatter them a little. The verdict of an
    image is defective where a defect is claimed outside the ignored pixels.

    Attributes:
        threshold: in (0, 1].
        min_area_px: in pixels of the image.
        tuned: whether they were chosen here; if not they are the recipe's.
        objective: "iou": the largest mean IoU; "cost": the least expected cost of an image.
        note: one sentence: how they were chosen, or why not, and what is unknown.
        images: validation images.
        defective_images: of these, with a defect in the label.
        clean_images: of these, with background only in the label.
        escape_rate: with its 95 % interval; None without defective images.
        false_call_rate: with its 95 % interval; None without clean images.
        chosen: the figures at these values; None without images.
        recipe: the figures at the recipe's own values; None without images.
        curve: the figures at every threshold tried, at the chosen minimum area.
        costs: as stated.
    """

    threshold: float
    min_area_px: int
    tuned: bool
    objective: Literal["iou", "cost"]
    note: str
    images: int
    defective_images: int
    clean_images: int
    escape_rate: Interval | None
    false_call_rate: Interval | None
    chosen: PointFigures | None
    recipe: PointFigures | None
    curve: tuple[PointFigures, ...]
    costs: Costs | None

    def apply(self, contract: ModelContract) -> ModelContract:
        """Return the contract with these values."""
        return replace(contract, threshold=self.threshold, min_area_px=self.min_area_px)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values, by the names of the attributes."""
        return asdict(self)


def choose_operating_point(
    files: Sequence[LabelledFile],
    *,
    engine: Engine,
    contract: ModelContract,
    costs: Costs | None = None,
    batch_size: int = 8,
    check: Callable[[], None] = lambda: None,
) -> OperatingPoint:
    """Choose the threshold and the minimum area of a model.

    By the largest mean per-image IoU of the defect class or, where costs are stated, by the least expected cost of an
    image (Elkan 2001, The Foundations of Cost-Sensitive Learning)::

        share * escape_rate * escape + (1 - share) * false_call_rate * false_call

    Of candidates that are equal in this, those of the largest mean IoU remain, and of these the threshold nearest the
    recipe's and then the minimum area nearest the recipe's (by ratio). Every image goes through the engine once.

    Args:
        files: validation images, with their groups; they are decoded a batch at a time.
        engine: runs the model.
        contract: of that model; its threshold and minimum area are the recipe's own.
        costs: of wrong verdicts; None chooses by IoU.
        batch_size: images handed to the engine at once.
        check: asked before each batch whether to stop; it raises what it means.

    Returns:
        The values; the recipe's own, with ``tuned`` false, where the images have no defects, or costs are stated and
        there are no clean images.

    Raises:
        InvalidDataset: a file cannot be used.
        InvalidModel: the engine's output does not keep the contract.
    """
    swept = sweep(
        files,
        engine=engine,
        contract=contract,
        thresholds=_thresholds(contract.threshold),
        min_areas_px=sorted({*CANDIDATE_MIN_AREAS_PX, contract.min_area_px}),
        batch_size=batch_size,
        check=check,
    )
    own = (swept.thresholds.index(contract.threshold), swept.min_areas_px.index(contract.min_area_px))
    figures = _Figures(swept, costs=costs)
    note, tuned = _explain(swept, costs=costs)
    row, column = _best(figures, own=own) if tuned else own
    groups = [file.group for file in files]
    called = swept.is_called[:, row, column]
    return OperatingPoint(
        threshold=swept.thresholds[row],
        min_area_px=swept.min_areas_px[column],
        tuned=tuned,
        objective="iou" if costs is None else "cost",
        note=note,
        images=len(files),
        defective_images=int(swept.is_defective.sum()),
        clean_images=int(swept.is_clean.sum()),
        escape_rate=_bound(~called, among=swept.is_defective, groups=groups),
        false_call_rate=_bound(called, among=swept.is_clean, groups=groups),
        chosen=figures.at(row, column) if files else None,
        recipe=figures.at(*own) if files else None,
        curve=tuple(figures.at(tried, column) for tried in range(len(swept.thresholds))) if files else (),
        costs=costs,
    )


class _Figures:
    """Means over the images for each candidate, (T, A) float64; rates are None where there is nothing to average."""

    def __init__(self, swept: Sweep, *, costs: Costs | None) -> None:
        self.swept = swept
        self.iou = swept.iou.mean(axis=0, dtype=np.float64) if len(swept.iou) else np.zeros(swept.iou.shape[1:])
        self.escape = _mean(~swept.is_called[swept.is_defective])
        self.false_call = _mean(swept.is_called[swept.is_clean])
        self.cost: FloatArray | None = None
        if costs is not None and self.escape is not None and self.false_call is not None:
            judged = int(swept.is_defective.sum() + swept.is_clean.sum())
            share = costs.defect_share or float(swept.is_defective.sum()) / judged
            self.cost = share * self.escape * costs.escape + (1 - share) * self.false_call * costs.false_call

    def at(self, row: int, column: int) -> PointFigures:
        escape, false_call, cost = (
            None if values is None else float(values[row, column])
            for values in (self.escape, self.false_call, self.cost)
        )
        return PointFigures(
            threshold=self.swept.thresholds[row],
            min_area_px=self.swept.min_areas_px[column],
            mean_iou=float(self.iou[row, column]),
            escape_rate=escape,
            false_call_rate=false_call,
            expected_cost=cost,
        )


def _thresholds(own: float) -> list[float]:
    """Return the candidates, ascending; the recipe's own stands for its level and keeps its every digit."""
    own_level = find_lowest_level(own)
    return sorted({level / 255 for level in CANDIDATE_LEVELS if level != own_level} | {own})


def _mean(values: npt.NDArray[np.bool_]) -> FloatArray | None:
    return values.mean(axis=0, dtype=np.float64) if len(values) else None


def _best(figures: _Figures, *, own: tuple[int, int]) -> tuple[int, int]:
    """Return the row and column of the candidate to take."""
    swept = figures.swept
    remain = np.ones((len(swept.thresholds), len(swept.min_areas_px)), dtype=np.bool_)
    if figures.cost is not None:
        remain &= figures.cost <= figures.cost.min() + _ROUNDING * (1 + figures.cost.max())
    remain &= figures.iou >= figures.iou[remain].max() - _ROUNDING
    own_threshold, own_area_px = swept.thresholds[own[0]], swept.min_areas_px[own[1]]

    def distance(candidate: tuple[int, int]) -> tuple[float, float]:
        row, column = candidate
        ratio = math.log((swept.min_areas_px[column] + 1) / (own_area_px + 1))
        return abs(swept.thresholds[row] - own_threshold), abs(ratio)

    rows, columns = np.nonzero(remain)
    return min(zip(rows.tolist(), columns.tolist(), strict=True), key=distance)


def _bound(is_wrong: npt.NDArray[np.bool_], *, among: npt.NDArray[np.bool_], groups: Sequence[str]) -> Interval | None:
    if not among.any():
        return None
    chosen = [group for group, counts in zip(groups, among.tolist(), strict=True) if counts]
    return bootstrap_mean(is_wrong[among].astype(np.float64), chosen, pseudo_groups=_PSEUDO_GROUPS)


def _explain(swept: Sweep, *, costs: Costs | None) -> tuple[str, bool]:
    """Say whether the images support a choice, and why."""
    stays = "the recipe's threshold and minimum area stay"
    if not len(swept.is_defective):
        return f"There are no validation images, so that {stays}.", False
    if not swept.is_defective.any():
        return f"No validation image shows a defect, so that {stays} and the rate of escapes is unknown.", False
    if not swept.is_clean.any():
        if costs is not None:
            return f"No validation image is clean, so that false calls cannot be weighed and {stays}.", False
        return "Chosen by IoU on images that all show a defect; the rate of false calls is unknown.", True
    aim = "the largest mean IoU" if costs is None else "the least expected cost of an image"
    return f"Chosen for {aim} on {len(swept.is_defective)} validation images.", True
