from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from defectoscope.database import Evaluation
from defectoscope.errors import Fault
from defectoscope.errors.models import ModelVersionNotFound, ScoresNotComparable
from defectoscope.registry import (
    ImageEvaluation,
    best_candidates,
    compare,
    find_best_ever,
    find_evaluation,
    gate_images,
    promote,
    record_evaluation,
    retire,
)
from defectoscope.registry.gate_rules import GateRules
from defectoscope.segmentation import PixelCounts


@pytest.fixture
def put(registry):
    def put(number, **figures):
        promote(database=registry.database, number=number, actor="ann", reason="better", figures=figures)

    return put


@pytest.fixture
def best(registry):
    def best():
        with registry.database.transaction() as session:
            version = find_best_ever(session)
            return None if version is None else version.number

    return best


def test_an_evaluation_is_recorded_once_and_the_first_one_stays(registry):
    revision_id, [image_id] = registry.add_revision(1)
    number = registry.publish()

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda tp: registry.score(number, revision_id, {image_id: tp}), [4, 4, 4, 4]))
    registry.score(number, revision_id, {image_id: 9})
    of_int8 = registry.score(number, revision_id, {image_id: 3}, precision="int8")

    assert len(set(ids)) == 1
    assert of_int8 not in ids
    with registry.database.transaction() as session:
        assert find_evaluation(session, number=number, revision_id=revision_id) == {image_id: PixelCounts(4, 0, 6, 90)}
        assert session.query(Evaluation).count() == 2


def test_an_evaluation_needs_a_version_and_an_image(registry):
    revision_id, _ = registry.add_revision(1)
    registry.publish()

    with registry.database.transaction() as session:
        with pytest.raises(ModelVersionNotFound):
            record_evaluation(session, number=9, revision_id=revision_id, precision="fp32", entries=[1])
        with pytest.raises(Fault):
            record_evaluation(session, number=1, revision_id=revision_id, precision="fp32", entries=[])


def test_the_best_candidates_are_those_that_served_by_their_latest_evaluation(registry, put):
    first, [a, b] = registry.add_revision(2)
    second, _ = registry.add_revision(2, number=2)
    numbers = [registry.publish() for _ in range(4)]
    registry.score(1, first, {a: 10, b: 10})
    registry.score(1, second, {a: 4, b: 6})
    registry.score(1, second, {a: 10, b: 10}, precision="int8")
    registry.score(2, first, {a: 8, b: 4})
    registry.score(3, first, {a: 10, b: 10})
    for number in (1, 2, 4):
        put(number)

    with registry.database.transaction() as session:
        candidates = best_candidates(session)

    # Version 3 never served, version 4 was never scored.
    assert numbers == [1, 2, 3, 4]
    assert [(found.version.number, found.mean_iou, found.dataset) for found in candidates] == [
        (2, pytest.approx(0.6), "steel@1"),
        (1, pytest.approx(0.5), "steel@2"),
    ]


def test_an_image_without_defects_counts_as_right_where_none_is_claimed(registry, put):
    revision_id, [a, b] = registry.add_revision(2)
    registry.publish()
    registry.score(1, revision_id, {a: 5})
    put(1)
    registry.publish()
    with registry.database.transaction() as session:
        entries = [
            ImageEvaluation(image_id=a, counts=PixelCounts(5, 0, 5, 90)),
            ImageEvaluation(image_id=b, counts=PixelCounts(0, 0, 0, 100)),
        ]
        record_evaluation(session, number=2, revision_id=revision_id, precision="fp32", entries=entries)
    put(2)

    with registry.database.transaction() as session:
        assert best_candidates(session)[0].mean_iou == pytest.approx(0.75)


def test_the_best_ever_is_the_last_that_the_gate_called_so(registry, put, best):
    revision_id, [image_id] = registry.add_revision(1)
    for tp in (5, 7, 9, 6):
        registry.score(registry.publish(), revision_id, {image_id: tp})

    found = [best()]
    put(3)
    found.append(best())
    put(1, is_new_best=True)
    put(2, is_new_best=True)
    put(4, is_new_best=False)
    found.append(best())
    retire(database=registry.database, storage=registry.storage, number=2, actor="ann", reason="leaked labels")
    found.append(best())

    # Nobody; the one with the highest score, for want of a verdict; the last new best; the one before it.
    assert found == [None, 3, 2, 1]


def test_versions_are_compared_on_the_latest_revision_that_both_were_scored_on(registry):
    first, images = registry.add_revision(12, groups=[f"part {index // 2}" for index in range(12)])
    second, _ = registry.add_revision(12, number=2, groups=[""] * 12)
    registry.add_revision(12, number=3)
    for number, tp in ((registry.publish(), 5), (registry.publish(), 7)):
        registry.score(number, first, dict.fromkeys(images, tp))
        registry.score(number, second, {image: tp + (index % 2) for index, image in enumerate(images)})

    with registry.database.transaction() as session:
        latest = compare(session, 1, 2)
        named = compare(session, 2, 1, revision_id=first, rules=GateRules(min_groups=5, unseen_loss=0.0))
        groups = [{image.group for image in gate_images(session, revision_id)} for revision_id in (first, second)]

    assert (latest.dataset, named.dataset) == ("steel@2", "steel@1")
    assert [image.difference for image in latest.images] == [pytest.approx(0.2)] * 12
    assert latest.decision.figures["difference"]["mean"] == pytest.approx(0.2)
    assert named.decision.promoted is False
    assert named.images[0].name == "0.png"
    assert [len(found) for found in groups] == [6, 12]


def test_a_comparison_lists_what_lost_most_first_and_looks_at_the_best_version_too(registry, put):
    revision_id, images = registry.add_revision(3)
    for tps in ([5, 5, 5], [9, 9, 9], [6, 2, 5]):
        registry.score(registry.publish(), revision_id, dict(zip(images, tps, strict=True)))
    put(2)

    with registry.database.transaction() as session:
        comparison = compare(session, 1, 3)

    assert [image.name for image in comparison.images] == ["1.png", "2.png", "0.png"]
    assert comparison.best_ever == 2
    assert comparison.decision.figures["best_ever"]["mean_iou"] == pytest.approx(0.9)


def test_versions_without_a_common_revision_are_not_compared_and_that_says_what_to_do(registry):
    first, [image_id] = registry.add_revision(1)
    second, _ = registry.add_revision(1, number=2)
    registry.score(registry.publish(), first, {image_id: 5})
    registry.score(registry.publish(), second, {image_id: 5})
    registry.publish()

    with registry.database.transaction() as session:
        with pytest.raises(ScoresNotComparable, match="version 1 on steel@1 and version 2 on steel@2") as apart:
            compare(session, 1, 2)
        with pytest.raises(ScoresNotComparable, match="version 3 on no revision"):
            compare(session, 1, 3)
        with pytest.raises(ScoresNotComparable, match="itself"):
            compare(session, 1, 1)
        with pytest.raises(ModelVersionNotFound):
            compare(session, 1, 9)

    assert "start one" in apart.value.message
    assert apart.value.details == {"scored": {"1": ["steel@1"], "2": ["steel@2"]}}
