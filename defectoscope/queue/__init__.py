"""Messages and how they are sent. The broker may be wiped at any moment; nothing is recorded here."""

from __future__ import annotations

from defectoscope.queue.celery import CeleryQueue, make_celery
from defectoscope.queue.contract import WAITING_DOORBELLS, MemoryQueue, Queue, ring_for_chunks, send_or_leave
from defectoscope.queue.messages import Message

__all__ = [
    "WAITING_DOORBELLS",
    "CeleryQueue",
    "MemoryQueue",
    "Message",
    "Queue",
    "make_celery",
    "ring_for_chunks",
    "send_or_leave",
]
