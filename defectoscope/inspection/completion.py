"""Completion: everything a chunk found, written in one transaction under the chunk's fencing token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from defectoscope.crash_points import CrashPoint, crash_point
from defectoscope.database import Database, ItemState, Verdict
from defectoscope.errors import DefectoscopeError
from defectoscope.inspection import completion_sql as sql
from defectoscope.inspection.chunks import ClaimedChunk
from defectoscope.inspection.ending import end_rest_of_chunk, finish_if_done
from defectoscope.inspection.images import ImageFacts, LabelRow, register_images, register_labels
from defectoscope.inspection.totals import add_completed
from defectoscope.objects import confirm_stored
from defectoscope.segmentation import Defect, PixelCounts, ResizePolicy
from defectoscope.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFacts:
    """What one model version found in one image; its mask and overlay are stored already.

    ``model_scale`` is how many pixels of the model's input one pixel of the image became.
    """

    mask_key: str
    mask_sha256: str
    overlay_key: str | None
    defect_px: int
    defects: Sequence[Defect]
    variant: str
    provider: str
    runtime_version: str
    latency_ms: float
    resize_policy: ResizePolicy
    tile_count: int
    model_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFacts:
    """A ground-truth mask and the pixel counts of the result against it."""

    sha256: str
    key: str
    defect_px: int
    counts: PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOutcome:
    """How one image ended: with an image and a result, or with an error. A label may fail by itself."""

    item_id: int
    image: ImageFacts | None = None
    result: ResultFacts | None = None
    label: LabelFacts | None = None
    error: DefectoscopeError | None = None
    label_error: DefectoscopeError | None = None


@dataclass(slots=True)
class _Ids:
    image: dict[str, int] = field(default_factory=dict)
    #: Image id to result id and verdict.
    result: dict[int, tuple[int, str]] = field(default_factory=dict)
    label: dict[tuple[int, str], int] = field(default_factory=dict)


def complete_chunk(
    *,
    database: Database,
    chunk: ClaimedChunk,
    outcomes: Sequence[ItemOutcome],
    stopped: bool = False,
    storage: Storage | None = None,
) -> bool:
    """Write results, defects, labels and scores, close the chunk, and end the job if this was its last.

    Args:
        database: where it is written.
        chunk: as claimed.
        outcomes: one for each image that was looked at.
        stopped: the job was cancelled or stopped meanwhile, or its deadline passed; images without an outcome end so.
        storage: our own bucket, where every worker looks that the collector did not take what it stored; None where
            nothing was stored.

    Returns:
        False when the chunk is no longer ours: nothing was written, whoever holds it now writes the same.

    Raises:
        ObjectsBeingDeleted: the collector took something; nothing was written, the chunk is to be done again.
    """
    with database.transaction() as session:
        closed = session.scalar(sql.CLOSE_CHUNK, {"chunk_id": chunk.chunk_id, "token": chunk.token})
        if closed is None:
            return False
        crash_point(CrashPoint.CHUNK_CLOSED)
        ids = _Ids()
        done = [outcome for outcome in outcomes if outcome.error is None]
        ids.image = register_images(session, [outcome.image for outcome in done if outcome.image is not None])
        _write_results(session, chunk, done, ids)
        crash_point(CrashPoint.RESULTS_WRITTEN)
        _write_labels(session, chunk, done, ids)
        label_errors = _count_new_label_errors(session, outcomes)
        _write_items(session, outcomes, ids)
        # From here on the chunks of a job go one after the other: each sees what those before it ended.
        session.execute(sql.LOCK_JOB, {"job_id": chunk.job_id})
        add_completed(
            session, chunk.job_id, item_ids=[outcome.item_id for outcome in outcomes], label_errors=label_errors
        )
        if stopped:
            end_rest_of_chunk(session, chunk.job_id, chunk.chunk_id)
        finish_if_done(session, chunk.job_id)
        if storage is not None:
            confirm_stored(session, storage, _stored_keys(done))
        crash_point(CrashPoint.COMPLETION_WRITTEN)
        return True


def _stored_keys(outcomes: Iterable[ItemOutcome]) -> Iterator[str]:
    """Yield the keys that rows written for these outcomes point at."""
    for outcome in outcomes:
        if outcome.image is not None:
            yield outcome.image.key
        if outcome.label is not None:
            yield outcome.label.key
        if outcome.result is not None:
            yield outcome.result.mask_key
            if outcome.result.overlay_key is not None:
                yield outcome.result.overlay_key


def _write_results(session: Session, chunk: ClaimedChunk, outcomes: Iterable[ItemOutcome], ids: _Ids) -> None:
    made_by = {"model_version_id": chunk.model_version_id, "params_sha256": chunk.params.result_sha256}
    facts: dict[int, ResultFacts] = {}
    for outcome in outcomes:
        if outcome.image is not None and outcome.result is not None:
            facts[ids.image[outcome.image.sha256]] = outcome.result
    if facts:
        # In one order everywhere, as the images are.
        rows = [_result_row(image_id, facts[image_id]) for image_id in sorted(facts)]
        params = chunk.params
        job_wide = {"threshold": params.threshold, "min_area_px": params.min_area_px, "mm_per_px": params.mm_per_px}
        written = session.execute(sql.ADD_RESULTS, {**_columns(rows), **made_by, **job_wide}).all()
        defects = [
            _defect_row(result_id, defect, params.mm_per_px)
            for result_id, image_id in sorted(written)
            for defect in facts[image_id].defects
        ]
        if defects:
            session.execute(sql.ADD_DEFECTS, _columns(defects))
    if ids.image:
        known = session.execute(sql.FIND_RESULTS, {"image_ids": list(ids.image.values()), **made_by}).all()
        given_up = {result_id: image_id for image_id, result_id, _, is_deleted in known if is_deleted}
        again = [
            {"result_id": result_id, "mask_key": facts[image_id].mask_key, "overlay_key": facts[image_id].overlay_key}
            for result_id, image_id in sorted(given_up.items())
            if image_id in facts
        ]
        if again:
            # Retention had deleted mask and overlay; they have just been made again.
            session.execute(sql.RESTORE_RESULTS, _columns(again))
        ids.result = {image_id: (result_id, verdict) for image_id, result_id, verdict, _ in known}


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn rows into an array for each column."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _result_row(image_id: int, facts: ResultFacts) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "verdict": (Verdict.DEFECTIVE if facts.defects else Verdict.CLEAN).value,
        "defect_px": facts.defect_px,
        "defect_count": len(facts.defects),
        "mask_key": facts.mask_key,
        "mask_sha256": facts.mask_sha256,
        "overlay_key": facts.overlay_key,
        "variant": facts.variant,
        "provider": facts.provider,
        "runtime_version": facts.runtime_version,
        "latency_ms": facts.latency_ms,
        "resize_policy": facts.resize_policy,
        "tile_count": facts.tile_count,
        "model_scale": facts.model_scale,
    }


def _defect_row(result_id: int, defect: Defect, mm_per_px: float | None) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = defect.box_xyxy
    return {
        "result_id": result_id,
        "number": defect.number,
        "x_min": x_min,
        "y_min": y_min,
        "x_max": x_max,
        "y_max": y_max,
        "area_px": defect.area_px,
        "area_mm2": None if mm_per_px is None else defect.area_px * mm_per_px**2,
        "centroid_x": defect.centroid_xy[0],
        "centroid_y": defect.centroid_xy[1],
        "major_axis_px": defect.major_axis_px,
        "minor_axis_px": defect.minor_axis_px,
        "orientation_deg": defect.orientation_deg,
        "perimeter_px": defect.perimeter_px,
        "max_probability": defect.max_probability,
        "mean_probability": defect.mean_probability,
        "touches_border": defect.touches_border,
    }


def _write_labels(session: Session, chunk: ClaimedChunk, outcomes: Iterable[ItemOutcome], ids: _Ids) -> None:
    facts = {
        (ids.image[outcome.image.sha256], outcome.label.sha256): outcome.label
        for outcome in outcomes
        if outcome.image is not None and outcome.label is not None
    }
    if not facts:
        return
    ids.label = register_labels(
        session,
        [
            LabelRow(image_id=image_id, key=label.key, sha256=sha256, defect_px=label.defect_px)
            for (image_id, sha256), label in facts.items()
        ],
        source=f"job:{chunk.job_id}",
    )
    scores = sorted(
        (ids.result[image_id][0], ids.label[image_id, sha256], label.counts)
        for (image_id, sha256), label in facts.items()
    )
    rows = [
        {
            "result_id": result_id,
            "label_id": label_id,
            "tp": counts.tp,
            "fp": counts.fp,
            "fn": counts.fn,
            "tn": counts.tn,
        }
        for result_id, label_id, counts in scores
    ]
    session.execute(sql.ADD_SCORES, _columns(rows))


def _count_new_label_errors(session: Session, outcomes: Sequence[ItemOutcome]) -> int:
    """Return how many labels were found unusable now and not before; the items are not written yet."""
    flawed = [outcome.item_id for outcome in outcomes if outcome.label_error is not None]
    return int(session.scalars(sql.COUNT_SOUND_LABELS, {"item_ids": flawed}).one()) if flawed else 0


def _write_items(session: Session, outcomes: Sequence[ItemOutcome], ids: _Ids) -> None:
    rows = [_item_row(outcome, ids) for outcome in outcomes]
    if rows:
        session.execute(sql.END_ITEMS, _columns(rows))


def _item_row(outcome: ItemOutcome, ids: _Ids) -> dict[str, Any]:
    image_id = ids.image.get(outcome.image.sha256) if outcome.image else None
    result_id, verdict = ids.result.get(image_id, (None, None)) if image_id and not outcome.error else (None, None)
    label_id = ids.label.get((image_id, outcome.label.sha256)) if image_id and outcome.label else None
    return {
        "id": outcome.item_id,
        "state": (ItemState.FAILED if outcome.error else ItemState.SUCCEEDED).value,
        "image_id": image_id,
        "result_id": result_id,
        "label_id": label_id,
        "verdict": verdict,
        "error_code": outcome.error.code if outcome.error else None,
        "error_message": outcome.error.message if outcome.error else None,
        "label_error_code": outcome.label_error.code if outcome.label_error else None,
        "label_error_message": outcome.label_error.message if outcome.label_error else None,
    }
