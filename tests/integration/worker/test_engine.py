from __future__ import annotations

import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defectoscope.errors.engine import EngineFailed, EngineOutOfMemory, ProviderUnavailable
from defectoscope.errors.models import InvalidModel
from tests.models import CONTRACT, write_dark_is_defect
from worker.device import CPU as CPU_PROVIDER
from worker.device import EngineOptions, check_device
from worker.engine import OnnxEngine
from worker.lane import Lane

CPU = EngineOptions(device="cpu", intra_op_threads=1)
#: Where there is a GPU, what must hold of an engine must hold on it too.
DEVICES = ["cpu"] if check_device("auto") == CPU_PROVIDER else ["cpu", "cuda"]


@pytest.fixture
def engine(tmp_path):
    return OnnxEngine(write_dark_is_defect(tmp_path / "model.onnx"), options=CPU)


@pytest.fixture(params=DEVICES)
def any_engine(request, tmp_path):
    path = write_dark_is_defect(tmp_path / "model.onnx")
    return OnnxEngine(path, options=replace(CPU, device=request.param))


def test_the_engine_runs_any_number_of_images_and_knows_its_contract(engine):
    images = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)

    probabilities, seconds = engine.run(list(images))

    assert np.array_equal(probabilities, 255 - images.max(axis=3))
    assert np.array_equal(engine(images[:1]), probabilities[:1])
    assert seconds > 0
    assert (engine.contract, engine.provider) == (CONTRACT, "CPUExecutionProvider")


@contextmanager
def little_memory(more_bytes):
    """Let this process take no more address space than so much beyond what it has."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_lack_of_memory_in_a_call_is_named_and_the_lane_goes_on(tmp_path):
    contract = replace(CONTRACT, input_size_wh=(4096, 4096))
    path = write_dark_is_defect(tmp_path / "large.onnx", contract)
    engine = OnnxEngine(path, options=replace(CPU, batch_size=1))
    image = np.full((4096, 4096, 3), 10, dtype=np.uint8)
    lane = Lane(on_lost=lambda _: None)

    with little_memory(2**25):
        failure = lane.submit(engine, image).exception(timeout=30)
    output = lane.submit(engine, image).result(timeout=60)
    lane.end()

    assert isinstance(failure, EngineOutOfMemory)
    assert output.probabilities[0, 0] == 245


def test_images_of_another_size_are_refused(engine):
    with pytest.raises(EngineFailed):
        engine(np.zeros((1, 128, 128, 3), dtype=np.uint8))
    with pytest.raises(EngineFailed):
        engine.run([np.zeros((128, 128, 3), dtype=np.uint8)])


def test_each_call_sees_its_own_images_and_leaves_earlier_outputs_alone(any_engine):
    # On a GPU, buffers that are bound once would show every call the images of the first.
    any_engine.warm()

    first = any_engine.run([np.full((256, 256, 3), level, dtype=np.uint8) for level in (10, 20)])[0]
    second = any_engine.run([np.full((256, 256, 3), level, dtype=np.uint8) for level in (30, 40)])[0]

    assert [int(output[0, 0]) for output in (*first, *second)] == [245, 235, 225, 215]


def test_on_the_cpu_everything_that_waits_goes_together(engine):
    assert [engine.fit(waiting) for waiting in (1, 3, 8, 50)] == [1, 3, 8, 8]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path, id="missing"),
        pytest.param(lambda path: (path.write_bytes(b"") and path) or path, id="empty"),
        pytest.param(lambda path: path.write_bytes(b"no model") and path, id="no-model"),
        pytest.param(lambda path: write_dark_is_defect(path, metadata={}), id="no-metadata"),
        pytest.param(lambda path: write_dark_is_defect(path, batch=1), id="fixed-batch"),
        pytest.param(
            lambda path: write_dark_is_defect(path, metadata=replace(CONTRACT, input_size_wh=(128, 256)).to_metadata()),
            id="metadata-of-another-size",
        ),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused(tmp_path, make):
    path = make(tmp_path / "model.onnx")

    with pytest.raises(InvalidModel):
        OnnxEngine(path, options=CPU)


def test_cuda_is_demanded_in_vain_on_a_machine_without_it(tmp_path):
    path = write_dark_is_defect(tmp_path / "model.onnx")

    with pytest.raises(ProviderUnavailable, match="DEFECTOSCOPE_WORKER__DEVICE"):
        OnnxEngine(path, options=EngineOptions(device="cuda"))


def test_the_cpu_is_always_usable():
    assert check_device("cpu") == "CPUExecutionProvider"
