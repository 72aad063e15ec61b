"""Celery as this product uses it: one configuration for every process, and the sending side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.messaging import Producer
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from defectoscope.errors.installation import QueueUnavailable
from defectoscope.queue.messages import INSPECTION_QUEUE, Message

_T = TypeVar("_T")

_WHAT_A_MESSAGE_IS = {
    # Nobody but us writes them, and nothing in them can run anything.
    "accept_content": ["json"],
    "task_serializer": "json",
    # What came out is in the database.
    "task_ignore_result": True,
    "task_default_queue": INSPECTION_QUEUE,
    "enable_utc": True,
    "timezone": "UTC",
}
_WHAT_A_WORKER_TAKES = {
    # Acknowledged when the work is done, so that a killed worker's doorbell comes back by itself, sooner or later.
    "task_acks_late": True,
    # Never at once: a task that kills its worker would go round without a pause.
    "task_reject_on_worker_lost": False,
    # A doorbell that one worker keeps in its pocket is one that nobody else hears.
    "worker_prefetch_multiplier": 1,
    # Health checks ask a worker whether it lives.
    "worker_enable_remote_control": True,
    "worker_hijack_root_logger": False,
}
_WHEN_THE_BROKER_IS_AWAY = {
    "broker_connection_retry_on_startup": True,
    # For as long as it takes: the work is in the database, and a worker without a broker has nothing else to do.
    "broker_connection_max_retries": None,
    "broker_pool_acquire_timeout": 10,
}
_TRANSPORT = {
    # Far above any chunk's time, or a running task would be delivered again; what is lost is the reconciler's business.
    "visibility_timeout": 900,
    # Unacknowledged messages are looked through every ten seconds, each time: by default it is every hundred.
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    # A connection that is half open is noticed and not waited for.
    "health_check_interval": 10,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    # Alternate between queues so that housekeeping never waits behind chunks.
    "queue_order_strategy": "round_robin",
}


def make_celery(name: str, *, broker_url: str, key_prefix: str) -> Celery:
    """Return a Celery application with the settings that make a message a hint and nothing more.

    No result backend, JSON only, late acknowledgement, nothing fetched ahead. A message lost or doubled by the broker
    costs a delay or a claim that finds nothing; the database knows what is owed (docs/architecture.md). Every setting
    of the queue is here, but two that only the command line takes: workers start ``--without-mingle
    --without-gossip``, because they have nothing to tell each other.
    """
    app = Celery(name, broker=broker_url, set_as_current=False)
    app.conf.update(_WHAT_A_MESSAGE_IS, **_WHAT_A_WORKER_TAKES, **_WHEN_THE_BROKER_IS_AWAY)
    app.conf.broker_transport_options = {**_TRANSPORT, "global_keyprefix": key_prefix}
    return app


#: How a broker shows that it is away. kombu gives the errors of its client a name of its own where it connects and
#: where it sends; what is asked on a connection that has broken meanwhile ends in the client's own.
_AWAY = (OperationalError, OSError, RedisError)
#: How long to wait after each failed try, seconds: a connection that broke while nobody used it is made anew by the
#: next. The reconciler rings again in any case, and a request must not hang.
_PAUSES_S = (0.1, 0.4)


class CeleryQueue:
    """Sends messages through a Celery application."""

    def __init__(self, app: Celery) -> None:
        """Args: app: from `make_celery`; nothing connects until the first message."""
        self._app = app

    def send(self, messages: Iterable[Message]) -> None:
        """Send every message, in order, over one pooled connection.

        Raises:
            QueueUnavailable: the broker does not answer; the messages not sent are the reconciler's business.
        """
        with self._producer() as producer:
            for message in messages:
                self._send(message, producer)

    def top_up(self, message: Message, *, times: int, most: int) -> None:
        """Send a message several times, but no more often than brings what waits in its queue to ``most``.

        Two callers at the same moment may together send more: the bound is for the length of the queue, not for a sum.

        Raises:
            QueueUnavailable: the broker does not answer.
        """
        with self._producer() as producer:
            # Declaring a queue creates nothing in Redis; it is how kombu tells what waits there.
            declared = _patiently(
                lambda: producer.channel.queue_declare(message.queue, durable=True, auto_delete=False)
            )
            for _ in range(min(times, most - declared.message_count)):
                self._send(message, producer)

    def _send(self, message: Message, producer: Producer) -> None:
        _patiently(
            lambda: self._app.send_task(
                message.task,
                args=message.args,
                queue=message.queue,
                producer=producer,
                # kombu would try again by itself, and does so for the queue's declaration and the message apart: when
                # the first needs a new connection, the second is sent on the old one, which ends in AttributeError.
                retry=False,
            )
        )

    @contextmanager
    def _producer(self) -> Iterator[Producer]:
        try:
            with self._app.producer_or_acquire() as producer:
                # kombu connects when it must, and then for as long as it takes.
                producer.connection.ensure_connection(max_retries=2, interval_start=0.1, interval_step=0.3)
                yield producer
        except _AWAY as exc:
            raise QueueUnavailable(f"The message broker does not answer: {exc}") from exc

    def ping(self) -> None:
        """Raises: QueueUnavailable."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=3)
        except _AWAY as exc:
            raise QueueUnavailable(f"The message broker does not answer: {exc}") from exc


def _patiently(act: Callable[[], _T]) -> _T:
    """Try for about half a second, unless the broker keeps silent: that takes long enough once."""
    for pause_s in _PAUSES_S:
        try:
            return act()
        except (TimeoutError, RedisTimeout):
            raise
        except _AWAY:
            time.sleep(pause_s)
    return act()
