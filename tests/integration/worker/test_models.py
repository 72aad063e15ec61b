from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from defectoscope.errors.models import ModelVariantUnavailable
from defectoscope.registry import VariantFile, promote, publish
from tests.models import CONTRACT, write_dark_is_defect
from worker.__main__ import _served
from worker.device import EngineOptions
from worker.lane import Lane
from worker.models import LoadedModels


@pytest.fixture
def lane():
    lane = Lane(on_lost=lambda _: None)
    yield lane
    lane.end()


@pytest.fixture
def load(database, storage, lane, tmp_path):
    """Publish a version with some files and load it as a worker with a setting would."""

    def make(*precisions, variant="auto"):
        def build(numbered):
            fp32 = write_dark_is_defect(tmp_path / "fp32.onnx", numbered)
            return [
                VariantFile(
                    precision=precision,
                    path=fp32 if precision == "fp32" else shutil.copy(fp32, tmp_path / f"{precision}.onnx"),
                    parity={},
                )
                for precision in precisions
            ]

        number = publish(
            database=database,
            storage=storage,
            contract=CONTRACT,
            build=build,
            training_run_id=None,
            dataset_revision_id=None,
        )
        models = LoadedModels(
            database=database,
            storage=storage,
            directory=tmp_path / "cache",
            options=EngineOptions(device="cpu", intra_op_threads=1, batch_size=2),
            lane=lane,
            variant=variant,
        )
        return models, number

    return make


def test_every_file_that_may_be_served_is_measured_and_the_fastest_taken(load):
    models, number = load("fp32", "fp16", "int8")

    model = models.get(number)

    assert set(model.timings_ms) == {"int8", "fp32"}
    assert model.timings_ms[model.variant] == min(model.timings_ms.values())
    assert all(time_ms > 0 for time_ms in model.timings_ms.values())


def test_the_next_version_of_the_same_network_is_not_measured_again(load):
    models, first = load("fp32", "int8")
    fastest = models.get(first).variant
    _, second = load("fp32", "int8")

    model = models.get(second)

    assert model.variant == fastest
    assert model.timings_ms == {}


@pytest.mark.parametrize(("variant", "expected"), [("int8", "int8"), ("fp32", "fp32"), ("fp16", "fp32")])
def test_a_setting_decides_and_fp32_stands_in(load, variant, expected):
    models, number = load("fp32", "int8", variant=variant)

    model = models.get(number)

    assert (model.variant, model.timings_ms) == (expected, {})


def test_a_version_without_a_file_is_named(load):
    models, number = load("fp16")

    with pytest.raises(ModelVariantUnavailable, match="has no fp32 file"):
        models.get(number)


def test_a_model_is_loaded_once_whoever_asks(load):
    models, number = load("fp32")

    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(models.get, [number] * 8))

    assert len({id(model) for model in loaded}) == 1


def test_doctor_says_what_is_served_and_how_fast(settings, load, database):
    _, number = load("fp32", "int8")
    promote(database=database, number=number, actor="test", reason="to be served", figures={})

    said = _served(settings)

    assert re.fullmatch(
        rf"(fp32|int8) of model {number}, 8 images at once; milliseconds an image: int8 [\d.]+, fp32 [\d.]+", said
    )


def test_doctor_says_why_nothing_is_served(settings, database):
    assert _served(settings).startswith("unknown: ")
