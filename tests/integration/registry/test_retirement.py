from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select, text

from defectoscope.database import ModelVariant
from defectoscope.errors.models import ModelInService, ModelInUse, ModelRetired, ModelWeightsDropped
from defectoscope.errors.storage import StorageUnavailable
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.inspection.sources import ExplicitImages, SourceImage
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import MemoryQueue
from defectoscope.registry import fetch_variant, fetch_weights, promote, publish
from defectoscope.registry.publishing import VariantFile
from tests.models import CONTRACT


@pytest.fixture
def submit(registry):
    """Submit a job of one image, pinned to a version; return its id."""

    def submit(number):
        return submit_job(
            database=registry.database,
            queue=MemoryQueue(),
            request=JobRequest(
                source=ExplicitImages(images=(SourceImage(name="a.png", uri="s3://b/a.png", label_uri=None),)),
                params=JobParams(threshold=0.5, min_area_px=1, overlays=Overlays.NONE, mm_per_px=None, qa_min_iou=0.5),
                model_version_id=registry.version(number).id,
            ),
            chunk_size=4,
        )

    return submit


class AwayStorage:
    """A storage that does not answer when something is to be deleted."""

    def delete(self, _keys):
        raise StorageUnavailable


def fetch(registry, number, tmp_path):
    return fetch_variant(
        database=registry.database,
        storage=registry.storage,
        number=number,
        precision="fp32",
        directory=tmp_path / "cache",
    )


def test_a_retired_version_keeps_its_files_and_may_still_be_named_by_jobs(registry, submit, tmp_path):
    number = registry.publish()

    registry.withdraw(number)

    assert registry.version(number).retired_at is not None
    assert registry.ledger() == [("retired", 1)]
    assert registry.events()[-1].kind == "model.retired"
    assert fetch(registry, number, tmp_path).exists()
    assert submit(number) == 1


def test_dropped_files_are_gone_and_the_record_stays(registry, tmp_path):
    number = registry.publish(precisions=("fp32", "fp16"), weights=b"weights")

    registry.withdraw(number, drop_weights=True)

    assert registry.storage_keys() == []
    assert registry.ledger() == [("retired", 1), ("weights_dropped", 1)]
    assert [event.kind for event in registry.events()] == ["model.retired", "model.weights_dropped"]
    with registry.database.transaction() as session:
        variants = session.scalars(select(ModelVariant)).all()
    assert [(variant.key, len(variant.sha256), variant.parity) for variant in variants] == [
        (None, 64, {"mask_iou": 1.0})
    ] * 2
    with pytest.raises(ModelWeightsDropped):
        fetch(registry, number, tmp_path)
    with pytest.raises(ModelWeightsDropped):
        fetch_weights(database=registry.database, storage=registry.storage, number=number, directory=tmp_path)


def test_files_can_be_dropped_later_and_that_is_one_more_line(registry):
    number = registry.publish()

    registry.withdraw(number)
    registry.withdraw(number, drop_weights=True)
    registry.withdraw(number, drop_weights=True)

    assert registry.ledger() == [("retired", 1), ("weights_dropped", 1)]
    assert registry.storage_keys() == []


def test_a_version_is_retired_once(registry):
    number = registry.publish()
    registry.withdraw(number)

    with pytest.raises(ModelRetired):
        registry.withdraw(number)

    assert registry.ledger() == [("retired", 1)]


def test_the_champion_is_not_retired(registry):
    number = registry.publish()
    promote(database=registry.database, number=number, actor="ann", reason="first", figures={})

    with pytest.raises(ModelInService):
        registry.withdraw(number, drop_weights=True)

    assert registry.champion() == number
    assert len(registry.storage_keys()) == 1


def test_content_that_another_version_has_is_not_deleted(registry, tmp_path):
    first, second = registry.publish(weights=b"equal"), registry.publish(weights=b"equal")

    registry.withdraw(first, drop_weights=True)
    kept = fetch_weights(database=registry.database, storage=registry.storage, number=second, directory=tmp_path)
    registry.withdraw(second, drop_weights=True)

    assert kept.read_bytes() == b"equal"
    assert registry.storage_keys() == []


def test_a_storage_that_was_away_is_caught_up_with(registry):
    number = registry.publish()

    with pytest.raises(StorageUnavailable):
        registry.withdraw(number, storage=AwayStorage(), drop_weights=True)
    recorded, left = registry.version(number).weights_dropped_at, registry.storage_keys()
    registry.withdraw(number, drop_weights=True)

    assert recorded is not None
    assert (len(left), registry.storage_keys()) == (1, [])


def test_files_that_an_unfinished_job_needs_stay_and_the_version_is_not_retired(registry, submit):
    number = registry.publish()
    job_id = submit(number)

    with pytest.raises(ModelInUse) as refused:
        registry.withdraw(number, drop_weights=True)

    assert refused.value.details["job_ids"] == [job_id]
    assert registry.version(number).retired_at is None
    assert len(registry.storage_keys()) == 1
    with registry.database.transaction() as session:
        session.execute(text("UPDATE jobs SET state = 'succeeded'"))
    registry.withdraw(number, drop_weights=True)
    assert registry.storage_keys() == []


def test_no_job_is_submitted_on_dropped_files(registry, submit):
    number = registry.publish()
    registry.withdraw(number, drop_weights=True)

    with pytest.raises(ModelWeightsDropped):
        submit(number)


@pytest.mark.parametrize("attempt", range(4))
def test_a_job_and_a_drop_at_one_moment_exclude_each_other(registry, submit, attempt):
    number = registry.publish()
    together = Barrier(2)

    def drop():
        together.wait()
        try:
            registry.withdraw(number, drop_weights=True)
        except ModelInUse:
            return "in use"
        return "dropped"

    def work():
        together.wait()
        try:
            submit(number)
        except ModelWeightsDropped:
            return "no files"
        return "submitted"

    with ThreadPoolExecutor(2) as pool:
        outcome = pool.submit(drop), pool.submit(work)
        answers = tuple(done.result(timeout=30) for done in outcome)

    assert answers in {("dropped", "no files"), ("in use", "submitted")}
    assert len(registry.storage_keys()) == (0 if answers[0] == "dropped" else 1)


@pytest.mark.parametrize("attempt", range(4))
def test_a_file_is_not_deleted_while_its_content_is_published_again(registry, attempt, tmp_path):
    def publish_same():
        def build(contract):
            path = tmp_path / f"{contract.version}.onnx"
            path.write_bytes(b"the same")
            return [VariantFile(precision="fp32", path=path, parity={})]

        return publish(
            database=registry.database,
            storage=registry.storage,
            contract=CONTRACT,
            build=build,
            training_run_id=None,
            dataset_revision_id=None,
        )

    first = publish_same()
    together = Barrier(2)

    def drop():
        together.wait()
        registry.withdraw(first, drop_weights=True)

    def publish_again():
        together.wait()
        return publish_same()

    with ThreadPoolExecutor(2) as pool:
        dropped, published = pool.submit(drop), pool.submit(publish_again)
        dropped.result(timeout=30)
        second = published.result(timeout=30)

    assert fetch(registry, second, tmp_path).read_bytes() == b"the same"
