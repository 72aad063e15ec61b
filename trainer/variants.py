"""From a checked fp32 file to every precision it may be served in, each held against the trained network.

fp32 must pass, or there is no model. fp16 (for GPUs) and int8 (for CPUs) are offers: one that cannot be made, or that
differs too much, is left out with its figures and one sentence, and the run goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import structlog

from defectoscope.errors.engine import EngineFailed
from defectoscope.errors.models import InvalidModel
from defectoscope.errors.training import ExportParityFailed, TrainingFailed, VariantNotMade
from defectoscope.segmentation import Engine, ModelContract
from trainer.data import LabelledFile
from trainer.evaluate import ScoredImage, evaluate
from trainer.export import stamp
from trainer.half import half_engine, write_half
from trainer.parity import FP16, FP32, Parity, compare, demand, demand_scores, measure_loss, remember
from trainer.quantise import calibration_batches, write_int8
from trainer.runtime import onnx_engine, read_contract

log = structlog.get_logger(__name__)

Precision = Literal["fp32", "fp16", "int8"]

#: What leaves a variant out. Everything else (a stop, a full memory, a bad image) concerns the run.
_REFUSALS = (VariantNotMade, ExportParityFailed, InvalidModel, EngineFailed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One precision of a model.

    Attributes:
        precision: fp32, fp16 or int8.
        path: its file; None where it is not published.
        parity: how far it is from the network, JSON-ready, as far as that was measured; for int8 also what it loses on
            the validation labels.
        reason: one sentence, why it is not published; None where it is.
    """

    precision: Precision
    path: Path | None
    parity: dict[str, Any]
    reason: str | None


def build_variants(
    fp32_path: Path,
    *,
    network_engine: Engine,
    contract: ModelContract,
    train_files: Sequence[LabelledFile],
    val_files: Sequence[LabelledFile],
    fp32_scores: Sequence[ScoredImage],
    work_dir: Path,
    batch_size: int = 8,
    check: Callable[[], None] = lambda: None,
    stage: Callable[[str], None] = lambda _: None,
) -> list[Variant]:
    """Check the fp32 file, then make and check the others.

    Args:
        fp32_path: the exported file, its contract inside.
        network_engine: runs the trained network itself.
        contract: of the file; the variants get the same.
        train_files: what int8 is calibrated on.
        val_files: what all are compared on; non-square images are seen to.
        fp32_scores: `trainer.evaluate.evaluate` of the fp32 file on all of ``val_files``.
        work_dir: where the files are written.
        batch_size: images handed to an engine at once.
        check: asked often whether to stop; it raises what it means.
        stage: hears what begins: ``parity``, ``fp16``, ``int8``.

    Returns:
        fp32, fp16 and int8, in this order.

    Raises:
        ExportParityFailed: the fp32 file differs from the network.
    """
    reference = remember(network_engine)

    def hold(engine: Engine) -> Parity:
        return compare(
            val_files,
            reference=reference,
            exported=engine,
            contract=contract,
            batch_size=batch_size,
            check=check,
        )

    def make_fp16(path: Path, figures: dict[str, Any]) -> None:
        write_half(fp32_path, path)
        _check_file(path, contract)
        # The file as it is, and the same as a GPU rounds: the CPU alone would flatter it.
        parity = _worse(hold(onnx_engine(path)), hold(half_engine(path)))
        figures.update(parity.to_json())
        demand(parity, FP16)

    def make_int8(path: Path, figures: dict[str, Any]) -> None:
        write_int8(fp32_path, path, batches=calibration_batches(train_files, contract=contract, check=check))
        _check_file(path, contract)
        engine = onnx_engine(path)
        figures.update(hold(engine).to_json())
        scores = evaluate(val_files, engine=engine, contract=contract, batch_size=batch_size, check=check)
        loss = measure_loss([score.counts for score in scores], fp32_counts=[score.counts for score in fp32_scores])
        figures.update(loss.to_json())
        demand_scores(loss)

    stage("parity")
    parity = hold(onnx_engine(fp32_path))
    demand(parity, FP32)
    variants = [Variant(precision="fp32", path=fp32_path, parity=parity.to_json(), reason=None)]
    makers: list[tuple[Precision, Callable[[Path, dict[str, Any]], None]]] = [("fp16", make_fp16), ("int8", make_int8)]
    for precision, make in makers:
        check()
        stage(precision)
        variants.append(_offer(precision, work_dir / f"{fp32_path.stem}-{precision}.onnx", make))
    return variants


def restamp(variant: Variant, contract: ModelContract) -> Variant:
    """Copy a variant's file, beside it, under another contract: the one with the version's number.

    Args:
        variant: from `build_variants`; one without a file is returned as it is.
        contract: numbered.

    Returns:
        The variant with the path of the copy, which was loaded and gave its contract back.

    Raises:
        TrainingFailed: the copy is not valid.
        InvalidModel: ONNX Runtime cannot load it.
    """
    if variant.path is None:
        return variant
    path = variant.path.with_name(f"v{contract.version}-{variant.precision}.onnx")
    shutil.copyfile(variant.path, path)
    stamp(path, contract)
    read_contract(path)
    return replace(variant, path=path)


def _offer(precision: Precision, path: Path, make: Callable[[Path, dict[str, Any]], None]) -> Variant:
    figures: dict[str, Any] = {}
    try:
        make(path, figures)
    except _REFUSALS as exc:
        path.unlink(missing_ok=True)
        log.warning("variant.refused", precision=precision, reason=exc.message, consequence="it is not published")
        return Variant(precision=precision, path=None, parity=figures, reason=exc.message)
    return Variant(precision=precision, path=path, parity=figures, reason=None)


def _check_file(path: Path, contract: ModelContract) -> None:
    """Check a written variant as the export itself is checked."""
    try:
        stamp(path, contract)
    except TrainingFailed as exc:
        raise VariantNotMade(exc.message) from exc


def _worse(one: Parity, other: Parity) -> Parity:
    return replace(
        one,
        max_level_difference=max(one.max_level_difference, other.max_level_difference),
        mask_iou=min(one.mask_iou, other.mask_iou),
        flipped_verdicts=max(one.flipped_verdicts, other.flipped_verdicts),
    )
