"""Models to measure with: a network from a random start, one trained for minutes, one that costs nothing to run."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from defectoscope.database import Database
from defectoscope.registry import VariantFile, find_version, promote_first, publish
from defectoscope.samples import draw_sample, generate_samples
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, ModelContract, lay_out
from defectoscope.storage import Storage
from trainer.build import build_model, contract_of
from trainer.config import TrainingConfig
from trainer.data import read_directory
from trainer.export import export_onnx, stamp
from trainer.network import Normalise, build_network
from trainer.plan import BEST_NAME
from trainer.quantise import calibration_batches, write_int8
from trainer.runtime import read_contract
from trainer.weights import copy_weights, save_weights
from worker.device import has_vnni

#: Drawn images that a model is trained on or int8 is calibrated on; those that are inspected are of another seed.
_SAMPLES = 100
_SAMPLE_SEED = 0
_INT8_NAME = "bench-int8.onnx"

#: Share of the pixels that a network from a random start is made to call defect: that of the drawn samples.
DEFECT_SHARE = 0.03
#: Standard deviation of its logits, so that most pixels are clear cases.
_LOGIT_SPREAD = 4.0
_SPREAD_SAMPLES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """One network as files.

    Attributes:
        contract: of both ONNX files, without a number.
        fp32: the file as it was exported.
        int8: the same, quantised; None where it was not asked for.
        weights: the network for PyTorch, as safetensors; None where there is no network.
    """

    contract: ModelContract
    fp32: Path
    int8: Path | None = None
    weights: Path | None = None


def random_model(encoder: str, *, directory: Path) -> ModelFiles:
    """Do as `random_network`, and quantise it on drawn samples.

    Args:
        encoder: of the network.
        directory: does not exist yet; the files go there.
    """
    model = random_network(encoder, directory=directory)
    samples = directory / "samples"
    generate_samples(samples, count=_SAMPLES, seed=_SAMPLE_SEED)
    return replace(model, int8=_quantised(model.fp32, contract=model.contract, samples=samples))


def random_network(encoder: str, *, directory: Path) -> ModelFiles:
    """Export a DeepLabV3+ at 256 x 256 from a random start, the same in every run: its speed is that of a trained one.

    Args:
        encoder: of the network.
        directory: does not exist yet; the files go there.
    """
    directory.mkdir(parents=True)
    config = TrainingConfig.resolve({"preset": "quick", "encoder": encoder, "encoder_weights": None})
    torch.manual_seed(config.seed)
    network = build_network(config).network.eval()
    contract = contract_of(config, dataset_revision=None)
    _spread(network, contract=contract)
    fp32, weights = directory / "model.onnx", directory / "weights.safetensors"
    export_onnx(network, contract=contract, path=fp32)
    save_weights(copy_weights(network), weights, config=config)
    return ModelFiles(contract=contract, fp32=fp32, weights=weights)


def trained_model(encoder: str, *, directory: Path, time_budget_s: float) -> ModelFiles:
    """Train a DeepLabV3+ at 256 x 256 on drawn samples, so that its masks look like masks.

    Args:
        encoder: of the network.
        directory: does not exist yet; the files go there.
        time_budget_s: for the epochs; export, checks and scores come on top.
    """
    directory.mkdir(parents=True)
    samples = directory / "samples"
    generate_samples(samples, count=_SAMPLES, seed=_SAMPLE_SEED)
    config = TrainingConfig.resolve({"preset": "quick", "encoder": encoder, "time_budget_s": time_budget_s})
    built = build_model(
        read_directory(samples),
        config=config,
        dataset_revision=None,
        device="cpu",
        work_dir=directory,
        observer=_Nobody(),
    )
    fp32 = built.variants[0].path
    if fp32 is None:
        raise RuntimeError("The training left no fp32 file.")
    # Made here again: the trainer keeps back a file that loses too much, and what is measured first of all is speed.
    int8 = _quantised(fp32, contract=built.contract, samples=samples)
    return ModelFiles(contract=built.contract, fp32=fp32, int8=int8, weights=built.weights_path)


def model_to_measure(encoder: str, *, kept_in: Path, training_s: float) -> ModelFiles:
    """Return the model that an earlier benchmark trained, or train one and keep it: all benchmarks measure the same.

    Args:
        encoder: of the network.
        kept_in: a directory of this name below it holds the files.
        training_s: for the epochs.
    """
    directory = kept_in / encoder
    return _kept_model(directory) or trained_model(encoder, directory=directory, time_budget_s=training_s)


def enough_images(images: int) -> int:
    """Return how many images of a ResNet101 make a turn, out of those that make one where int8 is fast.

    Without VNNI each takes five times as long: half as many are a turn of more than twice the time.
    """
    return images if has_vnni() else images // 2


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Let the command line say where trained networks are kept, and for how long one is trained where none is."""
    parser.add_argument(
        "--models", type=Path, default=Path(".benchmark-models"), help="where trained networks are kept between runs"
    )
    parser.add_argument("--training-s", type=float, default=300, help="for the epochs of a network that is not there")


def _kept_model(directory: Path) -> ModelFiles | None:
    fp32, int8 = directory / "model.onnx", directory / _INT8_NAME
    if not int8.exists():
        return None
    return ModelFiles(contract=read_contract(fp32), fp32=fp32, int8=int8, weights=directory / BEST_NAME)


def costless_model(path: Path) -> ModelFiles:
    """Write a model of the contract that hardly computes: a pixel's defect probability is 255 minus its red value.

    At its threshold it calls 3 % of the pixels of drawn pictures defect, as many as are.
    """
    contract = ModelContract(
        input_size_wh=(256, 256),
        resize_policy="stretch",
        threshold=0.7,
        min_area_px=16,
        class_names=("background", "defect"),
        architecture="none",
        encoder="none",
        dataset_revision=None,
        version=None,
    )
    width, height = contract.input_size_wh
    graph = helper.make_graph(
        [
            helper.make_node("Gather", [INPUT_NAME, "red"], ["of_red"], axis=3),
            helper.make_node("Cast", ["of_red"], ["value"], to=TensorProto.FLOAT16),
            helper.make_node("Sub", ["white", "value"], ["darkness"]),
            helper.make_node("Cast", ["darkness"], [OUTPUT_NAME], to=TensorProto.UINT8),
        ],
        "costless",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["batch", height, width])],
        [
            numpy_helper.from_array(np.array(0, dtype=np.int64), "red"),
            numpy_helper.from_array(np.array(255, dtype=np.float16), "white"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    stamp(path, contract)
    return ModelFiles(contract=contract, fp32=path)


def put_in_service(model: ModelFiles, *, database: Database, storage: Storage) -> int:
    """Publish every file of a model as one version and promote it.

    Returns:
        The row id of the version.
    """
    files = {"fp32": model.fp32, "int8": model.int8}

    def build(numbered: ModelContract) -> list[VariantFile]:
        present = {precision: path for precision, path in files.items() if path is not None}
        for path in present.values():
            stamp(path, numbered)
        return [VariantFile(precision=precision, path=path, parity={}) for precision, path in present.items()]

    number = publish(
        database=database,
        storage=storage,
        contract=replace(model.contract, version=None),
        build=build,
        training_run_id=None,
        dataset_revision_id=None,
    )
    promote_first(database=database, number=number, actor="bench")
    with database.transaction() as session:
        return find_version(session, number).id


def _spread(network: torch.nn.Module, *, contract: ModelContract) -> None:
    """Scale the last layer so that a few pixels are clearly defect, where a random start leaves all at one half.

    What comes after the model costs what its masks cost: they are to have as many defect pixels as drawn ones, in
    regions with borders.
    """
    drawn = [draw_sample(seed=_SAMPLE_SEED, number=number).pixels for number in range(_SPREAD_SAMPLES)]
    inputs = np.stack([lay_out(pixels.shape[:2], contract=contract).model_input(pixels, 0) for pixels in drawn])
    head = next(layer for layer in reversed(list(network.modules())) if isinstance(layer, torch.nn.Conv2d))
    if head.bias is None:
        raise RuntimeError("The last layer has no bias.")
    with torch.inference_mode():
        logits = network(Normalise()(torch.from_numpy(inputs).permute(0, 3, 1, 2)))
        difference = logits[:, 1] - logits[:, 0]
        scale = _LOGIT_SPREAD / difference.std()
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale)
        # The quantile of numpy, since that of torch takes no more than 16 million values.
        head.bias[1] -= float(np.quantile(difference.numpy(), 1 - DEFECT_SHARE)) * scale


def _quantised(fp32: Path, *, contract: ModelContract, samples: Path) -> Path:
    int8 = fp32.with_name(_INT8_NAME)
    write_int8(fp32, int8, batches=calibration_batches(read_directory(samples).train, contract=contract))
    stamp(int8, contract)
    return int8


class _Nobody:
    """Follows a training without a word."""

    def stage(self, name: str) -> None:
        """Hear it."""

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Hear it."""

    def found(self, figures: dict[str, Any]) -> None:
        """Hear it."""

    def check(self) -> None:
        """Never end it."""
