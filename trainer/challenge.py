"""Holds a published version against the champion on the current validation images, and acts on what the gate says.

Every version is scored by its served fp32 file. A trainer that is killed in between finds its evaluations and, if it
came so far, its decision again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from defectoscope.database import Database
from defectoscope.errors.models import ChampionChanged
from defectoscope.registry import (
    ImageEvaluation,
    champion_or_none,
    fetch_variant,
    find_best_ever,
    find_decision,
    find_evaluation,
    gate_images,
    promote,
    record_evaluation,
    refuse,
)
from defectoscope.registry.gate import judge
from defectoscope.registry.gate_rules import GateRules
from defectoscope.segmentation import PixelCounts
from defectoscope.storage import Storage
from trainer.data import LabelledFile
from trainer.evaluate import evaluate
from trainer.runtime import onnx_engine, read_contract

log = structlog.get_logger(__name__)

_PRECISION = "fp32"


def challenge(
    number: int,
    *,
    files: Sequence[LabelledFile],
    revision_id: int,
    database: Database,
    storage: Storage,
    model_dir: Path,
    rules: GateRules,
    actor: str,
    check: Callable[[], None],
) -> dict[str, Any] | None:
    """Promote a version or refuse it.

    Args:
        number: of the challenger, published.
        files: the validation side of the revision.
        revision_id: the dataset revision that all are scored on.
        database: where versions, evaluations and the ledger are.
        storage: where their files are.
        model_dir: local cache of model files.
        rules: of the gate.
        actor: whom the ledger names.
        check: asked often whether to stop; it raises what it means.

    Returns:
        The decision, JSON-ready; None when it had been made before.
    """
    while True:
        with database.transaction() as session:
            if find_decision(session, number) is not None:
                return None
            champion = champion_or_none(session)
            best = find_best_ever(session)
            images = gate_images(session, revision_id)
        numbers = [number, *dict.fromkeys(version.number for version in (champion, best) if version is not None)]
        scores = {
            scored: _score(
                scored,
                files=files,
                revision_id=revision_id,
                database=database,
                storage=storage,
                model_dir=model_dir,
                check=check,
            )
            for scored in numbers
        }
        decision = judge(
            images,
            challenger=scores[number],
            champion=None if champion is None else scores[champion.number],
            best_ever=None if best is None or champion is None or best.id == champion.id else scores[best.number],
            rules=rules,
        )
        figures = decision.to_json()
        if not decision.promoted:
            refuse(database=database, number=number, actor=actor, reason=decision.reason, figures=figures)
            log.info("challenger.refused", number=number, reason=decision.reason)
            return figures
        try:
            promote(
                database=database,
                number=number,
                actor=actor,
                reason=decision.reason,
                figures=figures,
                expected_champion=None if champion is None else champion.number,
            )
        except ChampionChanged as exc:
            # It was compared with a version that is no longer in service: compare again.
            log.info("challenger.compared_again", number=number, reason=exc.message)
            continue
        log.info("challenger.promoted", number=number, reason=decision.reason)
        return figures


def _score(
    number: int,
    *,
    files: Sequence[LabelledFile],
    revision_id: int,
    database: Database,
    storage: Storage,
    model_dir: Path,
    check: Callable[[], None],
) -> dict[int, PixelCounts]:
    """Return a version's pixel counts on the revision, measured now unless they were measured before."""
    with database.transaction() as session:
        known = find_evaluation(session, number=number, revision_id=revision_id)
    if known:
        return known
    path = fetch_variant(database=database, storage=storage, number=number, precision=_PRECISION, directory=model_dir)
    scored = evaluate(files, engine=onnx_engine(path), contract=read_contract(path), check=check)
    entries = [
        ImageEvaluation(image_id=score.file.image_id, counts=score.counts)
        for score in scored
        if score.file.image_id is not None
    ]
    with database.transaction() as session:
        record_evaluation(session, number=number, revision_id=revision_id, precision=_PRECISION, entries=entries)
    return {entry.image_id: entry.counts for entry in entries}
