"""Sends what is owed to webhooks, from threads of the API's own, for as long as the API runs.

Why here: every installation has an API, also while no worker lives, and an event that no worker lives is one that
somebody wants to be told of. A receiver that takes its time keeps one of these threads waiting, and no thread that
inspects, trains or answers requests. What is owed, whose turn it is and who holds it stands in the database, so that
any number of API processes do this side by side, and one that is killed leaves nothing behind but a lease.
"""

from __future__ import annotations

import os
import socket
import time
from threading import Condition, Thread

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api import metrics
from defectoscope.database import Database
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.settings import WebhookSettings
from defectoscope.webhooks.delivering import deliver_next
from defectoscope.webhooks.outbox import RetryPolicy, tidy_deliveries
from defectoscope.webhooks.sending import Sender

log = structlog.get_logger(__name__)

#: Beside the attempt itself, for a name that resolves slowly, seconds. A lease that runs out meanwhile sends twice.
_LEASE_BEYOND_ATTEMPT_S = 60.0
_TIDY_INTERVAL_S = 60.0
#: How long an attempt under way may take to end when the API does, seconds; after that its lease runs out.
_GRACE_S = 3.0


class Courier:
    """The threads that send. Nothing is looked for before the first interval is over or somebody wakes them."""

    def __init__(self, settings: WebhookSettings, *, database: Database, sender: Sender, retry: RetryPolicy) -> None:
        """Args: settings: how many threads, how often they look; database: the outbox; sender, retry: for attempts."""
        self._settings = settings
        self._database = database
        self._sender = sender
        self._retry = retry
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._changed = Condition()
        self._ending = False
        self._tidied_at = time.monotonic()
        self._threads = [
            Thread(target=self._work, name=f"webhooks-{number}", daemon=True) for number in range(settings.threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Have what is owed looked for now; without this it is at the next interval."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Begin no further attempt, and give those under way a moment."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        ends_at = time.monotonic() + _GRACE_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, ends_at - time.monotonic()))

    def _work(self) -> None:
        while self._wait():
            try:
                self._tidy()
                while not self._ending and self._deliver():
                    pass
            except (DatabaseUnavailable, SQLAlchemyError) as exc:
                # What was sent and not recorded is sent again when its lease has run out.
                log.warning("webhooks.postponed", reason=getattr(exc, "message", type(exc).__name__))

    def _wait(self) -> bool:
        with self._changed:
            if not self._ending:
                self._changed.wait(self._settings.interval_s)
            return not self._ending

    def _deliver(self) -> bool:
        outcome = deliver_next(
            database=self._database,
            sender=self._sender,
            retry=self._retry,
            owner=self._owner,
            lease_s=self._settings.timeout_s + _LEASE_BEYOND_ATTEMPT_S,
        )
        if outcome is None:
            return False
        metrics.webhook_attempts_total.labels(outcome.value).inc()
        return True

    def _tidy(self) -> None:
        with self._changed:
            is_due = time.monotonic() - self._tidied_at >= _TIDY_INTERVAL_S
            if is_due:
                self._tidied_at = time.monotonic()
        if is_due:
            tidy_deliveries(
                database=self._database,
                max_attempts=self._retry.max_attempts,
                keep_days=self._settings.keep_days,
                dead_keep_days=self._settings.dead_keep_days,
            )
