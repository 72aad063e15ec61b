from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defectoscope.errors.images import InvalidLabel, LabelSizeMismatch
from defectoscope.segmentation import PixelCounts, count_pixels, per_image_mean, pooled

COUNTS = st.builds(PixelCounts, *[st.integers(0, 1000)] * 4)
PAIRS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 255])),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])),
    )
)


@given(pair=PAIRS)
def test_counts_are_those_of_a_naive_loop(pair):
    mask, class_mask = pair
    tp = fp = fn = tn = 0
    for claimed, truth in zip(mask.ravel().tolist(), class_mask.ravel().tolist(), strict=True):
        if truth == 255:
            continue
        if claimed:
            tp, fp = tp + truth, fp + 1 - truth
        else:
            fn, tn = fn + truth, tn + 1 - truth

    assert count_pixels(mask, class_mask) == PixelCounts(tp, fp, fn, tn)


def test_scores_follow_their_formulas():
    counts = PixelCounts(tp=6, fp=2, fn=4, tn=88)

    assert counts.iou_defect == 6 / 12
    assert counts.iou_background == 88 / 94
    assert counts.iou_mean == (6 / 12 + 88 / 94) / 2
    assert counts.dice == 12 / 18
    assert counts.precision == 6 / 8
    assert counts.recall == 6 / 10


SCORES = ("iou_defect", "iou_background", "iou_mean", "dice", "precision", "recall")


@pytest.mark.parametrize("counts", [PixelCounts(0, 0, 0, 50), PixelCounts(0, 0, 0, 0)], ids=["sound-part", "no-pixels"])
@pytest.mark.parametrize("score", SCORES)
def test_nothing_there_and_nothing_claimed_scores_one(score, counts):
    assert getattr(counts, score) == 1.0


@pytest.mark.parametrize("counts", [PixelCounts(0, 5, 0, 45), PixelCounts(0, 0, 5, 45)], ids=["claimed", "missed"])
@pytest.mark.parametrize("score", ["iou_defect", "dice", "precision", "recall"])
def test_one_of_the_two_empty_scores_zero(score, counts):
    assert getattr(counts, score) == 0.0


@given(counts=COUNTS)
def test_scores_lie_in_range_and_dice_follows_from_iou(counts):
    assert all(0.0 <= getattr(counts, score) <= 1.0 for score in SCORES)
    assert counts.dice == pytest.approx(2 * counts.iou_defect / (1 + counts.iou_defect))


def test_a_label_of_another_size_is_refused():
    with pytest.raises(LabelSizeMismatch, match="label is 4 x 3 pixels and the mask 3 x 4") as caught:
        count_pixels(np.zeros((4, 3), dtype=np.uint8), np.zeros((3, 4), dtype=np.uint8))

    assert caught.value.details == {"label_shape_hw": [3, 4], "mask_shape_hw": [4, 3]}


def test_a_class_mask_with_other_values_is_refused():
    with pytest.raises(InvalidLabel, match="other than 0, 1 and 255"):
        count_pixels(np.zeros((1, 2), dtype=np.uint8), np.array([[0, 2]], dtype=np.uint8))


def test_pooling_weighs_pixels_and_the_mean_weighs_images():
    large, small = PixelCounts(90, 0, 10, 0), PixelCounts(0, 0, 2, 8)

    together = pooled([large, small])
    mean = per_image_mean([large, small], lambda counts: counts.iou_defect)

    assert together == large + small == PixelCounts(90, 0, 12, 8)
    assert together.iou_defect == 90 / 102
    assert mean == pytest.approx(0.45)


def test_no_images_have_no_mean_and_zero_counts():
    assert per_image_mean([], lambda counts: counts.dice) is None
    assert pooled([]) == PixelCounts(0, 0, 0, 0)
