"""Webhooks over the real database and real receivers."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from defectoscope.webhooks.addresses import AddressRules
from defectoscope.webhooks.sending import Sender
from tests.integration.webhooks.scene import Outbox
from tests.receivers import AUTHORITY, receiving


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def make_sender(receiver):
    """Make a sender that may send to one loopback address, and nowhere else that is not public."""

    def make(*, resolver=lambda _host, _port: ["127.0.0.1"], timeout_s=5.0, ports=(), networks=("127.0.0.1/32",)):
        rules = AddressRules(
            ports=frozenset({receiver.port, *ports}),
            http_hosts=frozenset({"receiver.test", "127.0.0.1"}),
            private_networks=tuple(ip_network(network) for network in networks),
        )
        return Sender(rules=rules, timeout_s=timeout_s, ca_file=AUTHORITY, resolver=resolver)

    return make


@pytest.fixture
def outbox(database, make_sender):
    return Outbox(database, make_sender())
