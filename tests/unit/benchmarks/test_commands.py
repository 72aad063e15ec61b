"""Every benchmark can be started: its module imports and its command line answers."""

from __future__ import annotations

import importlib

import pytest

MODULES = ("compare", "enumeration", "gpu", "latency", "memory", "scaling")


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_explains_its_command_line(module, capsys):
    parser = importlib.import_module(f"benchmarks.{module}").make_parser()

    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--help"])

    assert ended.value.code == 0
    assert f"python -m benchmarks.{module}" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["compare", "enumeration", "latency", "memory", "scaling"])
def test_a_benchmark_runs_without_arguments(module):
    parser = importlib.import_module(f"benchmarks.{module}").make_parser()

    arguments = parser.parse_args([])

    assert arguments.out is None
