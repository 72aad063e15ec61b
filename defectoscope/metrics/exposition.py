"""The small HTTP server, one a process, from which Prometheus reads: `/metrics`, and nothing else.

It is no part of the API: it has a port of its own, so that access to figures and access to images stay two things, and
so that a worker, which has no API, shows its figures in the same way.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, make_wsgi_app
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

PATH = "/metrics"
#: How many ports are tried, from the one that is asked for.
PORTS = 10
_SILENCE_S = 10.0


class Exposition:
    """A server that runs until it is closed."""

    def __init__(self, server: WSGIServer, *, host: str) -> None:
        """Serve from a thread of its own; `serve_metrics` makes the server."""
        self._server = server
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}{PATH}"
        self._thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server; a second call does nothing."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve_metrics(collectors: Sequence[Collector], *, host: str, port: int) -> Exposition | None:
    """Serve figures, and those of the process itself (memory, CPU, open files), until the exposition is closed.

    Args:
        collectors: what is served.
        host: address to listen on.
        port: the first port that is tried; when it is in use, the next nine are. 0 serves nothing.

    Returns:
        The server, whose ``url`` says where it listens; or None when it is switched off or no port can be had, which
        is logged and stops nobody's work.
    """
    if port == 0:
        return None
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    try:
        server = _listen(host, range(port, port + PORTS))
    except OSError as exc:
        log.warning(
            "metrics.not_served",
            host=host,
            ports=f"{port} to {port + PORTS - 1}",
            reason=exc.strerror or str(exc),
            consequence="the work goes on, its figures cannot be read",
        )
        return None
    server.set_app(_only_at_path(make_wsgi_app(registry)))
    exposition = Exposition(server, host=host)
    log.info("metrics.served", url=exposition.url)
    return exposition


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # Two processes on one port would share its requests by chance.
    allow_reuse_port = False

    def server_bind(self) -> None:
        # Not the one above it: that asks a name server who we are, which may take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()


class _ServerOfIpv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    # A connection on which nothing comes is closed.
    timeout = _SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the library's own name
        """Say nothing: it is read every few seconds."""


def _listen(host: str, ports: Iterable[int]) -> WSGIServer:
    """Return a server on the first port that is free.

    Raises:
        OSError: there is none, or the host is not of this machine.
    """
    kind = _ServerOfIpv6 if ":" in host else _Server
    for port in ports:
        try:
            return kind((host, port), _Handler)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            in_use = exc
    raise in_use


def _only_at_path(app: Any) -> Any:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == PATH:
            return app(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"The figures are at {PATH}.\n".encode()]

    return answer
