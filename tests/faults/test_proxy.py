from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.faults.proxy import LOOPBACK, Disturbance, FaultProxy, Mode


class _Echo:
    """A server that gives back what it hears."""

    def __init__(self):
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        conversations = []
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            conversations.append(threading.Thread(target=self._talk, args=(connection,)))
            conversations[-1].start()
        for conversation in conversations:
            conversation.join()

    def _talk(self, connection):
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                pass

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def proxy():
    echo = _Echo()
    with FaultProxy(echo.port) as proxy:
        yield proxy
    echo.close()


@pytest.fixture
def call(proxy):
    """Open a connection through the proxy."""
    opened = []

    def connect():
        opened.append(socket.create_connection((LOOPBACK, proxy.port), timeout=5))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def _says_back(connection, text=b"hello"):
    connection.sendall(text)
    return connection.recv(100) == text


def test_everything_passes_when_nothing_is_disturbed(call):
    connection = call()

    assert _says_back(connection)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""


def test_latency_makes_both_ways_late(proxy, call):
    connection = call()
    proxy.disturb(Disturbance(mode=Mode.LATENCY, latency_s=0.2))
    began_at = time.monotonic()

    assert _says_back(connection)

    assert 0.4 <= time.monotonic() - began_at < 4


def test_a_server_that_is_down_refuses_and_what_was_connected_is_reset(proxy, call):
    connection = call()
    assert _says_back(connection)

    proxy.disturb(Disturbance(mode=Mode.DOWN))

    with pytest.raises(ConnectionError):
        _says_back(connection)
    with pytest.raises(ConnectionRefusedError):
        call()
    proxy.clear()
    assert _says_back(call())


def test_a_reset_ends_what_is_connected_and_nothing_else(proxy, call):
    connection = call()
    assert _says_back(connection)

    proxy.disturb(Disturbance(mode=Mode.RESET))

    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert _says_back(call())


def test_what_falls_into_a_black_hole_arrives_when_it_closes(proxy, call):
    connection = call()
    assert _says_back(connection)
    connection.settimeout(0.3)
    proxy.disturb(Disturbance(mode=Mode.BLACK_HOLE))

    with pytest.raises(TimeoutError):
        _says_back(connection, b"late")
    proxy.clear()
    connection.settimeout(5)

    assert connection.recv(100) == b"late"


def test_a_half_open_connection_stays_silent_for_ever_and_a_new_one_is_fine(proxy, call):
    connection = call()
    assert _says_back(connection)
    connection.settimeout(0.3)

    proxy.disturb(Disturbance(mode=Mode.HALF_OPEN))
    proxy.clear()

    with pytest.raises(TimeoutError):
        _says_back(connection)
    assert _says_back(call())


def test_a_truncated_answer_ends_in_the_middle(proxy, call):
    connection = call()
    proxy.disturb(Disturbance(mode=Mode.TRUNCATE, after_bytes=7))
    connection.sendall(b"0123456789")

    received = b""
    while piece := connection.recv(100):
        received += piece

    assert received == b"0123456"


def test_errors_answer_every_request_with_a_status_of_500(proxy, call):
    proxy.disturb(Disturbance(mode=Mode.ERRORS))
    connection = call()
    connection.sendall(b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")

    answer = b""
    while piece := connection.recv(4096):
        answer += piece
    connection.close()

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b"</Error>")
