"""What a training run found, in words and rounded figures. It reads answers of the API and prints nothing itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from defectoscope.cli.moments import format_duration

if TYPE_CHECKING:
    from defectoscope.cli.output import Cell
    from defectoscope.client.wire import TrainingRun

#: How the metrics of an epoch are called, in the order of importance; others follow under their own names, with spaces.
_TITLES = {
    "train_loss": "loss",
    "val_loss": "val loss",
    "val_iou_defect": "IoU defect",
    "val_iou_best": "at best threshold",
    "val_iou_mean": "IoU mean",
    "val_dice": "Dice",
    "learning_rate": "learning rate",
    "seconds": "seconds",
    "images_per_s": "images/s",
}
#: How exactly metrics are shown; others with four significant digits.
_FORMATS = {
    "learning_rate": ".2g",
    "seconds": ".1f",
    "images_per_s": ".1f",
    "val_iou_defect": ".4f",
    "val_iou_best": ".4f",
    "val_iou_mean": ".4f",
    "val_dice": ".4f",
}
_SCORES = {"iou_defect": "IoU defect", "iou": "IoU mean", "dice": "Dice"}


def order_metrics(names: Iterable[str]) -> list[str]:
    """Return the names of metrics, each once, the most important ones first."""
    known = list(_TITLES)
    return sorted(dict.fromkeys(names), key=lambda name: known.index(name) if name in known else len(known))


def epoch_title(name: str) -> str:
    """Return what a metric of an epoch is called."""
    return _TITLES.get(name, name.replace("_", " "))


def format_metric(name: str, value: float | None) -> str:
    """Return a metric of an epoch, rounded to what it says; a dash where it was not a finite number."""
    return "-" if value is None else format(value, _FORMATS.get(name, ".4g"))


def describe_encoder(run: TrainingRun) -> str | None:
    """Return where the encoder's weights came from, or None while the run has not said so."""
    used = (run["figures"] or {}).get("encoder_weights_used")
    if used is None:
        return None
    if used == "imagenet":
        return "started from ImageNet weights"
    if used == "champion":
        return "started from the weights of the version in service, the whole network"
    if used != "random":
        return f"started from the weights in {used}"
    if run["config"].get("encoder_weights") is None:
        return "started from random weights, as the recipe says"
    return "started from random weights: the pretrained ones could not be fetched"


def describe_figures(run: TrainingRun) -> dict[str, Cell]:
    """Return what a run found, as far as it has come, under the names that people read."""
    figures = run["figures"] or {}
    return {
        "encoder": describe_encoder(run),
        "start": figures.get("start_note"),
        "images": _describe_images(figures),
        "computed": _describe_hardware(figures),
        "best epoch": _describe_epochs(figures),
        "time": _describe_time(figures),
        "parity": _describe_parity(figures.get("parity")),
        "validation": _describe_scores(figures.get("validation"), "pooled"),
        "per image": _describe_scores(figures.get("validation"), "mean"),
    }


def _describe_images(figures: dict[str, Any]) -> str | None:
    if "train_images" not in figures or "val_images" not in figures:
        return None
    return f"{figures['train_images']} trained on, {figures['val_images']} validated on"


def _describe_hardware(figures: dict[str, Any]) -> str | None:
    if "device" not in figures:
        return None
    arithmetic = {"bf16": " in bf16", "fp16": " in fp16", "off": " in fp32"}.get(figures.get("autocast", ""), "")
    shared = f", each batch shared by {figures['devices']} processes" if figures.get("devices", 1) > 1 else ""
    return f"on {figures['device']}{arithmetic}{shared}"


def _describe_epochs(figures: dict[str, Any]) -> str | None:
    if "best_epoch" not in figures:
        return None
    resumed = f", resumed after epoch {figures['resumed_after']}" if figures.get("resumed_after") else ""
    ended = ""
    if figures.get("stopped_early"):
        ended = ", ended because none was better for long"
    elif figures.get("stopped_by_budget"):
        ended = ", ended by the time budget"
    return f"{figures['best_epoch']} of {figures['epochs_run']}{resumed}{ended}"


def _describe_time(figures: dict[str, Any]) -> str | None:
    training = format_duration(figures.get("training_seconds"))
    whole = format_duration(figures.get("seconds"))
    if training is None:
        return None
    return f"{training} training" + ("" if whole is None else f", {whole} with export, parity and scores")


def _describe_parity(parity: dict[str, Any] | None) -> str | None:
    if not parity:
        return None
    return (
        f"mask IoU {parity['mask_iou']:.4f}, probabilities up to {parity['max_level_difference']}/255 apart, "
        f"{parity['flipped_verdicts']} flipped verdicts, on {parity['images']} images"
    )


def _describe_scores(validation: dict[str, Any] | None, kind: str) -> str | None:
    if not validation:
        return None
    scores = ", ".join(f"{title} {validation[kind][name]:.3f}" for name, title in _SCORES.items())
    return f"{scores}, pooled over {validation['images']} images" if kind == "pooled" else scores
