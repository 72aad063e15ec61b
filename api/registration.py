"""Takes images and labels in: decoded to be sure of them, stored under their content, written to the database."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from api.services import Services
from defectoscope.database import Image
from defectoscope.dataset import perceptual_hash
from defectoscope.errors import CallerError
from defectoscope.errors.images import ImageTooLarge, LabelSizeMismatch
from defectoscope.inspection.images import ImageFacts, register_images, register_label
from defectoscope.inspection.queries import list_images, view_image
from defectoscope.objects import confirm_stored
from defectoscope.storage import S3Uri, content_key, put_content

#: Media type of each format that a decoded image names.
MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "WEBP": "image/webp",
}

#: Pairs of files fetched at once.
_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPair:
    """An image and its ground-truth mask, by address, and the part that the image shows, if known."""

    name: str
    image_uri: str
    label_uri: str
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOutcome:
    """What became of a pair: both ids, or an error."""

    name: str
    image_id: int | None = None
    label_id: int | None = None
    error: CallerError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _PairFacts:
    image: ImageFacts
    label_sha256: str
    label_key: str
    defect_px: int


def register_image(services: Services, file: BinaryIO) -> tuple[Image, bool]:
    """Store an image and register it.

    Args:
        services: the parts to work with.
        file: the upload, at its beginning.

    Returns:
        The image, and whether it was unknown until now.

    Raises:
        InvalidImage: one of the `image_*` errors; nothing was stored.
    """
    with services.decode_slots:
        # Read only now: uploads that wait for a slot wait on disk.
        facts = _store_image(services, file.read(), source_uri=None)
    with services.database.transaction() as session:
        is_new = not list_images(session, sha256=facts.sha256, limit=1)
        ids = register_images(session, [facts])
        image = view_image(session, ids[facts.sha256])
        confirm_stored(session, services.storage, [facts.key])
        return image, is_new


def register_labels(services: Services, pairs: Sequence[LabelledPair], *, source: str) -> list[PairOutcome]:
    """Fetch labelled images, check that each pair belongs together, store and register them.

    Args:
        services: the parts to work with.
        pairs: addresses of both files.
        source: where the labels come from, such as ``dataset:steel``.

    Returns:
        One outcome for each pair, in the order given. A pair that cannot be used does not hold up the others.

    Raises:
        StorageUnavailable, DatabaseUnavailable: try again; what was registered before is not registered twice.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        looked_at = list(threads.map(lambda pair: _look_at(services, pair), pairs))
    with services.database.transaction() as session:
        image_ids = register_images(session, [facts.image for facts in looked_at if isinstance(facts, _PairFacts)])
        outcomes = []
        for pair, facts in zip(pairs, looked_at, strict=True):
            if isinstance(facts, CallerError):
                outcomes.append(PairOutcome(name=pair.name, error=facts))
                continue
            image_id = image_ids[facts.image.sha256]
            label_id = register_label(
                session,
                image_id=image_id,
                key=facts.label_key,
                sha256=facts.label_sha256,
                defect_px=facts.defect_px,
                source=source,
            )
            outcomes.append(PairOutcome(name=pair.name, image_id=image_id, label_id=label_id))
        keys = [
            key for facts in looked_at if isinstance(facts, _PairFacts) for key in (facts.image.key, facts.label_key)
        ]
        confirm_stored(session, services.storage, keys)
        return outcomes


def _look_at(services: Services, pair: LabelledPair) -> _PairFacts | CallerError:
    try:
        with services.decode_slots:
            image_bytes = _fetch(services, pair.image_uri)
            image = _store_image(services, image_bytes, source_uri=pair.image_uri, part=pair.part)
            del image_bytes
            label_bytes = _fetch(services, pair.label_uri)
            class_mask = services.decoder.label(label_bytes)
            if class_mask.shape != (image.height, image.width):
                raise LabelSizeMismatch(
                    f"The label is {class_mask.shape[1]} x {class_mask.shape[0]} pixels and the image "
                    f"{image.width} x {image.height}.",
                    label_shape_hw=list(class_mask.shape),
                    image_shape_hw=[image.height, image.width],
                )
            sha256 = put_content(services.storage, label_bytes, content_type="application/octet-stream")
            return _PairFacts(
                image=image,
                label_sha256=sha256,
                label_key=content_key(sha256),
                defect_px=int(np.count_nonzero(class_mask == 1)),
            )
    except CallerError as exc:
        return exc


def _fetch(services: Services, uri: str) -> bytes:
    """Return the bytes at an address, unless there are more of them than an image may have."""
    address = S3Uri.parse(uri)
    storage = services.input_buckets.open(address.bucket)
    info = storage.head(address.key)
    max_bytes = services.decoder.limits.max_bytes
    if info.size_bytes > max_bytes:
        raise ImageTooLarge(
            f"The file has {info.size_bytes} bytes; at most {max_bytes} are accepted.",
            size_bytes=info.size_bytes,
            max_bytes=max_bytes,
        )
    return storage.get(address.key, if_match=info.etag)


def _store_image(services: Services, data: bytes, *, source_uri: str | None, part: str | None = None) -> ImageFacts:
    """Decode an image and store it under its content hash; the address there stands in for a missing source."""
    decoded = services.decoder.open(data).decode()
    sha256 = hashlib.sha256(data).hexdigest()
    key = content_key(sha256)
    if source_uri != services.uri(key):
        put_content(services.storage, data, content_type=MEDIA_TYPES[decoded.format])
    height, width = decoded.shape_hw
    return ImageFacts(
        sha256=sha256,
        key=key,
        size_bytes=len(data),
        width=width,
        height=height,
        format=decoded.format,
        source_mode=decoded.source_mode,
        source_uri=source_uri or services.uri(key),
        part_id=part,
        perceptual_hash=perceptual_hash(decoded.pixels),
    )
