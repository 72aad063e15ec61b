"""What is done with one image: fetched, decoded, run through the model, measured, stored, scored.

Each step says how it ends in an `ItemOutcome`; what is wrong with one file is an outcome and disturbs no other image.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import numpy as np

from defectoscope.crash_points import CrashPoint, crash_point
from defectoscope.errors import CallerError, DefectoscopeError
from defectoscope.errors.images import ImageTooLarge, InvalidLabel, SourceChanged
from defectoscope.errors.storage import ObjectTooLarge, StorageDenied, StorageFault
from defectoscope.inspection.chunks import ClaimedChunk, ClaimedItem, KnownResult
from defectoscope.inspection.completion import ItemOutcome, LabelFacts, ResultFacts
from defectoscope.inspection.images import ImageFacts
from defectoscope.inspection.params import Overlays
from defectoscope.inspection.sources import InputBuckets
from defectoscope.segmentation import (
    DecodedImage,
    DecodeLimits,
    Decoder,
    Layout,
    OpenedImage,
    Segmentation,
    SegmentationParams,
    UInt8Array,
    count_pixels,
    encode_mask,
    encode_overlay,
    lay_out,
)
from defectoscope.storage import S3Uri, Storage, content_key, put_content
from worker.lane import Lane, ModelOutput
from worker.models import LoadedModel
from worker.stages import stage
from worker.stored_masks import StoredMasks

#: What is wrong with one file and says nothing about the others.
OF_ONE_FILE = (CallerError, StorageDenied, StorageFault)

#: Bytes held for each pixel of an image in work: three of colour, one of probability, one of mask, and two while its
#: regions are measured.
_BYTES_PER_PIXEL = 7


class NoLongerWanted(Exception):
    """The chunk was lost or cancelled, or the worker stops, in the middle of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedImage:
    """The bytes of an image whose header is in order."""

    item: ClaimedItem
    sha256: str
    opened: OpenedImage

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self.opened.data)

    @property
    def size_bytes(self) -> int:
        """Memory it takes until it is done, about."""
        height, width = self.opened.shape_hw
        return self.file_bytes + height * width * _BYTES_PER_PIXEL


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSteps:
    """The steps, and what they need."""

    storage: Storage
    buckets: InputBuckets
    decoder: Decoder
    lane: Lane
    stored_masks: StoredMasks

    def fetch(self, item: ClaimedItem, *, on_read: Callable[[str], None]) -> FetchedImage | ItemOutcome:
        """Fetch an image, and keep it in the content store if it came from elsewhere.

        Args:
            item: as claimed.
            on_read: called with the SHA-256 of the file before anything is done with its content; may refuse it.

        Raises:
            StorageUnavailable, DecoderUnavailable: try again later.
        """
        try:
            with stage("fetch"):
                max_bytes = self.decoder.limits.max_bytes
                data = self.buckets.read(item.source_uri, max_bytes=max_bytes, etag=item.source_etag)
                crash_point(CrashPoint.IMAGE_FETCHED)
                sha256 = hashlib.sha256(data).hexdigest()
                on_read(sha256)
                opened = self.decoder.open(data)
                if item.source_uri.startswith(self._content_store):
                    if item.source_uri != str(S3Uri(self.buckets.own_name, content_key(sha256))):
                        raise SourceChanged(uri=item.source_uri, sha256=sha256)
                else:
                    # Found outside our content store: kept under its hash, whatever happens to the original.
                    put_content(self.storage, data, content_type="application/octet-stream")
        except ObjectTooLarge as exc:
            return ItemOutcome(item_id=item.item_id, error=_too_large(exc, self.decoder.limits))
        except OF_ONE_FILE as exc:
            return ItemOutcome(item_id=item.item_id, error=exc)
        crash_point(CrashPoint.IMAGE_KEPT)
        return FetchedImage(item=item, sha256=sha256, opened=opened)

    def inspect(
        self, chunk: ClaimedChunk, image: FetchedImage, *, model: LoadedModel, is_wanted: Callable[[], bool]
    ) -> ItemOutcome:
        """Segment an image and store what was found.

        Raises:
            NoLongerWanted: the work is to be given back.
            DeviceLost, EngineFailed: the model cannot be run.
            StorageUnavailable: try again later.
        """
        layout = lay_out(image.opened.shape_hw, contract=model.engine.contract, policy=chunk.params.resize_policy)
        try:
            with stage("decode"):
                decoded = image.opened.decode(least_size_wh=layout.least_size_wh)
        except OF_ONE_FILE as exc:
            return ItemOutcome(item_id=image.item.item_id, error=exc)
        params = SegmentationParams(threshold=chunk.params.threshold, min_area_px=chunk.params.min_area_px)
        found, latency_ms = self._segment(decoded.pixels, layout, params, model=model, is_wanted=is_wanted)
        crash_point(CrashPoint.IMAGE_SEGMENTED)
        result = self._store(chunk, image, decoded, found, layout=layout, model=model, latency_ms=latency_ms)
        return self._outcome(image, found.mask, result)

    def score_known(self, image: FetchedImage, known: KnownResult) -> ItemOutcome:
        """Score the stored mask of a result that an earlier job made; without a label nothing is left to do.

        Raises:
            StorageUnavailable: try again later.
        """
        if image.item.label_uri is None:
            return ItemOutcome(item_id=image.item.item_id, image=_facts(image))
        try:
            # Read as a label is, under the limits of this process: the default ones may be narrower.
            mask = self.decoder.label(self.storage.get(known.mask_key))
        except OF_ONE_FILE as exc:
            return ItemOutcome(item_id=image.item.item_id, error=exc)
        return self._outcome(image, mask, None)

    @property
    def _content_store(self) -> str:
        """Addresses of what lies under its own hash begin so."""
        return str(S3Uri(self.buckets.own_name, "objects/sha256/"))

    def _segment(
        self,
        pixels: UInt8Array,
        layout: Layout,
        params: SegmentationParams,
        *,
        model: LoadedModel,
        is_wanted: Callable[[], bool],
    ) -> tuple[Segmentation, float]:
        """Run an image's inputs through the lane, in order, with two batches of them on the way at most."""
        assembly = layout.assembly()
        ahead: deque[Future[ModelOutput | None]] = deque()
        latency_ms, added = 0.0, 0
        for index in range(layout.count):
            with stage("prepare"):
                model_input = layout.model_input(pixels, index)
            ahead.append(self.lane.submit(model.engine, model_input, is_wanted=is_wanted))
            while ahead and (len(ahead) >= 2 * model.engine.batch_size or index == layout.count - 1):
                if not is_wanted():
                    raise NoLongerWanted
                try:
                    output = ahead.popleft().result()
                except CancelledError:
                    raise NoLongerWanted from None
                if output is not None:
                    assembly.add(output.probabilities, added)
                    latency_ms, added = latency_ms + output.latency_ms, added + 1
        with stage("measure"):
            return assembly.finish(params), latency_ms

    def _store(
        self,
        chunk: ClaimedChunk,
        image: FetchedImage,
        decoded: DecodedImage,
        found: Segmentation,
        *,
        layout: Layout,
        model: LoadedModel,
        latency_ms: float,
    ) -> ResultFacts:
        with stage("encode"):
            mask_png = encode_mask(found.mask)
            overlay = self._draw(chunk.params.overlays, image, decoded, found)
        with stage("upload"):
            mask_sha256, mask_key = self.stored_masks.put(mask_png)
            crash_point(CrashPoint.MASK_STORED)
            overlay_key = None
            if overlay is not None:
                overlay_key = (
                    f"overlays/{image.sha256[:2]}/{image.sha256}/v{chunk.model_version}-{mask_sha256[:16]}.jpg"
                )
                self.storage.put(overlay_key, overlay, content_type="image/jpeg")
        return ResultFacts(
            mask_key=mask_key,
            mask_sha256=mask_sha256,
            overlay_key=overlay_key,
            defect_px=found.defect_px,
            defects=found.defects,
            variant=model.variant,
            provider=model.engine.provider,
            runtime_version=model.engine.runtime_version,
            latency_ms=latency_ms,
            resize_policy=layout.policy,
            tile_count=layout.count,
            model_scale=layout.model_scale,
        )

    def _draw(
        self, overlays: Overlays, image: FetchedImage, decoded: DecodedImage, found: Segmentation
    ) -> bytes | None:
        if overlays is Overlays.NONE or (overlays is Overlays.DEFECTIVE and not found.defects):
            return None
        is_reduced = decoded.pixels.shape[:2] != decoded.shape_hw
        pixels = image.opened.decode().pixels if is_reduced else decoded.pixels
        return encode_overlay(pixels, found.mask, defects=found.defects)

    def _outcome(self, image: FetchedImage, mask: UInt8Array, result: ResultFacts | None) -> ItemOutcome:
        item, facts = image.item, _facts(image)
        if item.label_uri is None:
            return ItemOutcome(item_id=item.item_id, image=facts, result=result)
        try:
            label = self._score(item.label_uri, mask)
        except OF_ONE_FILE as exc:
            return ItemOutcome(item_id=item.item_id, image=facts, result=result, label_error=exc)
        return ItemOutcome(item_id=item.item_id, image=facts, result=result, label=label)

    def _score(self, label_uri: str, mask: UInt8Array) -> LabelFacts:
        try:
            data = self.buckets.read(label_uri, max_bytes=self.decoder.limits.max_bytes)
        except ObjectTooLarge as exc:
            raise InvalidLabel(f"The label cannot be read: {_too_large(exc, self.decoder.limits).message}") from exc
        class_mask = self.decoder.label(data)
        counts = count_pixels(mask, class_mask)
        sha256 = put_content(self.storage, data, content_type="application/octet-stream")
        return LabelFacts(
            sha256=sha256, key=content_key(sha256), defect_px=int(np.count_nonzero(class_mask == 1)), counts=counts
        )


def _facts(image: FetchedImage) -> ImageFacts:
    height, width = image.opened.shape_hw
    return ImageFacts(
        sha256=image.sha256,
        key=content_key(image.sha256),
        size_bytes=len(image.opened.data),
        width=width,
        height=height,
        format=image.opened.format,
        source_mode=image.opened.source_mode,
        source_uri=image.item.source_uri,
    )


def _too_large(exc: ObjectTooLarge, limits: DecodeLimits) -> DefectoscopeError:
    """Say of an object that was not fetched what decoding would have said of its bytes."""
    size_bytes = exc.details["size_bytes"]
    return ImageTooLarge(
        f"The file has {size_bytes} bytes; at most {limits.max_bytes} are accepted.",
        size_bytes=size_bytes,
        max_bytes=limits.max_bytes,
    )
