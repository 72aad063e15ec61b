"""Messages and how they are sent. The broker may be wiped at any moment; nothing is recorded here."""

from __future__ import annotations

from defectoscope.queue.celery import CeleryQueue, make_celery
from defectoscope.queue.contract import MemoryQueue, Queue, send_or_leave
from defectoscope.queue.messages import Message

__all__ = ["CeleryQueue", "MemoryQueue", "Message", "Queue", "make_celery", "send_or_leave"]
