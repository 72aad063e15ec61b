"""`python -m benchmarks.tiling DIRECTORY`: what tiles buy on images with small defects, and what they cost.

One model scores the same validation images twice: whole images stretched to its input, and tiles of their own pixels.
The model is given, or trained here within a stated time. Threshold and minimum area are chosen for each way on these
images, as a training run chooses them, so that neither way suffers from the other's values.

A labelled region (8-connected) counts as found when the mask covers at least one pixel of it, and a claimed region as
false when it covers no labelled pixel. The rule is lenient on purpose: a coarse mask, which is what stretching gives,
finds no less by it than a sharp one, and how well the masks fit is what the IoU says. Ignored pixels count nowhere.

The split is the product's own: images of one group of the directory's manifest.csv are on one side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as lightning
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.output import add_out_option, write_figures
from benchmarks.place import scratch_directory
from defectoscope.cli.dataset_folder import read_folder
from defectoscope.database import Split
from defectoscope.dataset.formats import LabelledPicture
from defectoscope.dataset.groups import Candidate
from defectoscope.dataset.splits import decide
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.segmentation import (
    IGNORED,
    Engine,
    ModelContract,
    PixelCounts,
    ResizePolicy,
    UInt8Array,
    count_pixels,
    lay_out,
    per_image_mean,
    pooled,
    segment,
)
from trainer.arrays import load_samples
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import LabelledFile, LabelledFiles, LocalFile
from trainer.export import export_onnx
from trainer.fit import fit
from trainer.hardware import available_cores, choose_device
from trainer.network import build_network
from trainer.operating_point import choose_operating_point
from trainer.runtime import onnx_engine, read_contract

#: A third and not a fifth: defects are counted, and of few images there are too few.
VAL_FRACTION = 0.34
POLICIES: tuple[ResizePolicy, ...] = ("stretch", "tile")
#: The recipe where none is given. Epochs at half the size would show defects at another scale than the tiles.
_RECIPE = {"preset": "quick", "resize_policy": "tile", "half_size_share": 0, "augmentation": "standard", "epochs": 60}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Regions of one or more images.

    Attributes:
        labelled: regions of the labels.
        found: those of them that the mask touches.
        claimed: regions of the masks.
        false: those of them that touch no labelled defect.
    """

    labelled: int
    found: int
    claimed: int
    false: int

    def __add__(self, other: Found) -> Found:
        return Found(
            labelled=self.labelled + other.labelled,
            found=self.found + other.found,
            claimed=self.claimed + other.claimed,
            false=self.false + other.false,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one way of resizing gives on the validation images.

    Attributes:
        policy: the way.
        threshold: chosen for it.
        min_area_px: chosen for it.
        iou_pooled: of the defect class, every pixel weighing the same.
        iou_mean: the same, every image weighing the same.
        regions: defects found, and claimed for nothing.
        inputs: runs of the model for all images.
        seconds: of segmenting them, decoding left out.
    """

    policy: ResizePolicy
    threshold: float
    min_area_px: int
    iou_pooled: float
    iou_mean: float
    regions: Found
    inputs: int
    seconds: float


def count_regions(mask: UInt8Array, class_mask: UInt8Array) -> Found:
    """Count what was found in an image.

    Args:
        mask: (H, W) uint8, 0 background and 255 defect.
        class_mask: (H, W) uint8, 0 background, 1 defect, 255 ignored.
    """
    claimed = ((mask != 0) & (class_mask != IGNORED)).astype(np.uint8)
    labelled = (class_mask == 1).astype(np.uint8)
    labelled_count, found = _count_touched(labelled, claimed)
    claimed_count, right = _count_touched(claimed, labelled)
    return Found(labelled=labelled_count, found=found, claimed=claimed_count, false=claimed_count - right)


def _count_touched(regions: UInt8Array, by: UInt8Array) -> tuple[int, int]:
    count, numbers = cv2.connectedComponents(regions, connectivity=8)
    touched = np.unique(np.asarray(numbers)[by != 0])
    return count - 1, int(np.count_nonzero(touched))


def read_split(directory: Path) -> LabelledFiles:
    """Find the labelled images of a directory and split them as the registry would.

    Raises:
        NoImagesFound, InvalidDataset: there are none, or a side has none.
    """
    files: list[LabelledFile] = []
    candidates: list[Candidate] = []
    for number, picture in enumerate(one for one in read_folder(directory) if isinstance(one, LabelledPicture)):
        if not isinstance(picture.label, Path):
            raise InvalidDataset(f"{picture.name} has no label file.", name=picture.name)
        file = LabelledFile(
            name=picture.name,
            image=LocalFile(picture.image_path),
            label=LocalFile(picture.label),
            group=picture.part or "",
        )
        pixels, class_mask = file.decode()
        files.append(file)
        candidates.append(
            Candidate(
                image_id=number,
                sha256=hashlib.sha256(file.image.read()).hexdigest(),
                name=picture.name,
                asked=None if picture.split is None else Split(picture.split),
                part=picture.part,
                perceptual_hash=None,
                size_wh=(pixels.shape[1], pixels.shape[0]),
                shows_defect=bool((class_mask == 1).any()),
            )
        )
    decisions, _ = decide(candidates, [], counted={}, val_fraction=VAL_FRACTION)
    sides: dict[Split, list[LabelledFile]] = {split: [] for split in Split}
    for decision in decisions:
        sides[decision.split].append(files[decision.image_id])
    if not all(sides.values()):
        raise InvalidDataset(f"{directory} cannot be split: {len(files)} labelled images in one group.")
    return LabelledFiles(train=tuple(sides[Split.TRAIN]), val=tuple(sides[Split.VAL]))


def train(files: LabelledFiles, *, config: TrainingConfig, path: Path) -> int:
    """Train a model and export it.

    Args:
        files: both sides of the split.
        config: the recipe.
        path: the file to write; its directory is worked in.

    Returns:
        Epochs trained.
    """
    torch.set_num_threads(available_cores())
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    contract = contract_of(config, dataset_revision=None)
    train_samples, val_samples = load_samples(
        files, contract=contract, augmentation=config.augmentation, seed=config.seed
    )
    network = build_network(config).network
    outcome = fit(
        network,
        train=train_samples,
        val=val_samples,
        config=config,
        device=choose_device("auto"),
        work_dir=path.parent,
        on_epoch=lambda _epoch, _figures: None,
        check=lambda: None,
    )
    export_onnx(network, contract=contract, path=path)
    return outcome.epochs_run


def score(
    files: Sequence[LabelledFile], *, engine: Engine, contract: ModelContract, policy: ResizePolicy
) -> tuple[Score, dict[str, float]]:
    """Segment the images in one way.

    Returns:
        The scores, and the IoU of each image by its name.
    """
    contract = replace(contract, resize_policy=policy)
    contract = choose_operating_point(files, engine=engine, contract=contract).apply(contract)
    counts: dict[str, PixelCounts] = {}
    regions = Found(labelled=0, found=0, claimed=0, false=0)
    inputs, seconds = 0, 0.0
    for file in files:
        pixels, class_mask = file.decode()
        started = perf_counter()
        found = segment(pixels, engine=engine, contract=contract)
        seconds += perf_counter() - started
        inputs += lay_out((pixels.shape[0], pixels.shape[1]), contract=contract).count
        counts[file.name] = count_pixels(found.mask, class_mask)
        regions += count_regions(found.mask, class_mask)
    return (
        Score(
            policy=policy,
            threshold=contract.threshold,
            min_area_px=contract.min_area_px,
            iou_pooled=pooled(counts.values()).iou_defect,
            iou_mean=per_image_mean(counts.values(), lambda count: count.iou_defect) or 0.0,
            regions=regions,
            inputs=inputs,
            seconds=seconds,
        ),
        {name: count.iou_defect for name, count in counts.items()},
    )


def show(scores: Sequence[Score], *, title: str, console: Console) -> None:
    """Print the table."""
    table = Table(title=title)
    columns = ("resize", "threshold", "min area px", "IoU pooled", "IoU mean", "defects found", "false", "s an image")
    for column in columns:
        table.add_column(column, justify="left" if column == "resize" else "right")
    images = max(1, scores[0].inputs)
    for one in scores:
        table.add_row(
            one.policy,
            f"{one.threshold:.3f}",
            str(one.min_area_px),
            f"{one.iou_pooled:.4f}",
            f"{one.iou_mean:.4f}",
            f"{one.regions.found} of {one.regions.labelled}",
            str(one.regions.false),
            f"{one.seconds / images:.3f} ({one.inputs / images:.0f} inputs)",
        )
    console.print(table)


def read_recipe(changes: Sequence[str], *, budget_s: float) -> TrainingConfig:
    """Return the recipe with changes like ``encoder=resnet50``; a value is JSON, or else text."""
    values: dict[str, Any] = {**_RECIPE, "time_budget_s": budget_s}
    for change in changes:
        name, _, text = change.partition("=")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return TrainingConfig.resolve(values)


def main() -> None:
    """Train or take a model, score it both ways, print the table, write the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiling")
    parser.add_argument("directory", type=Path, help="labelled images, with a manifest.csv in it or above it")
    parser.add_argument("--model", type=Path, help="a model file; by default one is trained")
    parser.add_argument("--budget-s", type=float, default=900, help="no epoch is begun that would end later than this")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    add_out_option(parser)
    arguments = parser.parse_args()
    console = Console(width=130)

    files = read_split(arguments.directory)
    figures: dict[str, Any] = {"directory": arguments.directory.name, "train": len(files.train), "val": len(files.val)}
    with scratch_directory() as scratch:
        path = arguments.model
        if path is None:
            path = scratch / "model.onnx"
            config = read_recipe(arguments.set, budget_s=arguments.budget_s)
            figures |= {"recipe": config.to_json(), "epochs": train(files, config=config, path=path)}
        engine, contract = onnx_engine(path), read_contract(path)
        scores: list[Score] = []
        by_image: dict[str, Mapping[str, float]] = {}
        for policy in POLICIES:
            scored, by_image[policy] = score(files.val, engine=engine, contract=contract, policy=policy)
            scores.append(scored)
    show(
        scores,
        title=f"{len(files.val)} images of {arguments.directory.name}, one model ({contract.encoder}, "
        f"{contract.input_size_wh[0]}x{contract.input_size_wh[1]}, made for {contract.resize_policy})",
        console=console,
    )
    better = sum(by_image["tile"][name] > by_image["stretch"][name] for name in by_image["tile"])
    worse = sum(by_image["tile"][name] < by_image["stretch"][name] for name in by_image["tile"])
    console.print(f"By image: tile has the greater IoU in {better}, stretch in {worse}.")
    write_figures(arguments.out, **figures, scores=[asdict(one) for one in scores], iou_by_image=by_image)


if __name__ == "__main__":
    main()
