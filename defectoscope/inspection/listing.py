"""Lists the images below a prefix in pages, flat in memory, resumable from a cursor."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from defectoscope.inspection.sources import InputBuckets, Page, Pages, Prefix, SourceImage
from defectoscope.layout import is_image_name, is_picture_name, label_stem, stem
from defectoscope.storage import ObjectInfo, S3Uri, Storage

#: Images enumerated in one transaction.
PAGE_SIZE = 1000


def list_prefix(source: Prefix, *, buckets: InputBuckets, after: str | None = None) -> Pages:
    """Yield the images below a prefix in key order, each with its label where there is one.

    Args:
        source: the prefix.
        buckets: where it may lie.
        after: cursor of the last page that was recorded.
    """
    address = S3Uri.parse(source.uri)
    storage = buckets.open(address.bucket)
    base = _as_folder(address.key)
    labels_folder = _labels_folder_within(base, bucket=address.bucket, source=source)
    entries = (
        entry
        for entry in storage.list(base, start_after=after)
        if is_image_name(entry.key.removeprefix(base))
        and not (labels_folder is not None and entry.key.startswith(labels_folder))
    )
    while page := list(itertools.islice(entries, PAGE_SIZE)):
        labels = _labels_of(page, base=base, bucket=address.bucket, source=source, buckets=buckets)
        images = [
            SourceImage(
                name=entry.key.removeprefix(base),
                uri=str(S3Uri(address.bucket, entry.key)),
                etag=entry.etag,
                label_uri=labels.get(entry.key),
            )
            for entry in page
        ]
        yield Page(images=images, cursor=page[-1].key)
    yield Page(images=[], cursor=None)


def _labels_folder_within(base: str, *, bucket: str, source: Prefix) -> str | None:
    """Return the named labels folder if it lies below the images: what is in it are labels and no images."""
    if source.labels_uri is None:
        return None
    address = S3Uri.parse(source.labels_uri)
    folder = _as_folder(address.key)
    return folder if address.bucket == bucket and folder.startswith(base) and folder != base else None


def _labels_of(
    page: list[ObjectInfo], *, base: str, bucket: str, source: Prefix, buckets: InputBuckets
) -> dict[str, str]:
    """Return the label address of each image key of a page.

    Images and labels are both listed in key order, so the labels of a page lie in one range for each folder: memory
    stays that of a page however many labels there are.
    """
    if source.labels_uri is None:
        # By the whole key, so that the prefix may be the images folder itself with its labels beside it.
        wanted = {entry.key: label for entry in page if (label := label_stem(entry.key)) is not None}
        storage = buckets.open(bucket)
    else:
        labels_at = S3Uri.parse(source.labels_uri)
        bucket = labels_at.bucket
        wanted = {entry.key: _as_folder(labels_at.key) + stem(entry.key.removeprefix(base)) for entry in page}
        storage = buckets.open(bucket)
    by_folder: dict[str, list[str]] = {}
    for label in wanted.values():
        by_folder.setdefault(label.rpartition("/")[0] + "/", []).append(label)
    found: dict[str, str] = {}
    for folder, stems in by_folder.items():
        # A label's key is its stem and an extension: it sorts after the stem and before the stem with a slash.
        between = _stems_between(storage, folder, min(stems), max(label + "/" for label in stems))
        wanted_here = frozenset(stems)
        for label, key in between:
            if label in wanted_here:
                # Of several labels of one stem the first by key is taken, as `layout.pair_labels` does.
                found.setdefault(label, key)
    return {image: str(S3Uri(bucket, found[label])) for image, label in wanted.items() if label in found}


def _stems_between(storage: Storage, folder: str, first: str, last: str) -> Iterator[tuple[str, str]]:
    for entry in storage.list(folder, start_after=first):
        if entry.key > last:
            return
        if is_picture_name(entry.key.removeprefix(folder)):
            yield stem(entry.key), entry.key


def _as_folder(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith("/") else prefix + "/"
