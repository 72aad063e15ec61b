"""The loss: right answers cost nothing, ignored pixels count for nothing."""

from __future__ import annotations

import pytest
import torch

from trainer.losses import segmentation_loss

KINDS = ["cross_entropy", "cross_entropy+dice"]
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
