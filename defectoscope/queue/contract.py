"""What a queue is to the use cases, and a queue in memory that keeps the same promise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import structlog

from defectoscope.errors.installation import QueueUnavailable
from defectoscope.queue.messages import Message, process_next_chunk

#: Doorbells for chunks that wait at once. Each claim passes one on, so that a few keep any number of workers busy, and
#: an enumeration behind them waits for no more than as many chunks.
WAITING_DOORBELLS = 8

log = structlog.get_logger(__name__)


class Queue(Protocol):
    """Somewhere to send messages."""

    def send(self, messages: Iterable[Message]) -> None:
        """Send every message, in order.

        Raises:
            QueueUnavailable: the broker does not answer.
        """

    def top_up(self, message: Message, *, times: int, most: int) -> None:
        """Send a message several times, but no more often than brings what waits in its queue to ``most``.

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

    def top_up(self, message: Message, *, times: int, most: int) -> None:
        """Append a message as often as wanted and allowed; every message kept counts as waiting."""
        waiting = sum(kept.queue == message.queue for kept in self.messages)
        self.messages += [message] * min(times, most - waiting)


def send_or_leave(queue: Queue, messages: Iterable[Message]) -> None:
    """Send messages about work that is already recorded; when the broker is away, leave them to the reconciler."""
    try:
        queue.send(messages)
    except QueueUnavailable as exc:
        log.warning("queue.unavailable", reason=exc.message, consequence="the reconciler will send again")


def ring_for_chunks(queue: Queue, *, chunks: int, most: int = WAITING_DOORBELLS) -> None:
    """Have workers look for chunks that are recorded already; when the broker is away, leave it to the reconciler.

    Doorbells that wait are enough, however many chunks there are: whoever answers one looks for work after this commit
    and passes it on. So the queue stays short, a million images or ten.

    Args:
        queue: where to ring.
        chunks: how many chunks there are to find.
        most: how many doorbells may wait in all.
    """
    if chunks == 0:
        return
    try:
        queue.top_up(process_next_chunk(), times=chunks, most=most)
    except QueueUnavailable as exc:
        log.warning("queue.unavailable", reason=exc.message, consequence="the reconciler will ring")
