"""What becomes of a built model, and of a build that fails; building itself is replaced by a model made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from defectoscope.database import ModelVariant, ModelVersion, TrainingRun, TrainingRunState
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.storage import DiskFull
from defectoscope.errors.training import ExportParityFailed, TrainerLost, TrainingFailed, TrainingInterrupted
from defectoscope.registry import find_champion, history
from defectoscope.settings import GateSettings, TrainerSettings
from defectoscope.training import claim_run, reconcile_runs
from tests.models import write_dark_is_defect
from trainer.build import BuiltModel, build_model, contract_of
from trainer.evaluate import evaluate
from trainer.export import stamp
from trainer.interruption import Interruption
from trainer.lease import RunLease
from trainer.parity import Parity
from trainer.run import execute_run
from trainer.runtime import onnx_engine
from trainer.variants import Variant
from trainer.workplace import Workplace

TRAINING_RUN_LEASE_RUNS_OUT = update(TrainingRun).values(lease_expires_at=func.now() - timedelta(seconds=1))


def build_by_hand(files, /, *, config, dataset_revision, device, work_dir, observer, start):
    """Give a model that takes darkness for the probability of a defect."""
    contract = contract_of(config, dataset_revision=dataset_revision)
    path = write_dark_is_defect(work_dir / "model.onnx", contract)
    parity = Parity(images=3, batch_size=3, max_level_difference=0, mask_iou=1.0, flipped_verdicts=0)
    weights = work_dir / "weights.safetensors"
    weights.write_bytes(b"weights")
    return BuiltModel(
        contract=contract,
        variants=[
            Variant(precision="fp32", path=path, parity=parity.to_json(), reason=None),
            Variant(precision="int8", path=None, parity={}, reason="It differs too much."),
        ],
        weights_path=weights,
        operating_point={"tuned": False},
        scores=evaluate(files.val, engine=onnx_engine(path), contract=contract),
        overlays=[],
        figures={},
    )


def build_blind(files, /, **arguments):
    """Give the same model with the threshold at certainty: it finds next to nothing."""
    model = build_by_hand(files, **arguments)
    contract = replace(model.contract, threshold=1.0)
    path = model.variants[0].path
    stamp(path, contract)
    scores = evaluate(files.val, engine=onnx_engine(path), contract=contract)
    return replace(model, contract=contract, scores=scores)


@pytest.fixture
def place(settings, database, tmp_path):
    trainer = TrainerSettings(device="cpu", work_dir=tmp_path / "work")
    # Three validation images are too few to judge by; what the gate decides is not the point here.
    gate = GateSettings(min_groups=1, margin=1, first_min_iou=0, min_pooled_iou=0.001)
    return Workplace.open(settings.model_copy(update={"trainer": trainer, "gate": gate}), database=database)


@pytest.fixture
def execute(trainer, database, place):
    """Claim a run and do it in this process, with a chosen build."""

    def execute(run_id, *, build=build_by_hand, interruption=None):
        claimed = claim_run(database=database, run_id=run_id, owner="test", lease_s=60)
        lease = RunLease(
            claimed, database=database, lease_s=60, max_attempts=2, interruption=interruption or Interruption()
        )
        with lease.held():
            return execute_run(claimed, lease=lease, place=place, build=build)

    return execute


def _numbers(database):
    with database.transaction() as session:
        return [version.number for version in session.query(ModelVersion).order_by(ModelVersion.number)]


def test_a_first_version_goes_into_service_and_an_equal_second_one_is_judged_against_it(
    trainer, revision, database, execute
):
    first, second = trainer.request(revision), trainer.request(revision)

    numbers = [execute(first), execute(second)]

    with database.transaction() as session:
        lines = [(line.action.value, line.number, line.previous) for line in history(session).lines]
        champion = find_champion(session)
    assert numbers == [1, 2]
    assert lines[-1] == ("promoted", 1, None)
    assert lines[0][1:] == (2, 1)
    assert champion.number == (2 if lines[0][0] == "promoted" else 1)
    gate = trainer.row(second).figures["gate"]
    assert gate["promoted"] == (lines[0][0] == "promoted")
    assert gate["figures"]["difference"]["mean"] == 0
    assert trainer.row(second).state is TrainingRunState.SUCCEEDED


def test_a_worse_challenger_is_refused_and_the_champion_stays(trainer, revision, database, execute):
    execute(trainer.request(revision))

    execute(trainer.request(revision), build=build_blind)

    with database.transaction() as session:
        (line, _) = history(session).lines
        champion = find_champion(session)
    assert (line.action.value, line.number, line.previous) == ("refused", 2, 1)
    assert champion.number == 1


def test_a_variant_that_was_not_made_is_recorded_with_its_reason(trainer, revision, database, execute):
    execute(trainer.request(revision))

    with database.transaction() as session:
        variants = session.scalars(select(ModelVariant).order_by(ModelVariant.precision)).all()
    assert [(variant.precision, variant.key is None, variant.reason) for variant in variants] == [
        ("fp32", False, None),
        ("int8", True, "It differs too much."),
    ]


def test_a_run_from_the_champion_takes_over_its_network(trainer, revision, execute):
    execute(trainer.request(revision))
    started = []

    def look(files, /, *, config, start, **arguments):
        started.append((config.encoder, config.input_size_wh, start.weights.read_bytes()))
        return build_by_hand(files, config=config, start=start, **arguments)

    second = trainer.request(revision, start="champion", encoder="mobilenet_v2", input_size_wh=[128, 128])
    execute(second, build=look)

    assert started == [("tu-resnet10t", (64, 64), b"weights")]
    assert trainer.row(second).config["encoder"] == "tu-resnet10t"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        pytest.param(ExportParityFailed(), "export_parity_failed", id="the file differs from the network"),
        pytest.param(TrainingFailed("The loss became nan."), "training_failed", id="the training fails"),
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


def test_a_run_whose_disk_is_full_is_given_back_and_done_when_there_is_room(trainer, revision, database, execute):
    run_id = trainer.request(revision)

    def fail(_files, /, **_):
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull):
        execute(run_id, build=fail)
    given_back = trainer.row(run_id)
    execute(run_id)

    assert (given_back.state, given_back.error_code) == (TrainingRunState.PENDING, None)
    assert trainer.row(run_id).state is TrainingRunState.SUCCEEDED
    assert _numbers(database) == [1]


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

    row = trainer.row(run_id)
    assert (row.state, row.attempts, row.error_code) == (TrainingRunState.PENDING, 0, None)
    assert _numbers(database) == []


def test_a_trainer_that_lost_its_lease_publishes_nothing(trainer, revision, database, queue, execute):
    run_id = trainer.request(revision)

    def build_too_slowly(files, /, **arguments):
        with database.transaction() as session:
            session.execute(TRAINING_RUN_LEASE_RUNS_OUT)
        reconcile_runs(database=database, queue=queue, resend_after_s=60, max_attempts=1)
        return build_by_hand(files, **arguments)

    with pytest.raises(TrainerLost):
        execute(run_id, build=build_too_slowly)

    assert trainer.row(run_id).error_code == "trainer_lost"
    assert _numbers(database) == []


def test_scratch_of_killed_trainers_is_removed(trainer, revision, execute, tmp_path):
    work = tmp_path / "work"
    (work / "run-7-killed").mkdir(parents=True)
    (work / "run-7-killed" / "half.onnx").write_bytes(b"half a model")

    execute(trainer.request(revision))

    assert [path.name for path in work.iterdir()] == ["images"]
