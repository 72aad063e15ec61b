"""A server that fails as it is told to: the network's part in a test of the client, never the API's."""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from defectoscope.client import transport


@dataclass(frozen=True)
class Answer:
    """What is sent back once. ``body`` may be bytes or anything that JSON can say."""

    status: int = 200
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)


#: Instead of an answer: the connection is reset.
RESET = "reset"


def refuse(status, code, message, details=None):
    """An error as our API says it."""
    return Answer(status, {"error": {"code": code, "message": message, "details": details or {}, "request_id": "r-1"}})


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class ScriptedServer(ThreadingHTTPServer):
    """Gives its answers in order, the last one again and again, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.seen = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Say nothing: a client that goes away in the middle is what some tests are about."""

    def next_answer(self, seen):
        with self.lock:
            self.seen.append(seen)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.next_answer(Seen(self.command, self.path, headers, body))
        if answer == RESET:
            # With a linger time of nothing, closing sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _handle  # noqa: N815 -- the names that http.server looks for

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Start servers, each with its answers; all are stopped afterwards."""
    running = []

    def start(*answers):
        server = ScriptedServer(answers)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def closed_port():
    """The address of a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def attempts():
    """How often a request that may be repeated is sent in all."""
    return 1 + len(transport.RETRY_PAUSES_S)
