"""The ledger against a model of it: whatever is done in whatever order, every moment has the champion it had."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from defectoscope.database import LedgerAction
from defectoscope.errors import Conflict
from defectoscope.registry import champion_as_of, history, promote, refuse, retire, rollback
from defectoscope.registry.history import service_stack

VERSIONS = 4
TICK = timedelta(microseconds=1)


@pytest.fixture
def decide(registry):
    """Do what is said of a version; what cannot be done is not done. Return whether it was."""

    def decide(action, number):
        told = {"database": registry.database, "actor": "ann", "reason": "said so"}
        try:
            match action:
                case "promote":
                    promote(number=number, figures={}, **told)
                case "refuse":
                    refuse(number=number, figures={}, **told)
                case "rollback":
                    rollback(**told)
                case "rollback to":
                    rollback(to=number, **told)
                case "retire":
                    retire(number=number, storage=registry.storage, **told)
        except Conflict:
            return False
        return True

    return decide


def clear(registry):
    """Empty the ledger, which nothing but a new database does in earnest."""
    with registry.database.transaction() as session:
        session.execute(text("TRUNCATE promotions, champions, events, webhook_deliveries RESTART IDENTITY"))
        session.execute(text("UPDATE model_versions SET retired_at = NULL"))


def as_of(registry, moment):
    with registry.database.transaction() as session:
        version = champion_as_of(session, moment)
        return None if version is None else version.number


ACTIONS = st.sampled_from(["promote", "promote", "promote", "rollback", "rollback", "rollback to", "refuse", "retire"])


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(st.tuples(ACTIONS, st.integers(1, VERSIONS)), min_size=1, max_size=12))
def test_the_champion_of_every_moment_is_the_one_that_was_in_service_then(registry, decide, steps):
    while len(registry.storage_keys()) < VERSIONS:
        registry.publish()
    clear(registry)
    served = []
    for action, number in steps:
        if decide(action, number) and action in {"promote", "rollback", "rollback to"}:
            with registry.database.transaction() as session:
                line = history(session, limit=1).lines[0]
                served.append((line.created_at, registry.champion()))
                # What a rollback would go back from is what is in service.
                assert service_stack(session)[-1] == registry.champion()

    moments = [moment for moment, _ in served]
    assert moments == sorted(set(moments))
    for position, (moment, number) in enumerate(served):
        before = served[position - 1][1] if position else None
        assert as_of(registry, moment - TICK) == before
        assert as_of(registry, moment) == number
    assert as_of(registry, datetime.now(UTC) + timedelta(days=1)) == (served[-1][1] if served else None)


def test_history_at_a_moment_holds_the_lines_until_then_and_no_later_one(registry, decide):
    for _ in range(3):
        registry.publish()
    for action, number in [("promote", 1), ("refuse", 2), ("promote", 3), ("rollback", 0)]:
        assert decide(action, number)
    with registry.database.transaction() as session:
        promoted, refused, third, back = reversed(history(session).lines)

        at_refusal = history(session, as_of=refused.created_at)
        just_before = history(session, as_of=promoted.created_at - TICK)
        in_another_zone = history(session, as_of=third.created_at.astimezone(tz=None))

    assert [line.action for line in (promoted, refused, third, back)] == [
        LedgerAction.PROMOTED,
        LedgerAction.REFUSED,
        LedgerAction.PROMOTED,
        LedgerAction.ROLLED_BACK,
    ]
    assert (at_refusal.in_service, list(at_refusal.lines)) == (promoted, [refused, promoted])
    assert (just_before.in_service, list(just_before.lines)) == (None, [])
    assert in_another_zone.in_service.number == 3
    assert (back.number, back.previous) == (1, 3)


def test_a_page_of_the_history_says_the_same_champion(registry, decide):
    for number in (1, 2, 3):
        registry.publish()
        decide("promote", number)

    with registry.database.transaction() as session:
        first = history(session, limit=2)
        rest = history(session, before=first.lines[-1].id, limit=2)

    assert [line.number for line in first.lines] == [3, 2]
    assert [line.number for line in rest.lines] == [1]
    assert first.in_service == rest.in_service == first.lines[0]


def test_a_clock_that_is_set_back_writes_no_line_into_the_past(registry, decide):
    registry.publish()
    registry.publish()
    decide("promote", 1)
    with registry.database.transaction() as session:
        # The append-only trigger is no rule for a test that moves the clock.
        session.execute(text("ALTER TABLE promotions DISABLE TRIGGER append_only"))
        session.execute(text("UPDATE promotions SET created_at = now() + interval '1 hour'"))
        session.execute(text("ALTER TABLE promotions ENABLE TRIGGER append_only"))

    decide("promote", 2)

    with registry.database.transaction() as session:
        second, first = history(session).lines
    assert second.created_at - first.created_at == TICK
    assert as_of(registry, first.created_at) == 1
    assert as_of(registry, second.created_at) == 2
