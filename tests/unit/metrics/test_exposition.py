"""The server of figures, over its real port."""

from __future__ import annotations

import http.client
import socket
from contextlib import ExitStack, closing
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from defectoscope.metrics import serve_metrics
from defectoscope.metrics.exposition import PORTS

HOST = "127.0.0.1"


@pytest.fixture
def counted():
    """A registry with one counter that stands at 3."""
    registry = CollectorRegistry()
    Counter("seen_total", "What was seen.", registry=registry).inc(3)
    return registry


@pytest.fixture
def port():
    """A port with nine free ones above it, as far as one can know."""
    for _ in range(50):
        with ExitStack() as taken:
            probe = taken.enter_context(socket.socket())
            probe.bind((HOST, 0))
            first = probe.getsockname()[1]
            try:
                for number in range(first + 1, first + PORTS):
                    taken.enter_context(socket.socket()).bind((HOST, number))
            except (OSError, OverflowError):
                continue
        return first
    raise AssertionError("no ten free ports in a row")


def scrape(url):
    with urlopen(url, timeout=5) as answer:  # noqa: S310 -- our own address
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def test_figures_are_read_over_http(counted, port):
    with closing(serve_metrics([counted], host=HOST, port=port)) as exposition:
        families = scrape(exposition.url)

    assert exposition.url == f"http://{HOST}:{port}/metrics"
    assert [sample.value for sample in families["seen"].samples] == [3.0]
    assert families["process_resident_memory_bytes"].samples[0].value > 2**20


def test_nothing_but_figures_is_served(counted, port):
    with closing(serve_metrics([counted], host=HOST, port=port)) as exposition, pytest.raises(HTTPError) as refused:
        urlopen(exposition.url.replace("/metrics", "/"), timeout=5)  # noqa: S310 -- our own address

    with refused.value as answer:
        assert answer.code == 404
        assert b"/metrics" in answer.read()


def test_several_processes_find_a_port_each(counted, port):
    with (
        closing(serve_metrics([counted], host=HOST, port=port)) as first,
        closing(serve_metrics([], host=HOST, port=port)) as second,
    ):
        answers = [scrape(exposition.url).keys() for exposition in (first, second)]

    assert [first.url, second.url] == [f"http://{HOST}:{number}/metrics" for number in (port, port + 1)]
    assert ["seen" in answer for answer in answers] == [True, False]


def test_without_a_free_port_the_work_goes_on_with_a_warning(counted, port):
    with ExitStack() as taken, structlog.testing.capture_logs() as logs:
        for number in range(port, port + PORTS):
            holder = taken.enter_context(socket.socket())
            holder.bind((HOST, number))
            holder.listen()

        exposition = serve_metrics([counted], host=HOST, port=port)

    assert exposition is None
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("metrics.not_served", "warning")
    assert line["ports"] == f"{port} to {port + PORTS - 1}"
    assert "in use" in line["reason"]


def test_an_address_of_another_machine_is_a_warning_too(counted, port):
    with structlog.testing.capture_logs() as logs:
        exposition = serve_metrics([counted], host="192.0.2.1", port=port)

    assert exposition is None
    assert [line["event"] for line in logs] == ["metrics.not_served"]


def test_port_0_serves_nothing(counted):
    assert serve_metrics([counted], host=HOST, port=0) is None


def test_the_port_is_free_again_afterwards(counted, port):
    for _ in range(2):
        with closing(serve_metrics([counted], host=HOST, port=port)) as exposition:
            assert exposition.url.endswith(f":{port}/metrics")

    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(HOST, port, timeout=5).connect()
