"""Servers of their own for tests that kill them."""

from __future__ import annotations

import pytest

from tests.faults.servers import running_servers


@pytest.fixture(scope="module")
def servers(make_data_dir):
    """The three servers behind proxies, started for one module: to be broken."""
    directory = make_data_dir()
    directory.chmod(0o711)
    with running_servers(directory / "servers") as servers:
        yield servers


@pytest.fixture
def scratch(make_data_dir):
    return make_data_dir()
