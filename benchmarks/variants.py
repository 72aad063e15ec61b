"""`python -m benchmarks.variants`: int8 as it is served against fp32 as a notebook runs it, at the same batch.

The int8 file goes through the worker's engine, the network through PyTorch without a compiler, on the same threads and
the same images; they take turns, so that a noisy machine disturbs both. fp32 in ONNX Runtime takes its turn, too: it
says how much of the gain is the runtime's. Speed does not depend on the weights, but IoU does: it is measured where the
network is a trained one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.output import add_out_option, write_figures
from benchmarks.place import scratch_directory
from benchmarks.processes import machine_facts
from defectoscope.errors.models import InvalidModel
from defectoscope.samples import generate_samples
from defectoscope.segmentation import Engine, UInt8Array, per_image_mean, pooled, to_model_input
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import LabelledFile, LabelledFiles, read_directory
from trainer.evaluate import evaluate
from trainer.export import export_onnx
from trainer.interruption import Interruption
from trainer.local import train_directory
from trainer.network import build_network
from trainer.quantise import calibration_batches, write_int8
from trainer.runtime import onnx_engine, read_contract
from trainer.served import torch_engine
from worker.device import EngineOptions, available_threads
from worker.engine import OnnxEngine

BATCH_SIZE = 8
#: What int8 is for: at least this many times the images a second of fp32 in PyTorch.
GOAL = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network at 256 x 256; one that is trained also says what int8 costs in IoU."""

    name: str
    encoder: str
    is_trained: bool


CASES = (
    Case(name="MobileNetV2", encoder="mobilenet_v2", is_trained=True),
    Case(name="ResNet101", encoder="resnet101", is_trained=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IouLoss:
    """IoU of the defect class on drawn validation images, and the masks of both files against each other."""

    images: int
    fp32_mean: float
    int8_mean: float
    fp32_pooled: float
    int8_pooled: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Seconds for a batch in each repeat, in order; the n-th of each list belong together."""

    case: str
    batch_size: int
    torch_s: list[float]
    onnx_fp32_s: list[float]
    int8_s: list[float]
    iou: IouLoss | None

    @property
    def ratio(self) -> float:
        """How many times the images a second int8 does, against fp32 in PyTorch: the median over the repeats."""
        return statistics.median(slow / fast for slow, fast in zip(self.torch_s, self.int8_s, strict=True))


def measure(
    case: Case, *, files: LabelledFiles, samples: Path, scratch: Path, repeats: int, model: Path | None = None
) -> Measurement:
    """Run a case.

    Args:
        case: what.
        files: drawn samples; the training side calibrates, the validation side is timed and scored.
        samples: the directory that they are in.
        scratch: an existing directory.
        repeats: how often the three take turns.
        model: a trained fp32 file of the case's encoder; one is trained for two minutes where the case needs one.

    Raises:
        InvalidModel: the model is of another encoder or size.
    """
    config = TrainingConfig.resolve({"preset": "quick", "encoder": case.encoder})
    # Before training, which draws numbers: the same network in every run.
    torch.manual_seed(config.seed)
    network = build_network(config).network.eval()
    if case.is_trained:
        fp32_path = model or _train(samples, config=config, out=scratch / case.encoder)
    else:
        fp32_path = scratch / f"{case.encoder}.onnx"
        export_onnx(network, contract=contract_of(config, dataset_revision=None), path=fp32_path)
    contract = read_contract(fp32_path)
    if (contract.encoder, contract.input_size_wh) != (config.encoder, config.input_size_wh):
        raise InvalidModel(f"{fp32_path.name} is no {case.name} of 256 x 256; the two would not be comparable.")
    int8_path = scratch / f"{case.encoder}-int8.onnx"
    write_int8(fp32_path, int8_path, batches=calibration_batches(files.train, contract=contract))

    torch.set_num_threads(available_threads())
    options = EngineOptions(device="cpu")
    engines: list[Engine] = [
        torch_engine(network),
        OnnxEngine(fp32_path, options=options),
        OnnxEngine(int8_path, options=options),
    ]
    batch = np.stack([to_model_input(file.decode()[0], contract=contract) for file in files.val[:BATCH_SIZE]])
    seconds: list[list[float]] = [[] for _ in engines]
    for repeat in range(repeats + 1):
        for engine, taken in zip(engines, seconds, strict=True):
            elapsed = _time(engine, batch)
            if repeat:  # The first turn warms.
                taken.append(elapsed)
    return Measurement(
        case=case.name,
        batch_size=len(batch),
        torch_s=seconds[0],
        onnx_fp32_s=seconds[1],
        int8_s=seconds[2],
        iou=_iou_loss(files.val, fp32_path=fp32_path, int8_path=int8_path) if case.is_trained else None,
    )


def _train(samples: Path, *, config: TrainingConfig, out: Path) -> Path:
    train_directory(samples, out=out, config=config, device="cpu", interruption=Interruption())
    return out / "model.onnx"


def _time(engine: Engine, batch: UInt8Array) -> float:
    started = perf_counter()
    engine(batch)
    return perf_counter() - started


def _iou_loss(files: Sequence[LabelledFile], *, fp32_path: Path, int8_path: Path) -> IouLoss:
    """Score both files. The fp32 file stands for the network: its parity check has shown that they are one."""
    contract = read_contract(fp32_path)
    fp32, int8 = (
        [score.counts for score in evaluate(files, engine=onnx_engine(path), contract=contract)]
        for path in (fp32_path, int8_path)
    )
    return IouLoss(
        images=len(files),
        fp32_mean=per_image_mean(fp32, lambda count: count.iou_defect) or 0.0,
        int8_mean=per_image_mean(int8, lambda count: count.iou_defect) or 0.0,
        fp32_pooled=pooled(fp32).iou_defect,
        int8_pooled=pooled(int8).iou_defect,
    )


def show(measured: Sequence[Measurement], *, print_line: Callable[[Any], None]) -> None:
    """Print the table: images a second, the ratio, and what int8 costs in IoU."""
    table = Table(title=f"int8 as served against fp32 in PyTorch, batch of {BATCH_SIZE} (goal: {GOAL:.1f} times)")
    for column in ("network", "PyTorch img/s", "ONNX fp32 img/s", "ONNX int8 img/s", "ratio", "IoU fp32", "IoU int8"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for one in measured:
        speeds = (one.batch_size / statistics.median(taken) for taken in (one.torch_s, one.onnx_fp32_s, one.int8_s))
        table.add_row(
            one.case,
            *(f"{speed:.1f}" for speed in speeds),
            f"{one.ratio:.2f}",
            *((f"{one.iou.fp32_mean:.4f}", f"{one.iou.int8_mean:.4f}") if one.iou else ("untrained", "untrained")),
        )
    print_line(table)


def main() -> None:
    """Measure every case, print the table, write the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats, of which the median counts")
    parser.add_argument("--samples", type=int, default=100, help="drawn samples; a fifth of them is for validation")
    parser.add_argument(
        "--model", type=Path, help="a trained fp32 file of MobileNetV2, instead of two minutes' training"
    )
    add_out_option(parser)
    arguments = parser.parse_args()

    with scratch_directory() as scratch:
        samples = scratch / "samples"
        generate_samples(samples, count=arguments.samples, seed=0)
        files = read_directory(samples)
        measured = [
            measure(
                case,
                files=files,
                samples=samples,
                scratch=scratch,
                repeats=arguments.repeats,
                model=arguments.model,
            )
            for case in CASES
        ]
    console = Console(width=120)
    show(measured, print_line=console.print)
    facts = machine_facts("onnxruntime-gpu", "torch")
    console.print(facts)
    write_figures(arguments.out, machine=facts, cases=[{**asdict(one), "ratio": one.ratio} for one in measured])


if __name__ == "__main__":
    main()
