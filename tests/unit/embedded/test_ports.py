from __future__ import annotations

import json
import socket
import stat

import pytest

from defectoscope.embedded.ports import choose_ports, is_free


def test_each_name_gets_a_port_of_its_own(tmp_path):
    names = [f"server-{number}" for number in range(20)]

    chosen = choose_ports(tmp_path / "ports.json", names)

    assert list(chosen) == names
    assert len(set(chosen.values())) == 20
    assert all(1024 <= port <= 65535 for port in chosen.values())


def test_ports_stay_the_same_while_they_are_free(tmp_path):
    first = choose_ports(tmp_path / "ports.json", ["one", "two"])

    second = choose_ports(tmp_path / "ports.json", ["one", "two"])

    assert second == first


def test_only_the_port_that_was_taken_changes(tmp_path):
    first = choose_ports(tmp_path / "ports.json", ["one", "two"])

    with socket.create_server(("127.0.0.1", first["one"])):
        second = choose_ports(tmp_path / "ports.json", ["one", "two"])

    assert second["one"] != first["one"]
    assert second["two"] == first["two"]
    assert json.loads((tmp_path / "ports.json").read_text()) == second


def test_a_port_with_an_offset_has_a_free_second_port_above_it(tmp_path):
    first = choose_ports(tmp_path / "ports.json", ["pair"], offsets={"pair": 10_000})["pair"]

    with socket.create_server(("127.0.0.1", first + 10_000)):
        second = choose_ports(tmp_path / "ports.json", ["pair"], offsets={"pair": 10_000})["pair"]

    assert first + 10_000 <= 65535
    assert second != first
    assert is_free(second + 10_000)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param('{"one": 50', id="torn"),
        pytest.param("[1, 2]", id="not a mapping"),
        pytest.param('{"one": "http"}', id="not a number"),
        pytest.param('{"one": 70000}', id="beyond the last port"),
        pytest.param('{"one": 0}', id="zero"),
    ],
)
def test_a_damaged_memory_costs_new_ports_only(tmp_path, content):
    (tmp_path / "ports.json").write_text(content)

    chosen = choose_ports(tmp_path / "ports.json", ["one"])

    assert 1024 <= chosen["one"] <= 65535
    assert json.loads((tmp_path / "ports.json").read_text()) == chosen


def test_a_port_on_which_somebody_listens_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        taken = is_free(port)

    assert taken is False
    assert is_free(port) is True


def test_the_memory_is_readable_by_its_owner_only(tmp_path):
    choose_ports(tmp_path / "ports.json", ["one"])

    assert stat.S_IMODE((tmp_path / "ports.json").stat().st_mode) == 0o600
