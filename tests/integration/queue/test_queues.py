from __future__ import annotations

import json
import socket
import threading
import time

import pytest
import structlog
from kombu import Connection

from defectoscope.errors.installation import QueueUnavailable
from defectoscope.queue import CeleryQueue, MemoryQueue, make_celery, messages, ring_for_chunks, send_or_leave
from tests.faults.proxy import LOOPBACK, Disturbance, FaultProxy, Mode


class _Received:
    """What a consumer finds in the broker, read as any worker would: in order, through kombu."""

    def __init__(self, app):
        self._app = app

    def __call__(self, queue):
        found = []
        with self._app.connection_for_read() as connection:
            channel = connection.channel()
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                args, _, _ = json.loads(message.body)
                found.append(messages.Message(message.headers["task"], queue, tuple(args)))
            channel.close()
        return found


def _close(app):
    app.pool.force_close_all()
    app.close()


@pytest.fixture
def celery_app(connections, bucket):
    app = make_celery("test", broker_url=connections.queue_url, key_prefix=f"{bucket}:")
    yield app
    _close(app)


@pytest.fixture(params=["memory", "celery"])
def sent(request):
    """A queue, and how to read what was sent to one of its queues."""
    if request.param == "memory":
        queue = MemoryQueue()
        return queue, lambda name: [message for message in queue.messages if message.queue == name]
    app = request.getfixturevalue("celery_app")
    return CeleryQueue(app), _Received(app)


@pytest.fixture
def dead_broker():
    """The address of a broker that is away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{probe.getsockname()[1]}/0"


ALL = [
    messages.process_next_chunk(),
    messages.enumerate_job(1),
    messages.process_next_chunk(),
    messages.run_training(7),
    messages.process_next_chunk(),
]


def test_messages_arrive_in_order_in_their_queue_doubled_ones_too(sent):
    queue, receive = sent

    queue.send(ALL)

    assert receive(messages.INSPECTION_QUEUE) == [ALL[0], ALL[1], ALL[2], ALL[4]]
    assert receive(messages.TRAINING_QUEUE) == [ALL[3]]
    assert receive(messages.CONTROL_QUEUE) == []


def test_sending_nothing_sends_nothing(sent):
    queue, receive = sent

    queue.send([])

    assert receive(messages.INSPECTION_QUEUE) == []


def test_messages_may_come_from_a_generator(sent):
    queue, receive = sent

    queue.send(messages.enumerate_job(number) for number in range(3))

    assert [message.args for message in receive(messages.INSPECTION_QUEUE)] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("waiting", "times", "most", "sent_then"),
    [
        pytest.param(0, 3, 8, 3, id="as-many-as-wanted"),
        pytest.param(0, 60_000, 8, 8, id="never-more-than-may-wait"),
        pytest.param(5, 60_000, 8, 3, id="those-that-wait-count"),
        pytest.param(9, 5, 8, 0, id="too-many-wait-already"),
    ],
)
def test_a_queue_is_topped_up_to_a_bound(sent, waiting, times, most, sent_then):
    queue, receive = sent
    queue.send([messages.enumerate_job(number) for number in range(waiting)])

    queue.top_up(messages.process_next_chunk(), times=times, most=most)

    assert receive(messages.INSPECTION_QUEUE)[waiting:] == [messages.process_next_chunk()] * sent_then


def test_what_waits_in_another_queue_does_not_count(sent):
    queue, receive = sent
    queue.send([messages.run_training(number) for number in range(8)])

    queue.top_up(messages.process_next_chunk(), times=2, most=8)

    assert receive(messages.INSPECTION_QUEUE) == [messages.process_next_chunk()] * 2


def test_systems_with_different_prefixes_share_a_broker_unseen(connections, celery_app, bucket):
    other = make_celery("other", broker_url=connections.queue_url, key_prefix=f"{bucket}-other:")

    CeleryQueue(celery_app).send([messages.process_next_chunk()])

    assert _Received(other)(messages.INSPECTION_QUEUE) == []
    assert len(_Received(celery_app)(messages.INSPECTION_QUEUE)) == 1
    _close(other)


def test_a_message_is_json_and_has_no_place_for_a_result(connections, celery_app):
    CeleryQueue(celery_app).send([messages.enumerate_job(5)])

    with celery_app.connection_for_read() as connection:
        channel = connection.channel()
        message = channel.basic_get(messages.INSPECTION_QUEUE, no_ack=True)
        channel.close()
    assert message.content_type == "application/json"
    assert json.loads(message.body)[0] == [5]
    assert celery_app.conf.result_backend is None


def test_a_broker_that_answers_is_pinged_without_an_error(celery_app):
    CeleryQueue(celery_app).ping()


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda queue: queue.send([messages.enumerate_job(1)]), id="send"),
        pytest.param(lambda queue: queue.top_up(messages.process_next_chunk(), times=1, most=8), id="top-up"),
        pytest.param(lambda queue: queue.ping(), id="ping"),
    ],
)
def test_a_broker_that_is_away_is_told_soon(dead_broker, act):
    app = make_celery("test", broker_url=dead_broker, key_prefix="x:")
    queue = CeleryQueue(app)

    started = time.monotonic()
    with pytest.raises(QueueUnavailable):
        act(queue)

    assert time.monotonic() - started < 5
    _close(app)


def test_a_broker_that_wants_another_password_is_told(connections):
    url = Connection(connections.queue_url)
    app = make_celery("test", broker_url=f"redis://:wrong@{url.hostname}:{url.port}/0", key_prefix="x:")
    queue = CeleryQueue(app)

    with pytest.raises(QueueUnavailable):
        queue.send([messages.enumerate_job(1)])
    with pytest.raises(QueueUnavailable):
        queue.ping()

    _close(app)


def test_work_that_is_recorded_goes_on_without_the_broker(dead_broker):
    app = make_celery("test", broker_url=dead_broker, key_prefix="x:")

    with structlog.testing.capture_logs() as logs:
        send_or_leave(CeleryQueue(app), [messages.enumerate_job(1)])
        ring_for_chunks(CeleryQueue(app), chunks=1)

    assert [entry["event"] for entry in logs] == ["queue.unavailable"] * 2
    _close(app)


@pytest.fixture
def proxy(connections):
    with FaultProxy(Connection(connections.queue_url).port) as proxy:
        yield proxy


@pytest.fixture
def proxied_app(connections, bucket, proxy):
    """An application whose connections to the broker can be broken."""
    password = Connection(connections.queue_url).password
    app = make_celery(
        "test", broker_url=f"redis://:{password}@{LOOPBACK}:{proxy.port}/0", key_prefix=f"{bucket}-proxied:"
    )
    yield app
    _close(app)


@pytest.mark.parametrize(
    "disturbance",
    [
        pytest.param(Disturbance(mode=Mode.DOWN), id="the-broker-went-away"),
        pytest.param(Disturbance(mode=Mode.TRUNCATE), id="its-answer-was-cut-off"),
    ],
)
def test_a_connection_that_broke_while_it_was_not_used_is_a_broker_that_is_away(proxied_app, proxy, disturbance):
    queue = CeleryQueue(proxied_app)
    queue.top_up(messages.process_next_chunk(), times=1, most=8)
    proxy.disturb(disturbance)

    with pytest.raises(QueueUnavailable):
        queue.top_up(messages.process_next_chunk(), times=1, most=8)
    with pytest.raises(QueueUnavailable):
        queue.ping()
    proxy.clear()
    queue.top_up(messages.process_next_chunk(), times=1, most=8)

    assert len(_Received(proxied_app)(messages.INSPECTION_QUEUE)) == 2


@pytest.mark.parametrize("after_bytes", [0, 100])
def test_a_broker_that_is_back_within_half_a_second_has_not_been_away(proxied_app, proxy, after_bytes):
    queue = CeleryQueue(proxied_app)
    queue.send([messages.process_next_chunk()])
    proxy.disturb(Disturbance(mode=Mode.TRUNCATE, after_bytes=after_bytes))

    back = threading.Timer(0.15, proxy.clear)
    back.start()
    # The first message to a queue declares it, which is what fails and is tried again.
    queue.send([messages.run_training(7), messages.run_training(8)])
    back.join()

    assert [message.args for message in _Received(proxied_app)(messages.TRAINING_QUEUE)] == [(7,), (8,)]
