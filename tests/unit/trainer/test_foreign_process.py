"""The process that checks foreign files: same report, same refusals, and an end of its own that is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper

from defectoscope.errors.models import InvalidModel, ModelCheckCrashed, ModelCheckTimeout, ModelOperatorRefused
from tests.unit.trainer.foreign_models import (
    ask_served,
    draw_scenes,
    float_constant,
    int_constant,
    make_foreign,
    save,
)
from trainer.foreign import FileLimits, ForeignFacts, ProcessLimits, wrap_foreign, wrap_in_process

FACTS = ForeignFacts(architecture="DeepLabV3Plus", encoder="resnet101", size_wh=(40, 24))
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def foreign(tmp_path):
    return save(make_foreign(), tmp_path / "foreign.onnx")


def custom():
    return make_foreign(
        then=[helper.make_node("Magic", ["logits"], ["output"], domain="acme")], output="output", domains=["acme"]
    )


def test_a_process_reports_what_a_call_reports(foreign, tmp_path):
    here = wrap_foreign(foreign, out=tmp_path / "here.onnx", facts=FACTS)

    there = wrap_in_process(foreign, out=tmp_path / "there.onnx", facts=FACTS)

    scenes = draw_scenes(2)
    assert there.path == tmp_path / "there.onnx"
    assert {**there.to_json(), "path": None} == {**here.to_json(), "path": None}
    assert (ask_served(here.path, scenes) == ask_served(there.path, scenes)).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign.onnx", "here.onnx", "there.onnx"]


def test_a_refusal_crosses_the_process_with_its_class_and_details(tmp_path):
    path = save(custom(), tmp_path / "foreign.onnx")

    with pytest.raises(ModelOperatorRefused, match=r"acme\.Magic") as refusal:
        wrap_in_process(path, out=tmp_path / "served.onnx", facts=FACTS)

    assert refusal.value.details == {"operator": "acme.Magic"}
    assert [path.name for path in tmp_path.iterdir()] == ["foreign.onnx"]


def test_the_limits_of_the_file_reach_the_process(foreign, tmp_path):
    with pytest.raises(Exception, match="at most 10 are accepted"):
        wrap_in_process(foreign, out=tmp_path / "served.onnx", facts=FACTS, limits=FileLimits(max_bytes=10))


def test_a_check_that_takes_too_long_is_ended(foreign, tmp_path):
    with pytest.raises(ModelCheckTimeout):
        wrap_in_process(
            foreign, out=tmp_path / "served.onnx", facts=FACTS, process_limits=ProcessLimits(timeout_s=0.01)
        )

    assert [path.name for path in tmp_path.iterdir()] == ["foreign.onnx"]


def test_a_check_that_gets_no_memory_is_named(foreign, tmp_path):
    with pytest.raises(ModelCheckCrashed):
        wrap_in_process(
            foreign, out=tmp_path / "served.onnx", facts=FACTS, process_limits=ProcessLimits(max_memory_bytes=2**20)
        )

    assert [path.name for path in tmp_path.iterdir()] == ["foreign.onnx"]


def vast(count, *, side):
    """So many values of ``side`` squared, all of them needed at the end; folded when the model is loaded."""
    names = [f"vast_{number}" for number in range(count)]
    return make_foreign(
        then=[
            *(helper.make_node("ConstantOfShape", ["side"], [name]) for name in names),
            *(helper.make_node("Add", [name, "one"], [f"{name}_and_one"]) for name in names),
            helper.make_node("Sum", [f"{name}_and_one" for name in names], ["sum"]),
            helper.make_node("ReduceMax", ["sum"], ["largest"], keepdims=0),
            helper.make_node("Add", ["logits", "largest"], ["output"]),
        ],
        more_constants=[int_constant("side", [side, side]), float_constant("one", 1.0)],
        output="output",
    )


def test_a_model_that_takes_all_memory_is_named(tmp_path):
    path = save(vast(8, side=16_000), tmp_path / "foreign.onnx")

    with pytest.raises(InvalidModel) as refusal:
        wrap_in_process(
            path,
            out=tmp_path / "served.onnx",
            facts=FACTS,
            process_limits=ProcessLimits(max_memory_bytes=4 * 2**30),
        )

    assert refusal.value.code in {"model_too_large", "model_check_crashed"}


def test_a_model_that_computes_for_minutes_is_ended(tmp_path):
    products = [helper.make_node("MatMul", ["big", "big"], ["product_0"])]
    products += [helper.make_node("MatMul", [f"product_{at}", "big"], [f"product_{at + 1}"]) for at in range(200)]
    model = make_foreign(
        then=[
            helper.make_node("ConstantOfShape", ["side"], ["big"]),
            *products,
            helper.make_node("ReduceMax", ["product_200"], ["largest"], keepdims=0),
            helper.make_node("Add", ["logits", "largest"], ["output"]),
        ],
        more_constants=[int_constant("side", [4096, 4096])],
        output="output",
    )
    path = save(model, tmp_path / "foreign.onnx")

    with pytest.raises(ModelCheckTimeout):
        wrap_in_process(path, out=tmp_path / "served.onnx", facts=FACTS, process_limits=ProcessLimits(timeout_s=10))


def run_trainer(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_wrap_a_file_and_give_it_back(foreign, tmp_path):
    wrapped = run_trainer("wrap", foreign, tmp_path / "served.onnx", "--architecture", "Unet", "--json")
    plain = run_trainer("plain", tmp_path / "served.onnx", tmp_path)

    assert wrapped.returncode == plain.returncode == 0
    assert json.loads(wrapped.stdout)["contract"]["defectoscope.architecture"] == "Unet"
    assert json.loads(plain.stdout)["path"] == str(tmp_path / "deeplabv3_plus_model.onnx")
    assert (tmp_path / "deeplabv3_plus_model.onnx").is_file()


def test_the_command_refuses_in_words_and_in_json(tmp_path):
    path = save(custom(), tmp_path / "foreign.onnx")

    refused = run_trainer("wrap", path, tmp_path / "served.onnx", "--json")

    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == "model_operator_refused"
    assert refused.stderr.startswith("error: The model uses the operator acme.Magic")
    assert not (tmp_path / "served.onnx").exists()
