"""Reads COCO instance annotations: polygons and run lengths become defects, crowds become ignored pixels.

An image that the file lists without an annotation is clean. An image of which one annotation cannot be followed is left
out with the reason: half a mask would teach that the other half is background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from defectoscope.dataset.formats.canvas import Canvas
from defectoscope.dataset.formats.contract import IGNORED_NAMES, Finding, LabelledPicture, LeftOut, Remark, Split
from defectoscope.dataset.formats.json_values import as_dict, as_list, as_size, as_text, read_json
from defectoscope.dataset.formats.pictures import PictureFinder, read_size_wh, split_in_file_name
from defectoscope.dataset.formats.polygons import read_points
from defectoscope.dataset.formats.run_lengths import decode_text, find_spans
from defectoscope.errors.datasets import AnnotationFileInvalid
from defectoscope.errors.images import InvalidImage, InvalidLabel, PolygonInvalid, RegionKindUnknown, RunLengthsInvalid


@dataclass(slots=True, kw_only=True)
class _Record:
    """An image that a file lists, and its annotations."""

    file: str
    split: Split | None
    ids: int
    reference: str
    size_wh: tuple[int, int] | None
    part: str | None
    names: list[str]
    ignored_categories: frozenset[object]
    annotations: list[dict[str, object]] = field(default_factory=list)


def read_coco(files: Mapping[str, Path], *, pictures: PictureFinder) -> Iterator[Finding]:
    """Read COCO files.

    Args:
        files: annotation files by their names relative to the directory of the images. A name with the word train or
            val says the split, ``annotations/instances_train.json``.
        pictures: the images.

    Yields:
        Pictures with class masks, and what was left out and why.
    """
    records: list[_Record] = []
    read_count = 0
    for name, path in files.items():
        try:
            document = _read_file(name, path)
        except AnnotationFileInvalid as exc:
            yield LeftOut(name, exc.code, exc.message)
            continue
        read_count += 1
        yield from _read_document(name, document, pictures=pictures, records=records)
    has_split = any(record.split is not None for record in records)
    listed: dict[str, int] = {}
    for record in records:
        for name in record.names:
            listed[name] = listed.get(name, 0) + 1
    for record in records:
        yield from _read_record(record, pictures=pictures, listed=listed, has_split=has_split)
    # Where no file could be read, that is the reason, and not that it lists nothing.
    for name in pictures.names if read_count else ():
        if name not in listed:
            yield LeftOut(name, "image_not_listed", "No annotation file lists this image.")


def _read_file(name: str, path: Path) -> dict[str, object]:
    document = as_dict(read_json(path))
    if not isinstance(document.get("images"), list) or not isinstance(document.get("annotations"), list):
        raise AnnotationFileInvalid(f"{name} has no lists of images and annotations, as COCO files have.")
    return document


def _read_document(
    name: str, document: dict[str, object], *, pictures: PictureFinder, records: list[_Record]
) -> Iterator[LeftOut]:
    """Collect the images of a file with their annotations, and tell what belongs to none."""
    split = split_in_file_name(name)
    folder = name.rpartition("/")[0]
    categories = [as_dict(category) for category in as_list(document.get("categories"))]
    ignored = frozenset(
        category["id"]
        for category in categories
        if str(category.get("name", "")).lower() in IGNORED_NAMES and isinstance(category.get("id"), int | str)
    )
    by_id: dict[int | str, _Record] = {}
    for index, entry in enumerate(as_list(document["images"])):
        members = as_dict(entry)
        reference, image_id = as_text(members.get("file_name")), members.get("id")
        if reference is None or not isinstance(image_id, int | str):
            where = reference or f"{name}, image {index}"
            yield LeftOut(where, "image_record_invalid", "The file lists an image without a file name or a number.")
            continue
        width, height = as_size(members.get("width")), as_size(members.get("height"))
        record = _Record(
            file=name,
            split=split,
            ids=1,
            reference=reference,
            size_wh=(width, height) if width and height else None,
            part=as_text(members.get("group")),
            names=pictures.find(reference, split=split, folder=folder),
            ignored_categories=ignored,
        )
        records.append(record)
        if image_id in by_id:
            by_id[image_id].ids += 1
            record.ids += 1
        by_id.setdefault(image_id, record)
    for index, entry in enumerate(as_list(document["annotations"])):
        members = as_dict(entry)
        image_id = members.get("image_id")
        owner = by_id.get(image_id) if isinstance(image_id, int | str) else None
        if owner is None:
            where = f"{name}, annotation {members.get('id', index)}"
            yield LeftOut(where, "annotation_without_image", "The annotation belongs to no image that the file lists.")
        else:
            owner.annotations.append(members)


def _read_record(
    record: _Record, *, pictures: PictureFinder, listed: Mapping[str, int], has_split: bool
) -> Iterator[Finding]:
    where = record.names[0] if len(record.names) == 1 else record.reference
    if not record.names:
        yield LeftOut(where, "label_without_image", "There is no image for this label.")
    elif len(record.names) > 1:
        yield LeftOut(where, "image_ambiguous", f"Several images may be meant: {', '.join(record.names[:3])}.")
    elif record.ids > 1 or listed[where] > 1:
        yield LeftOut(where, "image_listed_twice", "The annotation files list this image or its number twice.")
    elif has_split and record.split is None:
        yield LeftOut(where, "image_outside_split", "It is in neither the train nor the val file.")
    else:
        path = pictures.path(where)
        try:
            canvas = Canvas(record.size_wh or read_size_wh(path))
            for annotation in record.annotations:
                _paint(annotation, canvas, ignored_categories=record.ignored_categories)
        except (InvalidLabel, InvalidImage) as exc:
            yield LeftOut(where, exc.code, exc.message)
            return
        yield LabelledPicture(name=where, image_path=path, label=canvas.finish(), split=record.split, part=record.part)
        if canvas.empty_count:
            yield Remark(where, "region_without_pixels", "A region is so small that it covers no pixel.")


def _paint(annotation: Mapping[str, object], canvas: Canvas, *, ignored_categories: frozenset[object]) -> None:
    category = annotation.get("category_id")
    is_ignored = annotation.get("iscrowd") == 1 or (isinstance(category, int | str) and category in ignored_categories)
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        polygons = [read_points(_coordinates(polygon)) for polygon in segmentation]
        canvas.add_polygons(polygons, ignored=is_ignored)
    elif isinstance(segmentation, dict):
        size = [as_size(value) for value in as_list(segmentation.get("size"))]
        if len(size) != 2:  # noqa: PLR2004 -- height and width
            raise RunLengthsInvalid("The run lengths say no size.")
        canvas.check_size((size[1], size[0]))
        canvas.add_spans(find_spans(_counts(segmentation), shape_hw=canvas.shape_hw), ignored=is_ignored)
    else:
        raise RegionKindUnknown("An annotation has no segmentation; a box alone is no mask.")


def _coordinates(polygon: object) -> Sequence[object]:
    if not isinstance(polygon, list):
        raise PolygonInvalid("A polygon is not a list of coordinates.")
    return polygon


def _counts(segmentation: Mapping[str, object]) -> Sequence[object]:
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return decode_text(counts)
    if isinstance(counts, list):
        return counts
    raise RunLengthsInvalid("The run lengths are neither a list nor text.")
