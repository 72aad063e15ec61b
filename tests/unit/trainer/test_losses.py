"""The loss: right answers cost nothing, ignored pixels count for nothing."""

from __future__ import annotations

import pytest
import torch

from trainer.losses import balanced_weights, segmentation_loss

KINDS = ["cross_entropy", "cross_entropy+dice", "focal", "focal+dice"]
TRUTH = torch.tensor([[[0, 1], [1, 0]]], dtype=torch.uint8)


def _logits(truth, *, sureness):
    defect = torch.where(truth == 1, sureness, -sureness)
    return torch.stack([-defect, defect], dim=1) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_sure_and_right_answer_costs_nothing_and_a_wrong_one_much(kind):
    right = segmentation_loss(_logits(TRUTH, sureness=50.0), TRUTH, kind=kind)
    wrong = segmentation_loss(_logits(1 - TRUTH, sureness=50.0), TRUTH, kind=kind)

    assert right == pytest.approx(0, abs=1e-6)
    assert wrong > 10


@pytest.mark.parametrize("kind", KINDS)
def test_an_ignored_pixel_changes_nothing_whatever_is_claimed_there(kind):
    ignoring = torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8)
    quiet = _logits(TRUTH, sureness=1.0)
    loud = quiet.clone()
    loud[:, :, 1, 1] = torch.tensor([-9.0, 9.0])

    assert segmentation_loss(quiet, ignoring, kind=kind) == segmentation_loss(loud, ignoring, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_nothing_but_ignored_pixels_costs_nothing_and_is_a_number(kind):
    logits = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))

    assert segmentation_loss(logits, torch.full((1, 2, 2), 255, dtype=torch.uint8), kind=kind) == 0


def test_cross_entropy_is_the_mean_over_the_pixels():
    loss = segmentation_loss(torch.zeros(1, 2, 2, 2), TRUTH, kind="cross_entropy")

    assert loss == pytest.approx(0.6931, abs=1e-4)


def test_a_focal_loss_turns_from_what_is_right_already():
    logits = _logits(TRUTH, sureness=2.0)  # every pixel right with p = 0.881

    loss = segmentation_loss(logits, TRUTH, kind="focal")

    assert loss == pytest.approx(0.12693 * (1 - 0.88080) ** 2, abs=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_weights_decide_which_mistake_costs_more(kind):
    truth = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    missed = torch.tensor([[[[2.0, 2.0]], [[-2.0, -2.0]]]])  # both called background
    invented = -missed
    weights = torch.tensor([1.0, 3.0])

    ratio = segmentation_loss(missed, truth, kind=kind, class_weights=weights) / segmentation_loss(
        invented, truth, kind=kind, class_weights=weights
    )

    assert ratio == pytest.approx(3, rel=0.06)
    assert segmentation_loss(missed, truth, kind=kind) == pytest.approx(
        float(segmentation_loss(invented, truth, kind=kind))
    )


def test_equal_weights_change_nothing():
    logits = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))

    plain = segmentation_loss(logits, TRUTH, kind="cross_entropy")
    weighted = segmentation_loss(logits, TRUTH, kind="cross_entropy", class_weights=torch.tensor([2.0, 2.0]))

    assert weighted == pytest.approx(float(plain))


@pytest.mark.parametrize(
    ("background_px", "defect_px", "ratio"),
    [
        pytest.param(900, 100, 9.0, id="inverse of the shares"),
        pytest.param(99_700, 300, 20.0, id="bounded where defects are rare"),
        pytest.param(100, 10_000, 0.05, id="bounded where background is rare"),
        pytest.param(500, 500, 1.0, id="alike"),
    ],
)
def test_balanced_weights_make_both_classes_count_alike_within_a_bound(background_px, defect_px, ratio):
    background, defect = balanced_weights(background_px=background_px, defect_px=defect_px)

    assert defect / background == pytest.approx(ratio)
    assert (background * background_px + defect * defect_px) / (background_px + defect_px) == pytest.approx(1)
