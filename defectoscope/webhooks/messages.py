"""What is sent: an event as a body and the headers that sign it. The same event gives the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from defectoscope.webhooks.signature import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFacts:
    """An event as it is told; the fields are those of its row."""

    id: int
    kind: str
    severity: str
    subject: str
    message: str
    details: dict[str, Any]
    created_at: datetime

    @property
    def message_id(self) -> str:
        """What receivers know it by: the same for every attempt and every webhook."""
        return message_id_of(self.id)


def message_id_of(event_id: int) -> str:
    """Return what an event is called in deliveries."""
    return f"evt_{event_id}"


def body_of(event: EventFacts) -> bytes:
    """Return the body of a delivery, JSON in UTF-8."""
    body = {
        "id": event.message_id,
        "type": event.kind,
        "timestamp": event.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": {
            "severity": event.severity,
            "subject": event.subject,
            "message": event.message,
            "details": event.details,
        },
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode(errors="replace")


def headers_of(event: EventFacts, *, secrets: Sequence[str], timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers by which a receiver knows who sent a body, and when.

    Args:
        event: that the body is about.
        secrets: of the webhook; each gives a signature, and the receiver needs one that fits.
        timestamp: of this attempt, seconds since 1970.
        body: as it is sent.
    """
    return {
        ID_HEADER: event.message_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(
            sign(secret, message_id=event.message_id, timestamp=timestamp, body=body) for secret in secrets
        ),
    }
