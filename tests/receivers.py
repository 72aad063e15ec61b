"""Receivers of webhooks: real HTTP servers on loopback addresses that answer as they are told and keep what came."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

LOCAL_HOST = "127.0.0.1"
#: Made for these tests alone: an authority, and a certificate of it for `receiver.test` with its key.
AUTHORITY = Path(__file__).parent / "integration" / "webhooks" / "authority.pem"
CERTIFICATE = AUTHORITY.with_name("receiver.pem")


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What a receiver was sent, and what it answers: the statuses in turn, the last one for ever."""

    host: str
    port: int
    answers: list[int | tuple[int, dict[str, str]]] = field(default_factory=lambda: [204])
    requests: list[Request] = field(default_factory=list)
    #: While it is not set, a request gets no answer.
    may_answer: Event = field(default_factory=Event)

    def next_answer(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, tuple) else (answer, {})

    def url(self, path="/hook", *, host=None, scheme="http"):
        return f"{scheme}://{host or self.host}:{self.port}{path}"


@contextmanager
def receiving(host=LOCAL_HOST, port=0, *, tls=False):
    """Serve until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            receiver.may_answer.wait(30)
            status, headers = receiver.next_answer()
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        # A sender that hangs up is what some tests are about.
        def handle_error(self, *_):
            pass

    with Server((host, port), Handler) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        receiver = Receiver(host=host, port=server.server_address[1])
        receiver.may_answer.set()
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.may_answer.set()
            server.shutdown()
            thread.join()
