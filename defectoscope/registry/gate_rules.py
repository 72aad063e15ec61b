"""What the gate demands of a model version, as one frozen value that is kept with every decision.

The limits of the size bands stand here too: they decide which images must hold on their own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from defectoscope.errors.api import InvalidRequest

SizeBand = Literal["none", "small", "medium", "large"]

#: Defect share of the image below which its defect is small, and below which it is medium. A square of that share has
#: 5 % and 15 % of the image's side: what COCO's limits of 32 and 96 pixels are of its 640 (Lin et al. 2014).
SMALL_BELOW = 0.0025
MEDIUM_BELOW = 0.0225


def size_band(label_defect_px: int, image_px: int) -> SizeBand:
    """Say how much of an image is defect, by its label.

    Args:
        label_defect_px: defect pixels of the label, 0 to ``image_px``.
        image_px: pixels of the image that are not ignored.

    Returns:
        "none" for a clean image; "small" below 0.25 % of the image, "medium" below 2.25 %, "large" from there.
    """
    if label_defect_px == 0:
        return "none"
    share = label_defect_px / image_px
    if share < SMALL_BELOW:
        return "small"
    return "medium" if share < MEDIUM_BELOW else "large"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """The rules of promotion. IoU is the defect class's, 1.0 where nothing was there and nothing was claimed.

    Attributes:
        margin: loss of mean IoU per image that the data must rule out, in [0, 1].
        confidence: one-sided, in (0.5, 1): how sure the data must be of that.
        resamples: of the bootstrap, at least 100.
        unseen_loss: guards against rare losses that few images cannot show, in [0, 1]: the bootstrap draws from one
            group more that lost this much IoU and one more that gained it. At 0.5 even a challenger that leads by the
            same on every image has to lead by about 0.026 on 30 groups, 0.005 on 100 and nothing from 200 on. At 0 it
            is the plain bootstrap, which on 20 groups lets one in ten pass that are worse by twice the margin.
        min_groups: groups of validation images below which no challenger is judged, at least 1.
        slice_margin: loss of mean IoU that is allowed in a slice, in [0, 1]. It is held against the mean itself: a
            bound would ask for more images than most slices have.
        min_slice_groups: groups below which a slice is reported as not judged, at least 1.
        floor_mean_iou: mean IoU per image that a first version needs, in [0, 1].
        floor_pooled_iou: IoU over the pixels of all images that every version needs, in (0, 1]: a model that calls
            everything clean has 0, however many of the images are clean.
        ratchet: whether the best version ever is a judge too. For experiments; switched off, many small losses that
            each pass as noise may add up.
    """

    margin: float = 0.005
    confidence: float = 0.95
    resamples: int = 10_000
    unseen_loss: float = 0.5
    min_groups: int = 10
    slice_margin: float = 0.03
    min_slice_groups: int = 10
    floor_mean_iou: float = 0.2
    floor_pooled_iou: float = 0.1
    ratchet: bool = True

    def __post_init__(self) -> None:
        for name in ("margin", "unseen_loss", "slice_margin", "floor_mean_iou"):
            _demand(0 <= getattr(self, name) <= 1, name, "must be from 0 to 1")
        _demand(0 < self.floor_pooled_iou <= 1, "floor_pooled_iou", "must be above 0 and at most 1")
        _demand(0.5 < self.confidence < 1, "confidence", "must be above 0.5 and below 1")  # noqa: PLR2004 -- one half
        _demand(self.resamples >= 100, "resamples", "must be at least 100")  # noqa: PLR2004 -- one in the 1 % tail
        _demand(self.min_groups >= 1, "min_groups", "must be at least 1")
        _demand(self.min_slice_groups >= 1, "min_slice_groups", "must be at least 1")

    def to_json(self) -> dict[str, Any]:
        """Return every rule as a JSON-ready value; ``GateRules(**rules.to_json()) == rules``."""
        return asdict(self)


def _demand(holds: bool, name: str, problem: str) -> None:  # noqa: FBT001 -- reads as "demand that"
    if not holds:
        raise InvalidRequest(f"The gate's {name} {problem}.", rule=name)
