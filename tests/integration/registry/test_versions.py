from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import insert, select, text

from defectoscope.database import DatasetRevision, ModelVariant, ModelVersion, Promotion, TrainingRun
from defectoscope.errors import Fault
from defectoscope.errors.models import ModelNotReady, ModelVariantUnavailable, ModelVersionNotFound
from defectoscope.registry import (
    VariantFile,
    fetch_variant,
    find_champion,
    find_version,
    promote,
    promote_first,
    publish,
)
from defectoscope.segmentation import ModelContract
from defectoscope.storage import open_memory
from tests.models import CONTRACT, write_dark_is_defect
from worker.device import EngineOptions
from worker.engine import OnnxEngine


@pytest.fixture
def storage():
    return open_memory()


@pytest.fixture
def publish_one(database, storage, tmp_path):
    def publish_one(*, training_run_id=None, build=None):
        def write(contract):
            path = tmp_path / f"{contract.version}.onnx"
            return [VariantFile(precision="fp32", path=write_dark_is_defect(path, contract), parity={"iou": 1.0})]

        return publish(
            database=database,
            storage=storage,
            contract=CONTRACT,
            build=build or write,
            training_run_id=training_run_id,
            dataset_revision_id=None,
        )

    return publish_one


def _champion(database):
    with database.transaction() as session:
        return find_champion(session).number


def _add_training_run(database):
    with database.transaction() as session:
        session.execute(
            insert(DatasetRevision).values(
                name="d", number=1, sha256="0" * 64, manifest_key="k", train_count=1, val_count=1
            )
        )
        session.execute(insert(TrainingRun).values(dataset_revision_id=1, config={}))
        return session.scalars(select(TrainingRun.id)).one()


def test_versions_are_numbered_without_gaps_and_the_file_says_its_number(database, storage, publish_one, tmp_path):
    numbers = [publish_one() for _ in range(2)]

    assert numbers == [1, 2]
    path = fetch_variant(database=database, storage=storage, number=2, precision="fp32", directory=tmp_path / "cache")
    assert OnnxEngine(path, options=EngineOptions(device="cpu")).contract.version == 2
    with database.transaction() as session:
        assert ModelContract.from_metadata(find_version(session, 2).contract).version == 2


def test_publishers_at_the_same_moment_get_different_numbers(publish_one):
    together = Barrier(3)

    def publish_together(_):
        together.wait()
        return publish_one()

    with ThreadPoolExecutor(3) as pool:
        numbers = list(pool.map(publish_together, range(3)))

    assert sorted(numbers) == [1, 2, 3]


def test_a_publication_that_fails_leaves_no_version_and_no_gap(database, publish_one):
    def fail(_contract):
        raise Fault("No file was written.")

    with pytest.raises(Fault):
        publish_one(build=fail)

    with database.transaction() as session:
        assert session.scalars(select(ModelVersion)).all() == []
    assert publish_one() == 1


def test_publishing_the_same_run_twice_is_one_version(database, publish_one):
    run_id = _add_training_run(database)

    numbers = [publish_one(training_run_id=run_id) for _ in range(2)]

    assert numbers == [1, 1]


def test_every_promotion_is_a_line_of_the_ledger(database, publish_one):
    publish_one()
    publish_one()

    promote(database=database, number=1, actor="ann", reason="first", figures={})
    promote(database=database, number=2, actor="bob", reason="better", figures={"iou": 0.9})

    assert _champion(database) == 2
    with database.transaction() as session:
        ledger = session.execute(
            select(
                Promotion.model_version_id, Promotion.previous_version_id, Promotion.actor, Promotion.figures
            ).order_by(Promotion.id)
        ).all()
    assert [tuple(row) for row in ledger] == [(1, None, "ann", {}), (2, 1, "bob", {"iou": 0.9})]


def test_only_the_first_version_is_promoted_by_itself(database, publish_one):
    publish_one()
    publish_one()

    promoted = [promote_first(database=database, number=number, actor="trainer") for number in (1, 2)]

    assert promoted == [True, False]
    assert _champion(database) == 1


def test_a_first_promotion_waits_for_one_that_is_under_way_and_then_leaves_it_alone(database, publish_one):
    publish_one()
    publish_one()

    for _ in range(5):
        with database.transaction() as session:
            session.execute(text("DELETE FROM champions"))
        together = Barrier(2)

        def first(together=together):
            together.wait()
            return promote_first(database=database, number=1, actor="trainer")

        def person(together=together):
            together.wait()
            promote(database=database, number=2, actor="ann", reason="asked for", figures={})

        with ThreadPoolExecutor(2) as pool:
            by_itself = pool.submit(first)
            pool.submit(person).result()
            by_itself.result()

        # Whoever was first: what a person asked for stands in the end.
        assert _champion(database) == 2


def test_what_does_not_exist_is_told_by_name(database, storage, publish_one, tmp_path):
    with pytest.raises(ModelNotReady):
        _champion(database)
    with pytest.raises(ModelVersionNotFound):
        promote(database=database, number=9, actor="ann", reason="x", figures={})
    publish_one()
    with pytest.raises(ModelVariantUnavailable, match="no int8 file"):
        fetch_variant(database=database, storage=storage, number=1, precision="int8", directory=tmp_path)


def test_a_model_file_is_fetched_once_and_again_when_it_was_damaged(database, storage, publish_one, tmp_path):
    publish_one()
    cache = tmp_path / "cache"

    def fetch():
        return fetch_variant(database=database, storage=storage, number=1, precision="fp32", directory=cache)

    path = fetch()
    written_at = path.stat().st_mtime_ns
    unchanged = fetch().stat().st_mtime_ns
    good = path.read_bytes()
    path.write_bytes(b"damaged")
    repaired = fetch().read_bytes()

    assert unchanged == written_at
    assert repaired == good
    assert [entry.name for entry in cache.iterdir()] == [path.name]


def test_a_stored_file_that_is_not_the_recorded_one_is_never_served(database, storage, publish_one, tmp_path):
    publish_one()
    with database.transaction() as session:
        key = session.scalars(select(ModelVariant.key)).one()
    storage.put(key, b"other", content_type="application/octet-stream")

    with pytest.raises(Fault, match="recorded hash"):
        fetch_variant(database=database, storage=storage, number=1, precision="fp32", directory=tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []
