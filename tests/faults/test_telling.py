"""The judge of webhooks sees what it is there for."""

from __future__ import annotations

import dataclasses
import json

import pytest

from defectoscope.webhooks.signature import new_secret, sign
from tests.faults.telling import judge_telling
from tests.receivers import Request

SECRET = new_secret()
JOB = {
    "state": "partial",
    "images": {"pending": 0, "succeeded": 3, "failed": 1, "cancelled": 0},
    "defects": 5,
    "defective_images": 2,
}
ENDED = {1: JOB, 2: JOB}


def _request(job, *, event=None, timestamp=1_700_000_000, **changes):
    event = event or f"evt_{job}"
    details = {"job": job, "name": None, "error_code": None} | JOB | changes
    body = json.dumps({"id": event, "type": "job.finished", "data": {"details": details}}).encode()
    headers = {
        "webhook-id": event,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(SECRET, message_id=event, timestamp=timestamp, body=body),
    }
    return Request("/hook", headers, body)


def _forged(request):
    return dataclasses.replace(request, body=request.body.replace(b'"defects": 5', b'"defects": 5 '))


def test_every_job_told_once_or_more_is_in_order():
    requests = [_request(1), _request(2), _request(1, timestamp=1_700_000_009)]

    telling = judge_telling(ENDED, requests, secret=SECRET)

    assert (telling.ended, telling.told, telling.requests, telling.repeated) == (2, 2, 3, 1)
    assert telling.flaws == {}


@pytest.mark.parametrize(
    ("requests", "flaw"),
    [
        pytest.param([_request(1)], "jobs that ended and were not told of", id="missing"),
        pytest.param([_request(1), _request(2), _request(3)], "told of jobs that did not end", id="invented"),
        pytest.param([_request(1), _request(2), _request(2, event="evt_9")], "jobs told of as two events", id="twice"),
        pytest.param([_request(1), _request(2), _request(2, name="x")], "ids with two bodies", id="changed"),
        pytest.param([_request(1), _forged(_request(2))], "signatures that are wrong", id="signature"),
        pytest.param([_request(1), _request(2, defects=6)], "told otherwise than it is", id="figures"),
        pytest.param([_request(1), _request(2, state="failed")], "told otherwise than it is", id="state"),
    ],
)
def test_each_flaw_is_named(requests, flaw):
    assert flaw in judge_telling(ENDED, requests, secret=SECRET).flaws
