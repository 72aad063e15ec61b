"""A receiver of webhooks beside a run, and whether it was told what it must be told: a claim of its own.

Nothing here shares code with what signs and sends.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from defectoscope.database import Database
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.webhooks.endpoints import register_webhook
from tests.receivers import LOCAL_HOST, Receiver, Request

#: What the receiver answers, again and again: now and then it is in trouble itself.
ANSWERS = [204, 204, 503, 204, 500, 204, 204, 204]
_TOLD_WITHIN_S = 90.0
_FACTS = ("state", "images", "defects", "defective_images")

_ENDED = text("""
    SELECT id, state, pending_images, failed_images, succeeded_images, cancelled_images, defects, defective_images
    FROM jobs WHERE finished_at IS NOT NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What came of telling.

    Attributes:
        ended: jobs that ended.
        told: of them, those that the receiver was told of.
        requests: that it was sent.
        repeated: of them, those with an id that had come before.
        flaws: whatever must not be, with how often it is.
    """

    ended: int
    told: int
    requests: int
    repeated: int
    flaws: Mapping[str, int]


def settings_for(receiver: Receiver) -> dict[str, object]:
    """Return settings under which a receiver on this machine is told, soon and again."""
    return {
        "ports": str(receiver.port),
        "http_hosts": LOCAL_HOST,
        "private_hosts": LOCAL_HOST,
        "interval_s": 0.5,
        "timeout_s": 3,
        "retry_first_s": 0.5,
        "retry_longest_s": 2,
    }


def register(database: Database, receiver: Receiver) -> str:
    """Have a receiver told of jobs that end; return the secret."""
    with database.transaction() as session:
        return register_webhook(session, url=receiver.url(), kinds=["job.finished"]).secret


def read_ended(database: Database, *, within_s: float = _TOLD_WITHIN_S) -> dict[int, dict[str, Any]]:
    """Wait until nothing is owed to the receiver, and return what the rows say of every job that ended."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            with database.transaction() as session:
                owed = session.scalar(text("SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'"))
                rows = session.execute(_ENDED).all()
        except DatabaseUnavailable:
            owed, rows = None, []
        # What is still owed by then the judge will miss.
        if owed == 0 or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return {
        row.id: {
            "state": row.state,
            "images": {
                "pending": row.pending_images,
                "succeeded": row.succeeded_images,
                "failed": row.failed_images,
                "cancelled": row.cancelled_images,
            },
            "defects": row.defects,
            "defective_images": row.defective_images,
        }
        for row in rows
    }


def judge_telling(ended: Mapping[int, Mapping[str, Any]], requests: Sequence[Request], *, secret: str) -> Telling:
    """Hold what a receiver was sent against the jobs that ended.

    Args:
        ended: job id to its state, images by state, defects and defective images.
        requests: everything that came.
        secret: of the webhook.
    """
    unsigned = sum(not _is_signed(request, secret) for request in requests)
    bodies: dict[str, set[bytes]] = {}
    ids_of: dict[int, set[str]] = {}
    wrong = 0
    for request in requests:
        bodies.setdefault(request.headers["webhook-id"], set()).add(request.body)
        event = json.loads(request.body)
        details = event["data"]["details"]
        ids_of.setdefault(details["job"], set()).add(event["id"])
        told = {name: details[name] for name in _FACTS}
        wrong += event["id"] != request.headers["webhook-id"] or event["type"] != "job.finished"
        wrong += details["job"] in ended and told != ended[details["job"]]
    flaws = {
        "jobs that ended and were not told of": len(ended.keys() - ids_of.keys()),
        "told of jobs that did not end": len(ids_of.keys() - ended.keys()),
        "jobs told of as two events": sum(len(ids) > 1 for ids in ids_of.values()),
        "ids with two bodies": sum(len(found) > 1 for found in bodies.values()),
        "signatures that are wrong": unsigned,
        "told otherwise than it is": wrong,
    }
    return Telling(
        ended=len(ended),
        told=len(ended.keys() & ids_of.keys()),
        requests=len(requests),
        repeated=len(requests) - len(bodies),
        flaws={name: count for name, count in flaws.items() if count},
    )


def tell_telling(telling: Telling) -> str:
    return (
        f"webhook: {telling.ended} jobs ended, told of {telling.told} in {telling.requests} requests, "
        f"{telling.repeated} of them again under an id that had come; flaws {dict(telling.flaws) or 'none'}"
    )


def _is_signed(request: Request, secret: str) -> bool:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(request.headers["webhook-signature"], f"v1,{signature}")
