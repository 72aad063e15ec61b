"""A training run from its row to a model in service, in the trainer's own process on the real servers."""

from __future__ import annotations

import re
import signal
import time

from sqlalchemy import select

from defectoscope.connect import open_queue
from defectoscope.database import Evaluation, EvaluationImage, ModelVariant, ModelVersion, TrainingRunState
from defectoscope.queue import messages
from defectoscope.registry import find_champion
from defectoscope.segmentation import ModelContract, PixelCounts
from defectoscope.training import claim_run
from defectoscope.training.queries import view_run
from trainer.config import TrainingConfig
from trainer.exclusive import sole_training
from trainer.runtime import onnx_engine, read_contract

_PATIENCE_S = 120
_EVENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z \[(info|warning|error) +\] training_(run|process)\.\w+ ")


def _finish(process):
    output, _ = process.communicate(timeout=_PATIENCE_S)
    return process.returncode, output


def _versions(database):
    with database.transaction() as session:
        return session.scalars(select(ModelVersion).order_by(ModelVersion.number)).all()


def test_the_first_run_puts_its_model_into_service(trainer, revision, database, storage, tmp_path):
    first = trainer.request(revision)

    status, output = _finish(trainer.start(first))

    assert status == 0, output
    assert trainer.row(first).state is TrainingRunState.SUCCEEDED
    assert trainer.row(first).stage is None
    assert trainer.row(first).lease_owner is None
    assert [version.number for version in _versions(database)] == [1]
    with database.transaction() as session:
        champion = find_champion(session)
        variants = {
            variant.precision: variant
            for variant in session.scalars(select(ModelVariant).where(ModelVariant.model_version_id == champion.id))
        }
        variant = variants["fp32"]
        epochs = view_run(session, first).metrics
        scored = session.scalars(
            select(EvaluationImage).join(Evaluation).where(Evaluation.model_version_id == champion.id)
        ).all()
    assert champion.number == 1
    assert champion.training_run_id == first

    # Every figure of every epoch is there, and the row says the whole recipe.
    assert sorted(epochs) == [1, 2]
    assert {"train_loss", "val_iou_defect", "learning_rate"} <= set(epochs[2])
    assert TrainingConfig.resolve(trainer.row(first).config).to_json() == trainer.row(first).config

    # The row also says what the training found beside them.
    figures = trainer.row(first).figures
    assert (figures["encoder_weights_used"], figures["device"]) == ("random", "cpu")
    assert (figures["train_images"], figures["val_images"]) == (6, 3)
    assert figures["best_epoch"] in {1, 2}
    assert figures["parity"] == variant.parity
    assert 0 < figures["training_seconds"] < figures["seconds"]
    assert figures["validation"]["images"] == 3
    counts = sum((PixelCounts(row.tp, row.fp, row.fn, row.tn) for row in scored), PixelCounts(0, 0, 0, 0))
    assert figures["validation"]["pooled"]["iou_defect"] == counts.iou_defect

    # Three validation images were scored at their own size.
    assert sorted(row.tp + row.fp + row.fn + row.tn for row in scored) == sorted([56 * 80, 64 * 64, 56 * 80])

    # The other precisions were made too, or it is said why not; the network is kept to go on from.
    assert sorted(variants) == ["fp16", "fp32", "int8"]
    assert all((found.key is None) == (found.reason is not None) for found in variants.values())
    assert champion.weights_key is not None
    assert champion.operating_point["threshold"] == ModelContract.from_metadata(champion.contract).threshold
    assert b"Training run" in storage.get(trainer.row(first).report_key)

    # The stored file carries the number and can be loaded.
    path = tmp_path / "stored.onnx"
    storage.get_to_file(variant.key, path)
    contract = read_contract(path)
    assert contract.version == 1
    assert contract.dataset_revision == "parts@1"
    assert contract == ModelContract.from_metadata(champion.contract)
    assert onnx_engine(path)
    assert variant.parity["flipped_verdicts"] == 0
    assert variant.parity["mask_iou"] >= 0.999


def test_a_worker_told_to_stop_gives_its_run_back_with_a_checkpoint(trainer, revision, settings, database, tmp_path):
    run_id = trainer.request(revision, epochs=10_000)
    worker = trainer.start_worker()
    open_queue(settings, name="test").send([messages.run_training(run_id)])
    _wait_until(lambda: _has_metrics(database, run_id), worker)

    worker.send_signal(signal.SIGTERM)
    status, output = _finish(worker)

    row = trainer.row(run_id)
    assert status == 0, output
    assert (row.state, row.error_code, row.attempts) == (TrainingRunState.PENDING, None, 0)
    assert row.checkpoint["epoch"] >= 1
    # The process of the run writes as the worker does: Celery puts no words of its own around its lines.
    events = [line for line in output.splitlines() if "training_run." in line or "training_process." in line]
    assert [line for line in events if not _EVENT.match(line)] == []
    assert "training_process.ended" in events[-1]
    assert " status=1 " in events[-1]
    assert "(training_interrupted)" in output
    assert _versions(database) == []
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["images", "training.lock"]


def test_a_run_that_is_not_pending_is_left_alone(trainer, revision, database):
    run_id = trainer.request(revision)
    claimed = claim_run(database=database, run_id=run_id, owner="another trainer", lease_s=60)

    status, _ = _finish(trainer.start(run_id))

    row = trainer.row(run_id)
    assert status == 0
    assert (row.state, row.lease_owner, row.lease_token) == (TrainingRunState.RUNNING, "another trainer", claimed.token)


def test_a_second_training_on_the_same_machine_waits_for_the_first(trainer, revision, tmp_path):
    run_id = trainer.request(revision)

    with sole_training(tmp_path / "work") as is_sole:
        status, output = _finish(trainer.start(run_id))

    assert is_sole
    assert status == 0
    assert "training_run.postponed" in output
    assert trainer.row(run_id).state is TrainingRunState.PENDING


def _wait_until(condition, process):
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _has_metrics(database, run_id):
    with database.transaction() as session:
        return bool(view_run(session, run_id).metrics)
