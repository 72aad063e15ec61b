"""Offline prediction: images in, masks and a report out, no server. The same steps as a job, with the same engine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from defectoscope.errors import DefectoscopeError
from defectoscope.errors.images import InvalidImage
from defectoscope.errors.jobs import NoImagesFound
from defectoscope.layout import OutputNames, is_image_name
from defectoscope.segmentation import (
    DecodeLimits,
    OpenedImage,
    ResizePolicy,
    Segmentation,
    SegmentationParams,
    encode_mask,
    encode_overlay,
    lay_out,
    open_image,
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
    """Return the images among files and directories, each once, by a name of its own.

    The name is the path within its directory. Where an earlier one has it already, a number leads: ``2/a.png``.

    Raises:
        NoImagesFound: there is none, or a path does not exist.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for path in inputs:
        if path.is_dir():
            names = sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file())
            entries = {name: path / name for name in names if is_image_name(name)}
        elif path.is_file():
            entries = {path.name: path}
        else:
            raise NoImagesFound(f"There is no file or directory {path}.", path=str(path))
        for name, entry in entries.items():
            if entry.resolve() not in seen:
                seen.add(entry.resolve())
                found[_free_name(name, found)] = entry
    if not found:
        raise NoImagesFound
    return found


def _free_name(name: str, taken: Container[str]) -> str:
    candidates = (name if number == 1 else f"{number}/{name}" for number in itertools.count(1))
    return next(candidate for candidate in candidates if candidate not in taken)


def predict(
    inputs: Iterable[Path],
    *,
    engine: OnnxEngine,
    out: Path,
    params: SegmentationParams,
    limits: DecodeLimits,
    overlays: bool,
    policy: ResizePolicy | None = None,
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
        policy: how images come to the model's size; the model's own by default.
        on_progress: called with images done and images in all.

    Raises:
        NoImagesFound: nothing to do.
    """
    images = find_images(inputs)
    names = OutputNames()
    stems = {name: names.take(name) for name in images}
    predictions = []
    for number, (name, path) in enumerate(images.items(), 1):
        predictions.append(
            _predict_one(
                name,
                path,
                mask_path=out / "masks" / f"{stems[name]}.png",
                overlay_path=out / "overlays" / f"{stems[name]}.jpg" if overlays else None,
                engine=engine,
                out=out,
                params=params,
                limits=limits,
                policy=policy,
            )
        )
        on_progress(number, len(images))
    out.mkdir(parents=True, exist_ok=True)
    (out / "predictions.json").write_text(json.dumps([asdict(entry) for entry in predictions], indent=1) + "\n")
    return predictions


def _predict_one(
    name: str,
    path: Path,
    *,
    mask_path: Path,
    overlay_path: Path | None,
    engine: OnnxEngine,
    out: Path,
    params: SegmentationParams,
    limits: DecodeLimits,
    policy: ResizePolicy | None,
) -> Prediction:
    try:
        image = open_image(_read(path), limits=limits)
        found = _segment(image, engine=engine, params=params, policy=policy)
    except DefectoscopeError as exc:
        error = {"code": exc.code, "message": exc.message}
        return Prediction(name=name, verdict=None, defect_px=None, defects=[], mask=None, overlay=None, error=error)
    mask_path.parent.mkdir(parents=True, exist_ok=True)
    mask_path.write_bytes(encode_mask(found.mask))
    if not found.defects:
        overlay_path = None
    if overlay_path is not None:
        overlay_path.parent.mkdir(parents=True, exist_ok=True)
        overlay_path.write_bytes(encode_overlay(image.decode().pixels, found.mask, defects=found.defects))
    return Prediction(
        name=name,
        verdict="defective" if found.defects else "clean",
        defect_px=found.defect_px,
        defects=[asdict(defect) for defect in found.defects],
        mask=str(mask_path.relative_to(out)),
        overlay=str(overlay_path.relative_to(out)) if overlay_path is not None else None,
        error=None,
    )


def _segment(
    image: OpenedImage, *, engine: OnnxEngine, params: SegmentationParams, policy: ResizePolicy | None
) -> Segmentation:
    """Segment an image as a job does, from the same reduction of it."""
    layout = lay_out(image.shape_hw, contract=engine.contract, policy=policy)
    pixels = image.decode(least_size_wh=layout.least_size_wh).pixels
    assembly = layout.assembly()
    for start in range(0, layout.count, engine.batch_size):
        indexes = range(start, min(start + engine.batch_size, layout.count))
        outputs, _ = engine.run([layout.model_input(pixels, index) for index in indexes])
        for index, output in zip(indexes, outputs, strict=True):
            assembly.add(output, index)
    return assembly.finish(params)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidImage(f"The file cannot be read: {exc.strerror}.") from exc
