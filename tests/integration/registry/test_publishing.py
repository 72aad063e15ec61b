from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
from sqlalchemy import select

from defectoscope.database import ModelVariant, ModelVersion
from defectoscope.errors import Fault
from defectoscope.registry import VariantFile, fetch_weights, find_evaluation, publish
from defectoscope.registry.evaluations import ImageEvaluation
from defectoscope.segmentation import PixelCounts
from defectoscope.storage import open_memory
from tests.models import CONTRACT


class DamagingStorage:
    """A storage that loses a byte of what it is given, and says nothing."""

    def __init__(self):
        self._whole = open_memory()

    def put_file(self, key, path, *, content_type):
        self._whole.put(key, bytes(len(path.read_bytes())), content_type=content_type)

    def __getattr__(self, name):
        return getattr(self._whole, name)


def publish_with(registry, build, **given):
    return publish(
        database=registry.database,
        contract=CONTRACT,
        build=build,
        training_run_id=None,
        dataset_revision_id=None,
        **{"storage": registry.storage, **given},
    )


def write_file(registry, contract, *, precision="fp32", content=b"a model"):
    path = registry.directory / f"{contract.version}.onnx"
    path.write_bytes(content)
    return VariantFile(precision=precision, path=path, parity={})


def test_eight_publishers_at_once_get_numbers_without_gaps(registry):
    together = Barrier(8)

    def publish_together(position):
        together.wait()
        if position % 4 == 3:
            with pytest.raises(Fault):
                publish_with(registry, lambda _contract: (_ for _ in ()).throw(Fault("no file")))
            return None
        return registry.publish()

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for number in pool.map(publish_together, range(8)) if number is not None]

    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


def test_a_second_publisher_waits_longer_than_other_locks_are_waited_for(registry):
    begun, go_on = Event(), Event()

    def build_slowly(contract):
        begun.set()
        assert go_on.wait(60)
        return [write_file(registry, contract)]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(publish_with, registry, build_slowly)
        assert begun.wait(30)
        second = pool.submit(registry.publish)
        # Any other lock is given up after 20 seconds.
        assert not second.done()
        with pytest.raises(TimeoutError):
            second.result(timeout=21)
        go_on.set()

        assert (first.result(timeout=30), second.result(timeout=30)) == (1, 2)


def test_a_variant_that_was_not_published_is_recorded_with_its_reason(registry):
    reason = "Its IoU is 0.03 below that of fp32; 0.005 is allowed."

    publish_with(
        registry,
        lambda contract: [
            write_file(registry, contract),
            VariantFile(precision="int8", path=None, parity={"iou": 0.7}, reason=reason),
        ],
    )

    with registry.database.transaction() as session:
        int8 = session.scalars(select(ModelVariant).where(ModelVariant.precision == "int8")).one()
    assert (int8.key, int8.sha256, int8.size_bytes) == (None, None, None)
    assert (int8.reason, int8.parity) == (reason, {"iou": 0.7})


@pytest.mark.parametrize("given", [{"path": None}, {"path": "a.onnx", "reason": "no"}], ids=["neither", "both"])
def test_a_variant_has_either_a_file_or_a_reason(given):
    with pytest.raises(Fault):
        VariantFile(precision="int8", parity={}, **given)


def test_weights_and_operating_point_are_kept_with_the_version(registry, tmp_path):
    point = {"threshold": 0.4, "escape_rate": {"value": 0.02, "low": 0.0, "high": 0.05}}

    number = registry.publish(weights=b"weights", operating_point=point)

    version = registry.version(number)
    path = fetch_weights(
        database=registry.database, storage=registry.storage, number=number, directory=tmp_path / "cache"
    )
    assert version.operating_point == point
    assert path.read_bytes() == b"weights"
    assert version.weights_sha256 == hashlib.sha256(b"weights").hexdigest()


def test_a_storage_that_changes_bytes_is_found_out_and_nothing_is_published(registry):
    with pytest.raises(Fault, match="not the file that was sent"):
        publish_with(registry, lambda contract: [write_file(registry, contract)], storage=DamagingStorage())

    with registry.database.transaction() as session:
        assert session.scalars(select(ModelVersion)).all() == []


def test_a_damaged_object_in_the_way_is_replaced(registry):
    sha256 = hashlib.sha256(b"a model").hexdigest()
    registry.storage.put(f"models/{sha256}.onnx", b"A model", content_type="application/octet-stream")

    publish_with(registry, lambda contract: [write_file(registry, contract)])

    assert registry.storage.get(f"models/{sha256}.onnx") == b"a model"


def test_the_evaluation_of_a_publication_is_recorded_with_it(registry):
    revision_id, [image_id] = registry.add_revision(1)
    counts = PixelCounts(3, 1, 2, 94)

    number = registry.publish(
        dataset_revision_id=revision_id, evaluation=[ImageEvaluation(image_id=image_id, counts=counts)]
    )

    with registry.database.transaction() as session:
        assert find_evaluation(session, number=number, revision_id=revision_id) == {image_id: counts}
        assert find_evaluation(session, number=number, revision_id=revision_id, precision="int8") == {}
