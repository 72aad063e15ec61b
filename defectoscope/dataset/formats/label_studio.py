"""Reads the JSON export of Label Studio: brush strokes and polygons of the latest annotation of each task.

A task without an annotation is unlabelled and left out; a task with an empty one is a clean image. A region that is
neither brush nor polygon, or cannot be followed, leaves its image out with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from defectoscope.dataset.formats.brush import decode_brush
from defectoscope.dataset.formats.canvas import Canvas
from defectoscope.dataset.formats.contract import IGNORED_NAMES, Finding, LabelledPicture, LeftOut, Remark, Split
from defectoscope.dataset.formats.json_values import as_dict, as_list, as_number, as_size, as_text, read_json
from defectoscope.dataset.formats.pictures import PictureFinder, read_size_wh
from defectoscope.dataset.formats.polygons import read_points
from defectoscope.errors.datasets import AnnotationFileInvalid
from defectoscope.errors.images import InvalidImage, InvalidLabel, PolygonInvalid, RegionKindUnknown
from defectoscope.layout import is_picture_name

_BRUSHES = frozenset({"brushlabels", "brush"})
_POLYGONS = frozenset({"polygonlabels", "polygon"})
#: Answers about the image as a whole, or about regions; they draw nothing.
_DRAW_NOTHING = frozenset(
    {"choices", "textarea", "rating", "number", "taxonomy", "datetime", "labels", "relation", "pairwise", "ranker"}
)
#: A brush has soft edges; a pixel is painted from half on.
_HALF = 128
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class _Task:
    """A task with the image it means."""

    where: str
    names: list[str]
    split: Split | None
    part: str | None
    annotations: list[dict[str, object]]


def read_label_studio(files: Mapping[str, Path], *, pictures: PictureFinder) -> Iterator[Finding]:
    """Read exports of Label Studio in its format "JSON".

    Args:
        files: exports by name.
        pictures: the images, as files; a task's address is only asked for the name of its file.

    Yields:
        Pictures with class masks, and what was left out and why.
    """
    tasks: list[_Task] = []
    read_count = 0
    for name, path in files.items():
        try:
            tasks += _read_tasks(name, read_json(path), pictures=pictures)
            read_count += 1
        except AnnotationFileInvalid as exc:
            yield LeftOut(name, exc.code, exc.message)
    listed: dict[str, int] = {}
    for task in tasks:
        for name in task.names:
            listed[name] = listed.get(name, 0) + 1
    for task in tasks:
        yield from _read_task(task, pictures=pictures, listed=listed)
    # Where no file could be read, that is the reason, and not that it lists nothing.
    for name in pictures.names if read_count else ():
        if name not in listed:
            yield LeftOut(name, "image_not_listed", "No annotation file lists this image.")


def _read_tasks(name: str, document: object, *, pictures: PictureFinder) -> list[_Task]:
    if not isinstance(document, list) or not all(isinstance(task, dict) for task in document):
        raise AnnotationFileInvalid(f"{name} is not a list of tasks, as Label Studio exports it.")
    entries = [as_dict(entry) for entry in as_list(document)]
    if entries and not any("data" in entry for entry in entries):
        raise AnnotationFileInvalid(f"{name} has no task data; export it from Label Studio as JSON, not as JSON-MIN.")
    tasks = []
    for index, entry in enumerate(entries):
        data = as_dict(entry.get("data"))
        address = _find_address(data)
        split: Split | None = "train" if data.get("split") == "train" else "val" if data.get("split") == "val" else None
        annotations = as_list(entry.get("annotations", entry.get("completions")))
        tasks.append(
            _Task(
                where=address or f"{name}, task {entry.get('id', index)}",
                names=pictures.find_address(address, split=split) if address else [],
                split=split,
                part=as_text(data.get("group")),
                annotations=[as_dict(annotation) for annotation in annotations],
            )
        )
    return tasks


def _find_address(data: Mapping[str, object]) -> str | None:
    """Return the address of a task's image: what is called image, else the first that has a picture's name."""
    said = as_text(data.get("image"))
    texts = [value for value in data.values() if isinstance(value, str)]
    return said or next((text for text in texts if is_picture_name(text.partition("?")[0].lstrip("/"))), None)


def _read_task(task: _Task, *, pictures: PictureFinder, listed: Mapping[str, int]) -> Iterator[Finding]:
    where = task.names[0] if len(task.names) == 1 else task.where
    if not task.annotations:
        yield LeftOut(where, "image_without_label", "There is no label for this image.")
        return
    valid = [annotation for annotation in task.annotations if not annotation.get("was_cancelled")]
    if not valid:
        yield LeftOut(where, "annotation_cancelled", "Whoever looked at this image skipped it.")
    elif not task.names:
        yield LeftOut(where, "label_without_image", "There is no image for this label.")
    elif len(task.names) > 1:
        yield LeftOut(where, "image_ambiguous", f"Several images may be meant: {', '.join(task.names[:3])}.")
    elif listed[where] > 1:
        yield LeftOut(where, "image_listed_twice", "Several tasks are about this image.")
    else:
        path = pictures.path(where)
        try:
            canvas = _paint(max(valid, key=_find_moment), path=path)
        except (InvalidLabel, InvalidImage) as exc:
            yield LeftOut(where, exc.code, exc.message)
            return
        yield LabelledPicture(
            name=where,
            image_path=path,
            label=canvas.finish(),
            split=task.split,
            part=task.part,
        )
        if len(valid) > 1:
            yield Remark(where, "several_annotations", "Of several annotations the latest was taken.")
        if canvas.empty_count:
            yield Remark(where, "region_without_pixels", "A region is so small that it covers no pixel.")


def _find_moment(annotation: Mapping[str, object]) -> tuple[datetime, float]:
    """Return when an annotation was last changed; among those without a time, a higher number is later."""
    said = as_text(annotation.get("updated_at")) or as_text(annotation.get("created_at"))
    number = as_number(annotation.get("id")) or 0.0
    try:
        moment = datetime.fromisoformat(said) if said else _LONG_AGO
    except ValueError:
        moment = _LONG_AGO
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)), number


def _paint(annotation: Mapping[str, object], *, path: Path) -> Canvas:
    result = annotation.get("result")
    if not isinstance(result, list):
        raise InvalidLabel("The annotation has no list of results.")
    entries = [as_dict(entry) for entry in result]
    regions = [entry for entry in entries if str(entry.get("type")) not in _DRAW_NOTHING]
    sizes = [(as_size(region.get("original_width")), as_size(region.get("original_height"))) for region in regions]
    width, height = sizes[0] if sizes else (None, None)
    canvas = Canvas((width, height) if width and height else read_size_wh(path))
    names = _find_names(entries)
    for region, size_wh in zip(regions, sizes, strict=True):
        canvas.check_size(size_wh)
        _paint_region(region, canvas, names=names)
    return canvas


def _find_names(entries: Sequence[dict[str, object]]) -> dict[str, frozenset[str]]:
    """Return label names by region id, where they have entries of their own instead of standing with the region."""
    return {
        str(entry["id"]): _read_names(entry)
        for entry in entries
        if entry.get("type") == "labels" and isinstance(entry.get("id"), int | str)
    }


def _read_names(entry: Mapping[str, object]) -> frozenset[str]:
    value = as_dict(entry.get("value"))
    lists = [as_list(value.get(key)) for key in ("brushlabels", "polygonlabels", "labels")]
    return frozenset(name.lower() for names in lists for name in names if isinstance(name, str))


def _paint_region(region: Mapping[str, object], canvas: Canvas, *, names: Mapping[str, frozenset[str]]) -> None:
    kind = str(region.get("type"))
    if as_number(region.get("image_rotation")) not in {0.0, None}:
        raise RegionKindUnknown("A region was drawn on the image turned; turn it back in Label Studio.")
    said = _read_names(region) or names.get(str(region.get("id")), frozenset())
    is_ignored = bool(said) and said <= IGNORED_NAMES
    value = as_dict(region.get("value"))
    if kind in _BRUSHES:
        if value.get("format", "rle") != "rle":
            raise RegionKindUnknown("A brush stroke is not stored as run lengths.")
        painted = decode_brush(as_list(value.get("rle")), shape_hw=canvas.shape_hw)
        canvas.add_region(painted >= _HALF, ignored=is_ignored)
    elif kind in _POLYGONS:
        if value.get("closed") is False:
            raise PolygonInvalid("A polygon is not closed.")
        height, width = canvas.shape_hw
        points = read_points(as_list(value.get("points")))
        canvas.add_polygons([[(x * width / 100, y * height / 100) for x, y in points]], ignored=is_ignored)
    else:
        raise RegionKindUnknown(f"A region is of the kind {kind}, which is no mask; brush and polygon are.")
