"""Variants: each held against the network; one that fails is left out with its reason, unless it is fp32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from defectoscope.errors.training import ExportParityFailed, TrainingInterrupted
from tests.images import encode
from tests.unit.trainer.graphs import overflow, turn_last_kernels, write_changed
from trainer.data import read_directory
from trainer.evaluate import evaluate
from trainer.runtime import onnx_engine, read_contract
from trainer.served import torch_engine
from trainer.variants import build_variants, restamp


def _build(training, work_dir, *, path=None, train_files=None, **options):
    path = path or training.model_path
    return build_variants(
        path,
        network_engine=torch_engine(training.network),
        contract=training.contract,
        train_files=training.files.train if train_files is None else train_files,
        val_files=training.files.val,
        fp32_scores=evaluate(training.files.val, engine=onnx_engine(path), contract=training.contract),
        work_dir=work_dir,
        **options,
    )


@pytest.fixture(scope="module")
def stages():
    return []


@pytest.fixture(scope="module")
def variants(tiny_training, tmp_path_factory, stages):
    return _build(tiny_training, tmp_path_factory.mktemp("variants"), stage=stages.append)


def test_there_are_three_in_a_fixed_order_and_each_stage_is_told(variants, stages):
    assert [variant.precision for variant in variants] == ["fp32", "fp16", "int8"]
    assert stages == ["parity", "fp16", "int8"]


@pytest.mark.parametrize(
    ("place", "min_mask_iou"), [pytest.param(0, 0.999, id="fp32"), pytest.param(1, 0.995, id="fp16")]
)
def test_a_trained_network_is_published_in_fp32_and_fp16(variants, place, min_mask_iou):
    variant = variants[place]

    assert variant.reason is None
    assert variant.path.is_file()
    assert variant.parity["mask_iou"] >= min_mask_iou
    assert variant.parity["flipped_verdicts"] == 0
    assert variant.parity["images"] == 8


def test_a_trained_network_is_published_in_int8_with_what_it_loses_on_the_labels(variants):
    int8 = variants[2]

    assert int8.reason is None
    assert int8.path.is_file()
    assert int8.parity["mask_iou"] > 0.9
    assert int8.parity["validation_images"] == 8
    assert int8.parity["validation_iou_fp32"] - int8.parity["validation_iou"] <= 0.005
    assert int8.parity["validation_flipped_verdicts"] == 0


def test_every_published_file_takes_the_number_of_the_version(tiny_training, variants):
    numbered = replace(tiny_training.contract, version=7)

    stamped = [restamp(variant, numbered) for variant in variants]

    for before, after in zip(variants, stamped, strict=True):
        assert (after.path is None) == (before.path is None)
        if after.path is not None:
            assert after.path.name == f"v7-{before.precision}.onnx"
            assert read_contract(after.path) == numbered
            assert read_contract(before.path) == tiny_training.contract


def test_a_broken_fp32_file_fails_the_run(tiny_training, tmp_path):
    path = write_changed(tiny_training.model_path, tmp_path / "model.onnx", turn_last_kernels)

    with pytest.raises(ExportParityFailed, match="The fp32 model differs from the trained one"):
        _build(tiny_training, tmp_path, path=path)


def test_a_network_that_overflows_in_fp16_is_served_in_fp32_and_says_why(tiny_training, tmp_path):
    path = write_changed(tiny_training.model_path, tmp_path / "model.onnx", overflow)

    fp32, fp16, _ = _build(tiny_training, tmp_path, path=path)

    assert fp32.path == path
    assert fp16.path is None
    assert "not a number" in fp16.reason
    assert not (tmp_path / "model-fp16.onnx").exists()


def test_int8_calibrated_on_the_wrong_images_is_refused_with_its_figures(tiny_training, tmp_path):
    for kind, shape in (("images", (64, 64, 3)), ("labels", (64, 64))):
        for split in ("train", "val"):
            path = tmp_path / "black" / kind / split / "black.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(encode(np.zeros(shape, dtype=np.uint8), "PNG"))

    *_, int8 = _build(tiny_training, tmp_path, train_files=read_directory(tmp_path / "black").train)

    assert int8.path is None
    assert int8.reason.startswith("The int8 model is worse than the fp32 one: validation IoU ")
    assert int8.parity["validation_iou"] < int8.parity["validation_iou_fp32"] - 0.005
    assert list(tmp_path.glob("*int8*")) == []


def test_a_stop_is_heard_between_the_parts_and_is_no_refusal(tiny_training, tmp_path):
    begun = []

    def stop_in_fp16():
        if "fp16" in begun:
            raise TrainingInterrupted

    with pytest.raises(TrainingInterrupted):
        _build(tiny_training, tmp_path, stage=begun.append, check=stop_in_fp16)

    assert begun == ["parity", "fp16"]
