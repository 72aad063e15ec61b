"""What is deleted, and what keeps it from being."""

from __future__ import annotations

from defectoscope.errors import Conflict, NotFound


class DeletedByRetention(NotFound):
    """It was deleted under a rule of retention; what was found in it stays on record."""


class HoldNotFound(NotFound):
    """There is no such hold."""


class RetentionRuleNotFound(NotFound):
    """There is no such rule of retention."""


class CollectionRunning(Conflict):
    """Another process is deleting unused objects; it goes on by itself."""
