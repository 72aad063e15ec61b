"""Offline prediction: images in, masks and a report out, no server. The same steps as a job, with the same engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from defectoscope.errors import DefectoscopeError, NoImagesFound
from defectoscope.layout import is_image_name
from defectoscope.segmentation import (
    DecodeLimits,
    SegmentationParams,
    decode_image,
    encode_mask,
    encode_overlay,
    segment,
)
from worker.engine import OnnxEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How one image ended: with a mask, or with an error."""

    name: str
    verdict: str | None
    defect_px: int | None
    defects: list[dict[str, Any]]
    mask: str | None
    overlay: str | None
    error: dict[str, str] | None


def find_images(inputs: Iterable[Path]) -> dict[str, Path]:
    """Return the images among files and directories, by the name their outputs get.

    Raises:
        NoImagesFound: there is none, or a path does not exist.
    """
    found: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir():
            names = sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file())
            found.update({name: path / name for name in names if is_image_name(name)})
        elif path.is_file():
            found[path.name] = path
        else:
            raise NoImagesFound(f"There is no file or directory {path}.", path=str(path))
    if not found:
        raise NoImagesFound
    return found


def predict(
    inputs: Iterable[Path],
    *,
    engine: OnnxEngine,
    out: Path,
    params: SegmentationParams,
    limits: DecodeLimits,
    overlays: bool,
    on_progress: Callable[[int, int], None],
) -> list[Prediction]:
    """Write a mask for every image below ``out/masks``, overlays below ``out/overlays``, and ``out/predictions.json``.

    Args:
        inputs: files and directories.
        engine: the model.
        out: output directory, made when absent.
        params: threshold and minimum area.
        limits: what an image may be.
        overlays: whether pictures with the defects drawn in are written for defective images.
        on_progress: called with images done and images in all.

    Raises:
        NoImagesFound: nothing to do.
    """
    images = find_images(inputs)
    predictions = []
    for number, (name, path) in enumerate(images.items(), 1):
        predictions.append(
            _predict_one(name, path, engine=engine, out=out, params=params, limits=limits, overlays=overlays)
        )
        on_progress(number, len(images))
    (out / "predictions.json").write_text(json.dumps([asdict(entry) for entry in predictions], indent=1) + "\n")
    return predictions


def _predict_one(
    name: str,
    path: Path,
    *,
    engine: OnnxEngine,
    out: Path,
    params: SegmentationParams,
    limits: DecodeLimits,
    overlays: bool,
) -> Prediction:
    mask_path = out / "masks" / Path(name).with_suffix(".png")
    overlay_path = out / "overlays" / Path(name).with_suffix(".jpg")
    mask_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        image = decode_image(path.read_bytes(), limits=limits)
        found = segment(image.pixels, engine=engine, contract=engine.contract, params=params)
    except DefectoscopeError as exc:
        error = {"code": exc.code, "message": exc.message}
        return Prediction(name=name, verdict=None, defect_px=None, defects=[], mask=None, overlay=None, error=error)
    mask_path.write_bytes(encode_mask(found.mask))
    has_overlay = overlays and bool(found.defects)
    if has_overlay:
        overlay_path.parent.mkdir(parents=True, exist_ok=True)
        overlay_path.write_bytes(encode_overlay(image.pixels, found.mask, defects=found.defects))
    return Prediction(
        name=name,
        verdict="defective" if found.defects else "clean",
        defect_px=found.defect_px,
        defects=[asdict(defect) for defect in found.defects],
        mask=str(mask_path.relative_to(out)),
        overlay=str(overlay_path.relative_to(out)) if has_overlay else None,
        error=None,
    )
