"""What is sent, when it is sent again, and what an event is owed to."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest

from defectoscope.database import LedgerAction, NightState
from defectoscope.events import KINDS, names_a_kind
from defectoscope.webhooks.messages import EventFacts, body_of, headers_of
from defectoscope.webhooks.outbox import RetryPolicy
from defectoscope.webhooks.signature import new_secret, verify_webhook

EVENT = EventFacts(
    id=41,
    kind="job.finished",
    severity="warning",
    subject="job:12",
    message="Größe unbekannt.",
    details={"b": 1, "a": [None, 0.5]},
    created_at=datetime(2026, 11, 23, 3, 12, tzinfo=UTC),
)
RETRY = RetryPolicy(max_attempts=12, first_s=10, longest_s=12 * 3600)


def test_the_body_says_everything_about_the_event():
    assert json.loads(body_of(EVENT)) == {
        "id": "evt_41",
        "type": "job.finished",
        "timestamp": "2026-11-23T03:12:00Z",
        "data": {
            "severity": "warning",
            "subject": "job:12",
            "message": "Größe unbekannt.",
            "details": {"a": [None, 0.5], "b": 1},
        },
    }


def test_the_same_event_is_the_same_bytes_whatever_process_reads_it():
    elsewhere = replace(
        EVENT,
        details={"a": [None, 0.5], "b": 1},
        created_at=EVENT.created_at.astimezone(timezone(timedelta(hours=5))),
    )

    assert body_of(elsewhere) == body_of(EVENT)


def test_the_headers_sign_the_body():
    secret, body = new_secret(), body_of(EVENT)

    headers = headers_of(EVENT, secrets=[secret], timestamp=1_795_000_000, body=body)

    assert verify_webhook(body, headers, secret, now=lambda: 1_795_000_001)["id"] == headers["webhook-id"] == "evt_41"


def test_a_text_that_is_no_unicode_can_be_sent():
    assert b'"message":"?"' in body_of(replace(EVENT, message="\ud800"))


def test_pauses_grow_threefold_to_their_longest():
    pauses = [RETRY.delay_s(attempt, draw=lambda: 0.5) for attempt in range(1, 13)]

    assert pauses[:4] == [10, 30, 90, 270]
    assert all(later == min(earlier * 3, 12 * 3600) for earlier, later in pairwise(pauses))
    assert timedelta(seconds=sum(pauses[:-1])) > timedelta(hours=40)


@pytest.mark.parametrize(("drawn", "pause_s"), [(0.0, 22.5), (1.0, 37.5)], ids=["shortest", "longest"])
def test_pauses_are_spread_by_a_quarter(drawn, pause_s):
    assert RETRY.delay_s(2, draw=lambda: drawn) == pause_s


@pytest.mark.parametrize("wanted", ["job.finished", "model.*", "training.*", "*"])
def test_a_kind_a_family_and_everything_can_be_wanted(wanted):
    assert names_a_kind(wanted)


@pytest.mark.parametrize("wanted", ["job", "job.started", "jobs.*", "webhook.test", "webhook.*", "*.finished", ""])
def test_what_never_happens_cannot_be_wanted(wanted):
    assert not names_a_kind(wanted)


def test_every_kind_that_the_code_records_is_known():
    root = Path(__file__).parents[3]
    sources = [
        path.read_text() for top in ("defectoscope", "api", "worker", "trainer") for path in (root / top).rglob("*.py")
    ]
    recorded = {
        kind
        for source in sources
        if "record_event" in source
        for kind in re.findall(r'\bkind=f?"([a-z_]+\.[a-z_{}.]+)"', source)
    }

    told = {kind for kind in recorded if "{" not in kind}
    made = {f"model.{action}" for action in LedgerAction} | {f"night.{state}" for state in NightState}

    assert recorded - told == {"model.{action.value}", "night.{state}"}
    assert told | made == set(KINDS)
