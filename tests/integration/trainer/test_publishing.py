"""What becomes of a built model, and of a build that fails; building itself is replaced by a model made by hand."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sqlalchemy import func, update

from defectoscope.database import ModelVersion, TrainingRun, TrainingRunState
from defectoscope.errors import ExportParityFailed, InvalidRequest, TrainerLost, TrainingFailed, TrainingInterrupted
from defectoscope.registry import find_champion
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME
from defectoscope.training import claim_run, reconcile_runs
from trainer.build import BuiltModel, build_model, contract_of
from trainer.evaluate import evaluate
from trainer.export import stamp
from trainer.interruption import Interruption
from trainer.lease import RunLease
from trainer.parity import Parity
from trainer.run import execute_run
from trainer.runtime import onnx_engine

TRAINING_RUN_LEASE_RUNS_OUT = update(TrainingRun).values(lease_expires_at=func.now() - timedelta(seconds=1))


def build_by_hand(files, /, *, config, dataset_revision, device, work_dir, observer):
    """Give a model that takes the red channel for the probability of a defect."""
    width, height = config.input_size_wh
    contract = contract_of(config, dataset_revision=dataset_revision)
    graph = helper.make_graph(
        [helper.make_node("Gather", [INPUT_NAME, "red"], [OUTPUT_NAME], axis=3)],
        "red",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["batch", height, width])],
        [onnx.numpy_helper.from_array(np.array(0, dtype=np.int64), "red")],
    )
    path = work_dir / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    stamp(path, contract)
    return BuiltModel(
        path=path,
        contract=contract,
        parity=Parity(images=3, batch_size=3, max_level_difference=0, mask_iou=1.0, flipped_verdicts=0),
        scores=evaluate(files.val, engine=onnx_engine(path), contract=contract),
        figures={},
    )


@pytest.fixture
def execute(trainer, database, storage, tmp_path):
    """Claim a run and do it in this process, with a chosen build."""

    def execute(run_id, *, build=build_by_hand, interruption=None):
        claimed = claim_run(database=database, run_id=run_id, owner="test", lease_s=60)
        lease = RunLease(
            claimed, database=database, lease_s=60, max_attempts=2, interruption=interruption or Interruption()
        )
        with lease.held():
            return execute_run(
                claimed,
                lease=lease,
                database=database,
                storage=storage,
                work_dir=tmp_path / "work",
                device="cpu",
                build=build,
            )

    return execute


def _numbers(database):
    with database.transaction() as session:
        return [version.number for version in session.query(ModelVersion).order_by(ModelVersion.number)]


def test_a_second_version_is_published_but_not_put_into_service(trainer, revision, database, execute):
    first, second = trainer.request(revision), trainer.request(revision)

    numbers = [execute(first), execute(second)]

    with database.transaction() as session:
        champion = find_champion(session)
    assert numbers == [1, 2]
    assert champion.number == 1
    assert trainer.row(second).state is TrainingRunState.SUCCEEDED


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        pytest.param(ExportParityFailed(), "export_parity_failed", id="the file differs from the network"),
        pytest.param(TrainingFailed("The loss became nan."), "training_failed", id="the training fails"),
        pytest.param(OSError(28, "No space left on device"), "training_failed", id="the disk is full"),
        pytest.param(ZeroDivisionError("a bug"), "unexpected", id="a bug"),
    ],
)
def test_a_build_that_fails_ends_the_run_by_name_and_leaves_no_version(trainer, revision, execute, failure, code):
    run_id = trainer.request(revision)
    scratch = []

    def fail(_files, /, *, work_dir, **_):
        scratch.append(work_dir)
        (work_dir / "half.onnx").write_bytes(b"half a model")
        raise failure

    with pytest.raises(Exception):  # noqa: B017, PT011 -- which one is the point of the parameters
        execute(run_id, build=fail)

    row = trainer.row(run_id)
    assert (row.state, row.error_code) == (TrainingRunState.FAILED, code)
    assert row.error_message
    assert _numbers(trainer.database) == []
    assert not scratch[0].exists()


def test_a_recipe_that_cannot_be_built_fails_by_name(trainer, revision, database, execute):
    run_id = trainer.request(revision, architecture="NoSuchNet")

    with pytest.raises(InvalidRequest):
        execute(run_id, build=build_model)

    row = trainer.row(run_id)
    assert (row.state, row.error_code) == (TrainingRunState.FAILED, "invalid_request")
    assert "NoSuchNet" in row.error_message
    assert _numbers(database) == []


def test_a_stop_before_publishing_publishes_nothing(trainer, revision, database, execute):
    run_id = trainer.request(revision)
    interruption = Interruption()

    def build_and_stop(files, /, **arguments):
        interruption.tell()
        return build_by_hand(files, **arguments)

    with pytest.raises(TrainingInterrupted):
        execute(run_id, build=build_and_stop, interruption=interruption)

    assert trainer.row(run_id).error_code == "training_interrupted"
    assert _numbers(database) == []


def test_a_trainer_that_lost_its_lease_publishes_nothing(trainer, revision, database, queue, execute):
    run_id = trainer.request(revision)

    def build_too_slowly(files, /, **arguments):
        with database.transaction() as session:
            session.execute(TRAINING_RUN_LEASE_RUNS_OUT)
        reconcile_runs(database=database, queue=queue, resend_after_s=60)
        return build_by_hand(files, **arguments)

    with pytest.raises(TrainerLost):
        execute(run_id, build=build_too_slowly)

    assert trainer.row(run_id).error_code == "trainer_lost"
    assert _numbers(database) == []


def test_scratch_of_ended_runs_is_removed_and_of_running_ones_kept(trainer, revision, database, execute, tmp_path):
    ended, running = trainer.request(revision), trainer.request(revision)
    execute(ended)
    claim_run(database=database, run_id=running, owner="another trainer", lease_s=60)
    work = tmp_path / "work"
    for name in (f"run-{ended}-killed", f"run-{running}-busy"):
        (work / name).mkdir()

    execute(trainer.request(revision))

    assert sorted(path.name for path in work.iterdir()) == ["images", f"run-{running}-busy"]
