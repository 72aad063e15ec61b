"""What `training show` and `training watch` say of a run: sentences for people, values rounded to what they say."""

from __future__ import annotations

import pytest

from defectoscope.cli.training import describe_epoch, print_run
from defectoscope.cli.training_figures import describe_encoder, describe_figures

FIGURES = {
    "encoder_weights_used": "random",
    "device": "cpu",
    "train_images": 96,
    "val_images": 24,
    "autocast": "off",
    "epochs_run": 8,
    "best_epoch": 7,
    "stopped_by_budget": True,
    "training_seconds": 90.04,
    "seconds": 102.26,
    "parity": {"images": 24, "batch_size": 8, "max_level_difference": 1, "mask_iou": 1.0, "flipped_verdicts": 0},
    "validation": {
        "images": 24,
        "pooled": {"iou_defect": 0.81234, "iou_background": 0.99, "iou": 0.9, "dice": 0.8965},
        "mean": {"iou_defect": 0.75, "iou_background": 0.98, "iou": 0.87, "dice": 0.8},
    },
}
METRICS = {
    "images_per_s": 25.0447,
    "learning_rate": 0.00123456,
    "seconds": 8.7654,
    "some_more": 1.23456,
    "train_loss": 0.412345,
    "val_iou_defect": 0.5,
    "val_loss": None,
}


def _run(figures, *, encoder_weights=None, **changes):
    return {
        "id": 6,
        "state": "running",
        "stage": "training",
        "trigger": "manual",
        "attempts": 1,
        "checkpoint_epoch": None,
        "has_report": False,
        "dataset": "steel@1",
        "config": {"epochs": 8, "encoder_weights": encoder_weights},
        "error": None,
        "model_version": None,
        "metrics": [],
        "figures": figures,
        "created_at": "2026-11-20T20:01:00Z",
        "started_at": "2026-11-20T20:01:01Z",
        "finished_at": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("used", "wanted", "sentence"),
    [
        pytest.param("imagenet", "imagenet", "started from ImageNet weights", id="pretrained"),
        pytest.param("encoder.pth", "weights/encoder.pth", "started from the weights in encoder.pth", id="a file"),
        pytest.param("random", None, "started from random weights, as the recipe says", id="asked for"),
        pytest.param(
            "random",
            "imagenet",
            "started from random weights: the pretrained ones could not be fetched",
            id="not reachable",
        ),
    ],
)
def test_where_the_encoder_starts_is_a_sentence(used, wanted, sentence):
    assert describe_encoder(_run({"encoder_weights_used": used}, encoder_weights=wanted)) == sentence


@pytest.mark.parametrize("figures", [None, {}], ids=["nothing recorded", "nothing of it known"])
def test_a_run_that_found_nothing_yet_says_nothing(figures):
    assert set(describe_figures(_run(figures)).values()) == {None}


def test_figures_are_said_in_words_and_rounded():
    assert describe_figures(_run(FIGURES)) == {
        "encoder": "started from random weights, as the recipe says",
        "start": None,
        "images": "96 trained on, 24 validated on",
        "computed": "on cpu in fp32",
        "best epoch": "7 of 8, ended by the time budget",
        "time": "1 min 30 s training, 1 min 42 s with export, parity and scores",
        "parity": "mask IoU 1.0000, probabilities up to 1/255 apart, 0 flipped verdicts, on 24 images",
        "validation": "IoU defect 0.812, IoU mean 0.900, Dice 0.896, pooled over 24 images",
        "per image": "IoU defect 0.750, IoU mean 0.870, Dice 0.800",
    }


@pytest.mark.parametrize(
    ("changes", "name", "sentence"),
    [
        pytest.param({"autocast": "fp16", "device": "cuda"}, "computed", "on cuda in fp16", id="fp16"),
        pytest.param(
            {"devices": 4}, "computed", "on cpu in fp32, each batch shared by 4 processes", id="several devices"
        ),
        pytest.param({"devices": 1}, "computed", "on cpu in fp32", id="one device"),
        pytest.param(
            {"resumed_after": 3, "stopped_early": True},
            "best epoch",
            "7 of 8, resumed after epoch 3, ended because none was better for long",
            id="resumed and ended early",
        ),
        pytest.param({"start_note": "No champion."}, "start", "No champion.", id="no champion to start from"),
        pytest.param(
            {"encoder_weights_used": "champion"},
            "encoder",
            "started from the weights of the version in service, the whole network",
            id="from the champion",
        ),
    ],
)
def test_what_is_unusual_about_a_run_is_said(changes, name, sentence):
    assert describe_figures(_run({**FIGURES, **changes}))[name] == sentence


def test_an_epoch_shows_its_metrics_by_importance_and_rounded():
    line = describe_epoch({"epoch": 3, "values": METRICS}, 8)

    assert line == (
        "epoch 3/8  loss 0.4123  val loss -  IoU defect 0.5000  learning rate 0.0012  seconds 8.8  images/s 25.0  "
        "some more 1.235"
    )


def test_a_run_is_shown_with_its_figures_and_its_epochs(capsys):
    print_run(_run(FIGURES, encoder_weights="imagenet", metrics=[{"epoch": 1, "values": METRICS}]))

    lines = capsys.readouterr().out.splitlines()
    assert "  encoder       started from random weights: the pretrained ones could not be fetched" in lines
    assert lines[-3].split() == (
        ["epoch", "loss", "val", "loss", "IoU", "defect", "learning", "rate", "seconds", "images/s", "some", "more"]
    )
    assert lines[-1].split() == ["1", "0.4123", "-", "0.5000", "0.0012", "8.8", "25.0", "1.235"]
