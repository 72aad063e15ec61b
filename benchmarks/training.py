"""Training as the trainer does it, against a plain fp32 loop with the mission's recipe, epoch by epoch in turn.

`python -m benchmarks.training`. The plain loop is what a notebook has: a data set that decodes a JPEG and a PNG and
resizes both each time it is asked, no reading processes, fp32, the usual memory layout, `torch.optim.Adam`, `item()`
after each step. The trainer's side is `trainer.fit.fit` itself with the default recipe. Both begin with the same
weights, see batches of 8 at 256 x 256 and use the same threads of one process; they take turns by epochs, so that a
noisy machine disturbs both. Only training steps count, with their data; validation does not.

Where the time of a step goes, with torch's profiler on two cores with bf16 instructions: convolutions take 70 to 75 %
(backward passes 55 %), batch normalisation 8 to 12 %, Adam 1 to 3 %, bilinear enlarging 2 to 4 %. What was predicted of
each measure, and what a step of 8 images then took, others being at work on the machine (s, MobileNetV2 / ResNet101):

==================================  ===============================================  ===========
measure                             prediction                                       outcome
==================================  ===============================================  ===========
plain fp32                                                                           3.7 / 10.3
channels last                       a third less: oneDNN need not reorder            2.5 / 5.3
bf16                                half: twice the multiplications an instruction   1.7 / 5.2
both                                more than either                                 1.7 / 3.8
both and fused Adam                 1 % and 5 % less: 4 and 45 million parameters    1.7 / 1.7
==================================  ===============================================  ===========

The last figure of ResNet101 is more than Adam can explain; the machine was busier in the rows above it. Depthwise
convolutions are what holds MobileNetV2 back: the backward passes of nine of them are a third of its step. In this
benchmark, in a short run beside other work, the trainer was 1.96 times faster with MobileNetV2 and 2.17 times with
ResNet101. `torch.compile` is not used: compiling takes longer than the quick recipe trains.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.output import add_out_option, write_figures
from benchmarks.place import scratch_directory
from benchmarks.processes import machine_facts
from defectoscope.samples import draw_sample
from trainer.arrays import load_samples
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import read_directory
from trainer.fit import fit
from trainer.hardware import available_cores, choose_device
from trainer.network import create_network

ENCODERS = ("mobilenet_v2", "resnet101")

_VAL_IMAGES = 2
_JPEG_QUALITY = 92
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMeasurement:
    """Images a second in each epoch, in order; the n-th of each list belong together.

    Attributes:
        encoder: of DeepLabV3+.
        plain: the notebook's loop.
        ours: the trainer.
    """

    encoder: str
    plain: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Return how many times faster the trainer is: the median over the pairs."""
        return statistics.median(ours / plain for ours, plain in zip(self.ours, self.plain, strict=True))


def measure_training(encoder: str, *, images: int, repeats: int, scratch: Path) -> TrainingMeasurement:
    """Train both ways in turn.

    Args:
        encoder: of DeepLabV3+.
        images: in an epoch; at least 8.
        repeats: epochs that count; one before them warms up.
        scratch: a directory that does not exist yet.
    """
    directory = scratch / "files"
    _draw_files(directory, images=images)
    config = TrainingConfig(encoder=encoder, encoder_weights=None, epochs=repeats + 1)
    torch.set_num_threads(available_cores())
    torch.manual_seed(config.seed)
    network = create_network(config)
    device = choose_device("auto")
    plain = _PlainLoop(copy.deepcopy(network), directory, batch_size=config.batch_size, device=device)
    train, val = load_samples(
        read_directory(directory), contract=contract_of(config, dataset_revision=None), augmentation=config.augmentation
    )
    measured = TrainingMeasurement(encoder=encoder)

    def take_turns(epoch: int, figures: dict[str, float]) -> None:
        images_per_s = plain.run_epoch()
        if epoch > 1:
            measured.ours.append(figures["images_per_s"])
            measured.plain.append(images_per_s)

    fit(
        network,
        train=train,
        val=val,
        config=config,
        device=device,
        work_dir=scratch,
        on_epoch=take_turns,
        check=lambda: None,
    )
    return measured


class _DecodedEachTime(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A data set as notebooks have it."""

    def __init__(self, directory: Path, *, size_wh: tuple[int, int]) -> None:
        self._images = sorted((directory / "images" / "train").iterdir())
        self._labels = sorted((directory / "labels" / "train").iterdir())
        self._size_wh = size_wh

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.open(self._images[index]).convert("RGB").resize(self._size_wh, Image.Resampling.BILINEAR)
        label = Image.open(self._labels[index]).convert("L").resize(self._size_wh, Image.Resampling.NEAREST)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - _MEAN) / _STD, torch.from_numpy((np.array(label) > 0).astype(np.int64))


class _PlainLoop:
    """The mission's recipe in fp32, without any of the trainer's code."""

    def __init__(self, network: nn.Module, directory: Path, *, batch_size: int, device: torch.device) -> None:
        self._network = network.to(device)
        self._device = device
        self._optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
        self._loader = DataLoader(_DecodedEachTime(directory, size_wh=(256, 256)), batch_size=batch_size, shuffle=True)

    def run_epoch(self) -> float:
        """Train an epoch; return its images a second."""
        # Called from inside the trainer's validation, which records nothing for backward passes.
        with torch.inference_mode(mode=False), torch.enable_grad():
            began_at = perf_counter()
            images, total_loss = 0, 0.0
            self._network.train()
            for inputs, target in self._loader:
                self._optimiser.zero_grad()
                logits = self._network(inputs.to(self._device))
                loss = nn.functional.cross_entropy(logits, target.to(self._device))
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimiser.step()
                total_loss += loss.item()
                images += len(inputs)
            return images / (perf_counter() - began_at)


def _draw_files(directory: Path, *, images: int) -> None:
    for number in range(images + _VAL_IMAGES):
        sample = draw_sample(seed=0, number=number)
        split = "train" if number < images else "val"
        for kind, array, suffix in (("images", sample.pixels, "jpg"), ("labels", sample.class_mask * 255, "png")):
            path = directory / kind / split / f"{number:04}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path, quality=_JPEG_QUALITY)


def main() -> None:
    """Measure both encoders and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("--images", type=int, default=64, help="images in an epoch")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each kind that count")
    add_out_option(parser)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), help="encoders of DeepLabV3+")
    arguments = parser.parse_args()

    table = Table(title="Training: images a second, batch 8, 256 x 256")
    for column in ("DeepLabV3+ with", "plain fp32 loop", "trainer", "ratio"):
        table.add_column(column, justify="left" if column.startswith("Deep") else "right")
    figures = {}
    for encoder in arguments.encoders:
        with scratch_directory() as scratch:
            measured = measure_training(encoder, images=arguments.images, repeats=arguments.repeats, scratch=scratch)
        figures[encoder] = asdict(measured)
        plain, ours = statistics.median(measured.plain), statistics.median(measured.ours)
        table.add_row(encoder, f"{plain:.2f}", f"{ours:.2f}", f"{measured.ratio:.2f}")
    console = Console(width=120)
    console.print(table)
    facts = machine_facts("torch", "segmentation-models-pytorch")
    console.print(facts)
    write_figures(arguments.out, machine=facts, images_per_s=figures)


if __name__ == "__main__":
    main()
