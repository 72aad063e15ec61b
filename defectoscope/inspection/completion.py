"""Completion: everything a chunk found, written in one transaction under the chunk's fencing token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from defectoscope.database import (
    Chunk,
    ChunkState,
    Database,
    DefectRow,
    ItemState,
    JobItem,
    QaScore,
    Result,
    Verdict,
)
from defectoscope.errors import DefectoscopeError
from defectoscope.inspection.chunks import ClaimedChunk, ours
from defectoscope.inspection.images import ImageFacts, register_images, register_label
from defectoscope.inspection.jobs import cancel_chunks, finish_if_done
from defectoscope.segmentation import Defect, PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFacts:
    """What one model version found in one image; its mask and overlay are stored already."""

    mask_key: str
    mask_sha256: str
    overlay_key: str | None
    defect_px: int
    defects: Sequence[Defect]
    variant: str
    provider: str
    runtime_version: str
    latency_ms: float


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
    result: dict[int, int] = field(default_factory=dict)
    label: dict[tuple[int, str], int] = field(default_factory=dict)


def complete_chunk(
    *, database: Database, chunk: ClaimedChunk, outcomes: Sequence[ItemOutcome], cancelled: bool = False
) -> bool:
    """Write results, defects, labels and scores, close the chunk, and end the job if this was its last.

    Args:
        database: where it is written.
        chunk: as claimed.
        outcomes: one for each image that was looked at.
        cancelled: the job was cancelled meanwhile; images without an outcome end as cancelled.

    Returns:
        False when the chunk is no longer ours: nothing was written, whoever holds it now writes the same.
    """
    with database.transaction() as session:
        closed = session.execute(
            update(Chunk)
            .where(*ours(chunk))
            .values(state=ChunkState.DONE, lease_owner=None, lease_expires_at=None, finished_at=func.now())
            .returning(Chunk.id)
        ).one_or_none()
        if closed is None:
            return False
        ids = _Ids()
        done = [outcome for outcome in outcomes if outcome.error is None]
        ids.image = register_images(session, [outcome.image for outcome in done if outcome.image is not None])
        _write_results(session, chunk, done, ids)
        _write_labels(session, chunk, done, ids)
        _write_items(session, outcomes, ids)
        if cancelled:
            cancel_chunks(session, [chunk.chunk_id])
        finish_if_done(session, chunk.job_id)
        return True


def _write_results(session: Session, chunk: ClaimedChunk, outcomes: Iterable[ItemOutcome], ids: _Ids) -> None:
    facts: dict[int, ResultFacts] = {}
    for outcome in outcomes:
        if outcome.image is not None and outcome.result is not None:
            facts[ids.image[outcome.image.sha256]] = outcome.result
    image_ids = sorted(ids.image.values())
    if facts:
        written = session.execute(
            insert(Result).on_conflict_do_nothing().returning(Result.id, Result.image_id),
            [_result_row(chunk, image_id, facts[image_id]) for image_id in sorted(facts)],
        )
        defects = [
            _defect_row(result_id, defect, chunk.params.mm_per_px)
            for result_id, image_id in written
            for defect in facts[image_id].defects
        ]
        if defects:
            session.execute(insert(DefectRow), defects)
    known = session.execute(
        select(Result.image_id, Result.id).where(
            Result.image_id.in_(image_ids),
            Result.model_version_id == chunk.model_version_id,
            Result.params_sha256 == chunk.params.result_sha256,
        )
    )
    ids.result = dict(known.all())


def _result_row(chunk: ClaimedChunk, image_id: int, facts: ResultFacts) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "model_version_id": chunk.model_version_id,
        "params_sha256": chunk.params.result_sha256,
        "verdict": Verdict.DEFECTIVE if facts.defects else Verdict.CLEAN,
        "defect_px": facts.defect_px,
        "defect_count": len(facts.defects),
        "threshold": chunk.params.threshold,
        "min_area_px": chunk.params.min_area_px,
        "mm_per_px": chunk.params.mm_per_px,
        "mask_key": facts.mask_key,
        "mask_sha256": facts.mask_sha256,
        "overlay_key": facts.overlay_key,
        "variant": facts.variant,
        "provider": facts.provider,
        "runtime_version": facts.runtime_version,
        "latency_ms": facts.latency_ms,
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
    scores: dict[tuple[int, int], PixelCounts] = {}
    facts = {
        (ids.image[outcome.image.sha256], outcome.label.sha256): outcome.label
        for outcome in outcomes
        if outcome.image is not None and outcome.label is not None
    }
    # In one order everywhere, as the images are.
    for (image_id, sha256), label in sorted(facts.items(), key=lambda entry: entry[0]):
        label_id = register_label(
            session,
            image_id=image_id,
            key=label.key,
            sha256=sha256,
            defect_px=label.defect_px,
            source=f"job:{chunk.job_id}",
        )
        ids.label[image_id, sha256] = label_id
        scores[ids.result[image_id], label_id] = label.counts
    if scores:
        session.execute(
            insert(QaScore).on_conflict_do_nothing(),
            [
                {
                    "result_id": result_id,
                    "label_id": label_id,
                    "tp": counts.tp,
                    "fp": counts.fp,
                    "fn": counts.fn,
                    "tn": counts.tn,
                }
                for (result_id, label_id), counts in sorted(scores.items(), key=lambda entry: entry[0])
            ],
        )


def _write_items(session: Session, outcomes: Sequence[ItemOutcome], ids: _Ids) -> None:
    rows = [_item_values(outcome, ids) for outcome in outcomes]
    if rows:
        items = JobItem.__table__.c
        values: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "b_id"}
        for name in ("label_error_code", "label_error_message"):
            # What the enumeration found wrong with a label stays.
            values[name] = func.coalesce(bindparam(name, type_=items[name].type), items[name])
        session.connection().execute(
            update(JobItem.__table__)  # type: ignore[arg-type]  # a mapped class's table is a Table
            .where(items.id == bindparam("b_id"))
            .values(values),
            rows,
        )


def _item_values(outcome: ItemOutcome, ids: _Ids) -> dict[str, Any]:
    image_id = ids.image.get(outcome.image.sha256) if outcome.image else None
    label_id = ids.label.get((image_id, outcome.label.sha256)) if image_id and outcome.label else None
    return {
        "b_id": outcome.item_id,
        "state": ItemState.FAILED if outcome.error else ItemState.SUCCEEDED,
        "image_id": image_id,
        "result_id": ids.result.get(image_id) if image_id and not outcome.error else None,
        "label_id": label_id,
        "error_code": outcome.error.code if outcome.error else None,
        "error_message": outcome.error.message if outcome.error else None,
        "label_error_code": outcome.label_error.code if outcome.label_error else None,
        "label_error_message": outcome.label_error.message if outcome.label_error else None,
    }
