"""The calls about events: what happened that somebody may want to be told of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from defectoscope.client.pages import each
from defectoscope.client.transport import Transport
from defectoscope.client.wire import Event


@dataclass(frozen=True, slots=True)
class EventCalls:
    """Events: look."""

    transport: Transport

    def list(self, *, kind: str | None = None, limit: int | None = None) -> Iterator[Event]:
        """Yield events, newest first; of one kind, such as ``model.promoted``, when it is named."""
        return each(self.transport, "/v1/events", kind=kind, limit=limit)
