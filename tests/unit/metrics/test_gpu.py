"""Memory of GPUs, with a program in place of the driver's that answers in its format."""

from __future__ import annotations

import os
import shutil

import pytest

from defectoscope.metrics import GpuMemory


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put an ``nvidia-smi`` first on the path that does what a script says, and forget which GPUs are visible."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def answer(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return answer


def figures(collector):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in collector.collect()
        for sample in metric.samples
    }


def test_every_gpu_has_its_memory(driver):
    driver("echo '0, NVIDIA H200, 1024, 143771'; echo '1, NVIDIA H200, 0, 143771'")

    found = figures(GpuMemory())

    assert found == {
        ("defectoscope_gpu_memory_used_bytes", "0", "NVIDIA H200"): 2**30,
        ("defectoscope_gpu_memory_used_bytes", "1", "NVIDIA H200"): 0,
        ("defectoscope_gpu_memory_total_bytes", "0", "NVIDIA H200"): 143771 * 2**20,
        ("defectoscope_gpu_memory_total_bytes", "1", "NVIDIA H200"): 143771 * 2**20,
    }


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exit 9", id="no driver behind the program"),
        pytest.param("echo '0, NVIDIA H200, [N/A], [N/A]'", id="a divided GPU"),
        pytest.param("echo nonsense", id="another program"),
    ],
)
def test_without_an_answer_the_figure_is_missing_and_not_zero(driver, script):
    driver(script)

    assert figures(GpuMemory()) == {}


def test_without_the_program_the_figure_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert shutil.which("nvidia-smi") is None
    assert figures(GpuMemory()) == {}


@pytest.mark.parametrize(
    ("visible", "asked"),
    [
        pytest.param(
            None, ["--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader,nounits"], id="all"
        ),
        pytest.param(
            "1,2",
            ["--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader,nounits", "--id=1,2"],
            id="two of them",
        ),
        pytest.param("", None, id="none"),
    ],
)
def test_only_the_gpus_that_the_process_may_use_are_asked_for(driver, tmp_path, monkeypatch, visible, asked):
    driver(f'printf "%s\\n" "$@" > {tmp_path}/asked')
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    figures(GpuMemory())

    written = tmp_path / "asked"
    assert (written.read_text().splitlines() if written.exists() else None) == asked


def test_the_driver_is_asked_once_for_many_scrapes(driver, tmp_path):
    driver(f"echo x >> {tmp_path}/asked; echo '0, NVIDIA H200, 1, 2'")
    collector = GpuMemory(keep_s=60)

    answers = [figures(collector) for _ in range(3)]

    assert answers[0] == answers[1] == answers[2]
    assert (tmp_path / "asked").read_text() == "x\n"
