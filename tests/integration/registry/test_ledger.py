from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from defectoscope.database import Severity
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.models import (
    AlreadyChampion,
    ChampionChanged,
    ModelNotReady,
    ModelRetired,
    ModelVariantUnavailable,
    ModelVersionNotFound,
    ModelWeightsDropped,
    NothingToRollBackTo,
)
from defectoscope.registry import (
    VariantFile,
    find_decision,
    promote_first,
    publish,
    refuse,
    rollback,
)
from tests.models import CONTRACT


@pytest.fixture
def published(registry):
    """The numbers of five versions, none of which is in service."""
    return [registry.publish() for _ in range(5)]


def test_a_promotion_is_a_line_an_event_and_a_champion(registry, published):
    registry.put(1, 2, figures={"iou": 0.9})

    assert registry.champion() == 2
    assert registry.ledger() == [("promoted", 1), ("promoted", 2)]
    event = registry.events()[-1]
    assert (event.kind, event.subject, event.severity) == ("model.promoted", "model:2", Severity.INFO)
    assert event.message == "Model version 2 is in service in place of version 1."
    assert event.details["actor"] == "ann"


def test_a_refusal_leaves_the_champion_alone_and_is_found_again(registry, published):
    registry.put(1)

    refuse(
        database=registry.database, number=2, actor="training run 4", reason="Lower mean.", figures={"promoted": False}
    )

    assert registry.champion() == 1
    assert registry.ledger() == [("promoted", 1), ("refused", 2)]
    assert registry.events()[-1].message == "Model version 2 was refused; version 1 stays in service."
    with registry.database.transaction() as session:
        decision = find_decision(session, 2)
        assert find_decision(session, 3) is None
    assert (decision.action, decision.previous, decision.figures) == ("refused", 1, {"promoted": False})


def without_file(registry):
    return publish(
        database=registry.database,
        storage=registry.storage,
        contract=CONTRACT,
        build=lambda _: [VariantFile(precision="fp32", path=None, parity={}, reason="No parity.")],
        training_run_id=None,
        dataset_revision_id=None,
    )


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(lambda _: 99, ModelVersionNotFound, id="unknown"),
        pytest.param(lambda registry: registry.withdraw(2) or 2, ModelRetired, id="retired"),
        pytest.param(lambda registry: registry.withdraw(2, drop_weights=True) or 2, ModelWeightsDropped, id="dropped"),
        pytest.param(without_file, ModelVariantUnavailable, id="no fp32 file"),
        pytest.param(lambda _: 1, AlreadyChampion, id="in service"),
    ],
)
def test_a_version_that_cannot_serve_is_refused_by_name(registry, published, spoil, error):
    registry.put(1)
    number = spoil(registry)
    before = registry.ledger()

    with pytest.raises(error):
        registry.put(number)

    assert registry.champion() == 1
    assert registry.ledger() == before


@pytest.mark.parametrize(
    ("expected", "is_void"),
    [pytest.param(1, False, id="the same"), pytest.param(3, True, id="another"), pytest.param(None, True, id="none")],
)
def test_a_decision_against_another_champion_is_void(registry, published, expected, is_void):
    registry.put(1)

    if is_void:
        with pytest.raises(ChampionChanged):
            registry.put(2, expected_champion=expected)
    else:
        registry.put(2, expected_champion=expected)

    assert registry.champion() == (1 if is_void else 2)


def test_a_first_version_is_promoted_against_nothing(registry, published):
    registry.put(1, expected_champion=None)

    assert registry.champion() == 1
    with pytest.raises(ChampionChanged):
        registry.put(2, expected_champion=None)


@pytest.mark.parametrize("given", [{"actor": " "}, {"reason": ""}], ids=["actor", "reason"])
def test_nobody_decides_without_a_name_and_a_reason(registry, published, given):
    with pytest.raises(InvalidRequest):
        registry.put(1, **given)

    assert registry.champion() is None


def test_a_version_without_a_file_is_not_promoted_by_itself(registry):
    number = without_file(registry)

    with pytest.raises(ModelVariantUnavailable):
        promote_first(database=registry.database, number=number, actor="trainer")

    assert registry.champion() is None


def test_each_rollback_goes_further_back_and_never_forward(registry, published):
    registry.put(1, 2, 3)

    assert [registry.back(), registry.back()] == [2, 1]
    with pytest.raises(NothingToRollBackTo):
        registry.back()
    assert registry.champion() == 1
    assert registry.ledger()[-2:] == [("rolled_back", 2), ("rolled_back", 1)]
    assert registry.events()[-1].severity is Severity.WARNING


def test_after_a_rollback_a_promotion_goes_on_from_there(registry, published):
    registry.put(1, 2, 3)
    registry.back()
    registry.put(4)

    assert [registry.back(), registry.back()] == [2, 1]


def test_a_version_that_was_promoted_again_is_gone_back_from_like_any_other(registry, published):
    registry.put(1, 2, 1)

    assert [registry.back(), registry.back()] == [2, 1]


def test_a_rollback_passes_over_what_cannot_serve_and_says_so(registry, published):
    registry.put(1, 2, 3, 4)
    registry.withdraw(3)
    registry.withdraw(2, drop_weights=True)

    line = rollback(database=registry.database, actor="bob", reason="x")

    assert (line.number, line.previous, line.figures) == (1, 4, {"skipped": [3, 2]})
    with pytest.raises(NothingToRollBackTo):
        registry.back()


def test_where_no_earlier_version_can_serve_the_champion_stays(registry, published):
    registry.put(1, 2)
    registry.withdraw(1)

    with pytest.raises(NothingToRollBackTo, match="retired or has lost its files: 1"):
        registry.back()

    assert registry.champion() == 2


def test_a_rollback_may_name_where_to(registry, published):
    registry.put(1, 2, 3)

    assert registry.back(to=1) == 1


@pytest.mark.parametrize(
    ("to", "error"),
    [
        pytest.param(3, AlreadyChampion, id="the champion"),
        pytest.param(5, NothingToRollBackTo, id="never in service"),
        pytest.param(4, NothingToRollBackTo, id="taken out by a rollback"),
        pytest.param(2, ModelRetired, id="retired"),
        pytest.param(9, ModelVersionNotFound, id="unknown"),
    ],
)
def test_a_rollback_goes_nowhere_else(registry, published, to, error):
    registry.put(1, 2, 3, 4)
    registry.back()
    registry.withdraw(2)

    with pytest.raises(error):
        registry.back(to=to)

    assert registry.champion() == 3


def test_nothing_in_service_cannot_be_rolled_back(registry, published):
    with pytest.raises(ModelNotReady):
        registry.back()


def test_two_people_who_roll_back_at_once_go_back_one_step(registry, published):
    registry.put(1, 2, 3)
    together = Barrier(2)

    def roll_back(_):
        together.wait()
        try:
            return registry.back(expected_champion=3)
        except ChampionChanged as exc:
            return exc.code

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(roll_back, range(2)))

    assert sorted(map(str, answers)) == ["2", "champion_changed"]
    assert registry.champion() == 2


def test_of_many_promotions_against_one_champion_one_is_made(registry, published):
    registry.put(1)
    together = Barrier(4)

    def promote_one(number):
        together.wait()
        try:
            registry.put(number, expected_champion=1)
        except ChampionChanged:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        promoted = [number for number in pool.map(promote_one, [2, 3, 4, 5]) if number]

    assert len(promoted) == 1
    assert registry.champion() == promoted[0]
    assert registry.ledger() == [("promoted", 1), ("promoted", promoted[0])]


@pytest.mark.parametrize("attempt", range(3))
def test_a_promotion_and_a_rollback_at_one_moment_are_one_after_the_other(registry, published, attempt):
    registry.put(1, 2)
    together = Barrier(2)

    def promote_third():
        together.wait()
        registry.put(3)

    def roll_back():
        together.wait()
        registry.back()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(promote_third), pool.submit(roll_back)]:
            done.result(timeout=30)

    # Promoted first, the rollback takes version 3 out again; rolled back first, version 3 follows version 1.
    assert (registry.ledger()[2:], registry.champion()) in [
        ([("promoted", 3), ("rolled_back", 2)], 2),
        ([("rolled_back", 1), ("promoted", 3)], 3),
    ]


@pytest.mark.parametrize("statement", ["UPDATE promotions SET reason = 'x'", "DELETE FROM promotions"])
def test_a_line_of_the_ledger_is_never_changed(registry, published, statement):
    registry.put(1)

    with (
        pytest.raises(DBAPIError, match="only ever appended to"),
        registry.database.transaction() as session,
    ):
        session.execute(text(statement))

    assert registry.ledger() == [("promoted", 1)]
