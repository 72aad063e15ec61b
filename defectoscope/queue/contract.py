"""What a queue is to the use cases, and a queue in memory that keeps the same promise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import structlog

from defectoscope.errors import QueueUnavailable
from defectoscope.queue.messages import Message

log = structlog.get_logger(__name__)


class Queue(Protocol):
    """Somewhere to send messages."""

    def send(self, messages: Iterable[Message]) -> None:
        """Send every message, in order.

        Raises:
            QueueUnavailable: the broker does not answer.
        """


class MemoryQueue:
    """Keeps what was sent, for whoever wants to hand it on without a broker."""

    def __init__(self) -> None:
        """Start empty."""
        self.messages: list[Message] = []

    def send(self, messages: Iterable[Message]) -> None:
        """Append every message."""
        self.messages.extend(messages)


def send_or_leave(queue: Queue, messages: Iterable[Message]) -> None:
    """Send messages about work that is already recorded; when the broker is away, leave them to the reconciler."""
    try:
        queue.send(messages)
    except QueueUnavailable as exc:
        log.warning("queue.unavailable", reason=exc.message, consequence="the reconciler will send again")
