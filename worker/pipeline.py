"""The way of a chunk through the worker: fetch and decode, segment in batches, measure, store.

Threads fetch and decode ahead while the model runs, bounded to two batches; other threads measure, encode and upload
behind it. An image that fails becomes an outcome with its error and holds up nobody.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from defectoscope.database import Database
from defectoscope.errors import (
    CallerError,
    DefectoscopeError,
    ImageTooLarge,
    InvalidLabel,
    ObjectTooLarge,
    StorageDenied,
    StorageFault,
)
from defectoscope.inspection.chunks import ClaimedChunk, ClaimedItem, KnownResult, find_known_result
from defectoscope.inspection.completion import ItemOutcome, LabelFacts, ResultFacts
from defectoscope.inspection.images import ImageFacts
from defectoscope.inspection.params import Overlays
from defectoscope.inspection.sources import InputBuckets
from defectoscope.segmentation import (
    DecodedImage,
    DecodeLimits,
    Segmentation,
    SegmentationParams,
    UInt8Array,
    count_pixels,
    decode_image,
    decode_label,
    encode_mask,
    encode_overlay,
    from_model_output,
    to_model_input,
)
from defectoscope.storage import S3Uri, Storage, content_key, put_content
from worker.engine import OnnxEngine

#: What is wrong with one file and says nothing about the others.
_OF_ONE_FILE = (CallerError, StorageDenied, StorageFault)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedImage:
    """A decoded image on its way to the model, or the result that made the model unnecessary."""

    item: ClaimedItem
    facts: ImageFacts
    decoded: DecodedImage
    model_input: UInt8Array
    known: KnownResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """What ran an image's batch; ``latency_ms`` is the image's share of the call."""

    engine: OnnxEngine
    variant: str
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Everything a chunk needs on its way.

    ``pool`` runs the steps around the model; ``batch_size`` images go through the model at once.
    """

    database: Database
    storage: Storage
    buckets: InputBuckets
    limits: DecodeLimits
    pool: ThreadPoolExecutor
    batch_size: int

    def process(
        self, chunk: ClaimedChunk, *, engine: OnnxEngine, variant: str, is_wanted: Callable[[], bool]
    ) -> list[ItemOutcome]:
        """Inspect the images of a chunk; stop between two batches when the chunk is no longer wanted.

        Args:
            chunk: as claimed.
            engine: the model version that the chunk's job is pinned to.
            variant: which file of it, for the record.
            is_wanted: asked before every batch.

        Returns:
            One outcome for each image that was looked at.

        Raises:
            StorageUnavailable, DatabaseUnavailable: the chunk should be tried again later.
        """
        stored: list[Future[ItemOutcome]] = []
        outcomes: list[ItemOutcome] = []
        fetched = self._fetch_ahead(chunk, engine)
        while is_wanted() and (batch := list(islice(fetched, self.batch_size))):
            outcomes += [entry for entry in batch if isinstance(entry, ItemOutcome)]
            images = [entry for entry in batch if isinstance(entry, FetchedImage)]
            stored += [
                self.pool.submit(self._score_known, image, image.known) for image in images if image.known is not None
            ]
            unknown = [image for image in images if image.known is None]
            if not unknown:
                continue
            inputs = np.stack([image.model_input for image in unknown])  # (N, h, w, 3) uint8
            probabilities, seconds = engine.run(inputs)
            run = ModelRun(engine=engine, variant=variant, latency_ms=seconds * 1000 / len(unknown))
            stored += [
                self.pool.submit(self._measure_and_store, chunk, image, image_probabilities, run)
                for image, image_probabilities in zip(unknown, probabilities, strict=True)
            ]
        return outcomes + [future.result() for future in stored]

    def _fetch_ahead(self, chunk: ClaimedChunk, engine: OnnxEngine) -> Iterator[FetchedImage | ItemOutcome]:
        """Yield images in order while at most two batches are fetched and decoded ahead."""
        waiting = iter(chunk.items)
        ahead: deque[Future[FetchedImage | ItemOutcome]] = deque()
        for item in islice(waiting, 2 * self.batch_size):
            ahead.append(self.pool.submit(self._fetch, chunk, item, engine))
        while ahead:
            yield ahead.popleft().result()
            for item in islice(waiting, 1):
                ahead.append(self.pool.submit(self._fetch, chunk, item, engine))

    def _fetch(self, chunk: ClaimedChunk, item: ClaimedItem, engine: OnnxEngine) -> FetchedImage | ItemOutcome:
        try:
            data = self.buckets.read(item.source_uri, max_bytes=self.limits.max_bytes, etag=item.source_etag)
            decoded = decode_image(data, limits=self.limits)
        except ObjectTooLarge as exc:
            return ItemOutcome(item_id=item.item_id, error=_too_large(exc, self.limits))
        except _OF_ONE_FILE as exc:
            return ItemOutcome(item_id=item.item_id, error=exc)
        sha256 = hashlib.sha256(data).hexdigest()
        known = find_known_result(database=self.database, chunk=chunk, image_sha256=sha256)
        if item.source_uri != str(S3Uri(self.buckets.own_name, content_key(sha256))):
            # Found outside our content store: kept under its hash from now on, whatever happens to the original.
            put_content(self.storage, data, content_type="application/octet-stream")
        height, width = decoded.shape_hw
        return FetchedImage(
            item=item,
            facts=ImageFacts(
                sha256=sha256,
                key=content_key(sha256),
                size_bytes=len(data),
                width=width,
                height=height,
                format=decoded.format,
                source_mode=decoded.source_mode,
                source_uri=item.source_uri,
            ),
            decoded=decoded,
            model_input=to_model_input(decoded.pixels, contract=engine.contract),
            known=known,
        )

    def _measure_and_store(
        self, chunk: ClaimedChunk, image: FetchedImage, probabilities: UInt8Array, run: ModelRun
    ) -> ItemOutcome:
        params = SegmentationParams(threshold=chunk.params.threshold, min_area_px=chunk.params.min_area_px)
        found = from_model_output(probabilities, shape_hw=image.decoded.shape_hw, params=params)
        mask_png = encode_mask(found.mask)
        mask_sha256 = hashlib.sha256(mask_png).hexdigest()
        folder = f"{image.facts.sha256[:2]}/{image.facts.sha256}/v{chunk.model_version}-{mask_sha256[:16]}"
        mask_key = f"masks/{folder}.png"
        self.storage.put(mask_key, mask_png, content_type="image/png")
        result = ResultFacts(
            mask_key=mask_key,
            mask_sha256=mask_sha256,
            overlay_key=self._store_overlay(chunk.params.overlays, image, found, f"overlays/{folder}.jpg"),
            defect_px=found.defect_px,
            defects=found.defects,
            variant=run.variant,
            provider=run.engine.provider,
            runtime_version=run.engine.runtime_version,
            latency_ms=run.latency_ms,
        )
        return self._outcome(image, found.mask, result)

    def _store_overlay(self, overlays: Overlays, image: FetchedImage, found: Segmentation, key: str) -> str | None:
        if overlays is Overlays.NONE or (overlays is Overlays.DEFECTIVE and not found.defects):
            return None
        picture = encode_overlay(image.decoded.pixels, found.mask, defects=found.defects)
        self.storage.put(key, picture, content_type="image/jpeg")
        return key

    def _score_known(self, image: FetchedImage, known: KnownResult) -> ItemOutcome:
        """Score the stored mask of a result that an earlier job made; without a label nothing is left to do."""
        if image.item.label_uri is None:
            return ItemOutcome(item_id=image.item.item_id, image=image.facts)
        try:
            # Read as a label is, under the limits of this process: the default ones may be narrower.
            mask = decode_label(self.storage.get(known.mask_key), limits=self.limits)
        except _OF_ONE_FILE as exc:
            return ItemOutcome(item_id=image.item.item_id, error=exc)
        return self._outcome(image, mask, None)

    def _outcome(self, image: FetchedImage, mask: UInt8Array, result: ResultFacts | None) -> ItemOutcome:
        item = image.item
        if item.label_uri is None:
            return ItemOutcome(item_id=item.item_id, image=image.facts, result=result)
        try:
            label = self._score(item.label_uri, mask)
        except _OF_ONE_FILE as exc:
            return ItemOutcome(item_id=item.item_id, image=image.facts, result=result, label_error=exc)
        return ItemOutcome(item_id=item.item_id, image=image.facts, result=result, label=label)

    def _score(self, label_uri: str, mask: UInt8Array) -> LabelFacts:
        try:
            data = self.buckets.read(label_uri, max_bytes=self.limits.max_bytes)
        except ObjectTooLarge as exc:
            raise InvalidLabel(f"The label cannot be read: {_too_large(exc, self.limits).message}") from exc
        class_mask = decode_label(data, limits=self.limits)
        counts = count_pixels(mask, class_mask)
        sha256 = put_content(self.storage, data, content_type="application/octet-stream")
        return LabelFacts(
            sha256=sha256, key=content_key(sha256), defect_px=int(np.count_nonzero(class_mask == 1)), counts=counts
        )


def _too_large(exc: ObjectTooLarge, limits: DecodeLimits) -> DefectoscopeError:
    """Say of an object that was not fetched what decoding would have said of its bytes."""
    size_bytes = exc.details["size_bytes"]
    return ImageTooLarge(
        f"The file has {size_bytes} bytes; at most {limits.max_bytes} are accepted.",
        size_bytes=size_bytes,
        max_bytes=limits.max_bytes,
    )
