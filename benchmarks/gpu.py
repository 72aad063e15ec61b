"""`python -m benchmarks.gpu`: the engine and the steps around it on one machine, from local files, without any server.

For a GPU host that has no more than the worker's engine needs: numpy, Pillow, OpenCV, onnx, psutil, prometheus-client,
structlog and onnxruntime-gpu. ``prepare`` writes a DeepLabV3+ without its weights, a small file, where the trainer is
installed; ``measure`` fills in random weights, demands that the worker's batches give what plain calls give, and
measures on the host:

- the engine alone: full batches of ready inputs, one after another, from one thread;
- decoding alone: JPEG files decoded and brought to the model's size by as many threads as there are cores;
- the line: files read, decoded, run through the worker's lane, measured and encoded as PNG, by as many threads as the
  worker has; with the share of the time that the lane was busy, and the CPU time of each step, from which follows how
  many images a second the cores alone would allow.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime
from PIL import Image
from prometheus_client import Counter

from benchmarks.output import add_out_option, write_figures
from benchmarks.processes import machine_facts
from benchmarks.weightless import empty_weights, fill_weights
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.engine import DeviceLost, EngineFailed
from defectoscope.samples import draw_sample
from defectoscope.segmentation import SegmentationParams, UInt8Array, encode_mask, lay_out, open_image
from worker import metrics
from worker.device import EngineOptions, available_threads
from worker.engine import OnnxEngine
from worker.lane import Lane
from worker.stages import stage

_DRAWN = 64
_SIZE_WH = (512, 512)
_QUALITY = 90
_DEFECT_SHARE = 0.03
#: Levels of 255 by which two calls with the same images may differ: a GPU may choose other kernels for them.
_ROUNDING_LEVELS = 4
_STEPS = ("fetch", "decode", "prepare", "measure", "encode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured.

    Attributes:
        provider: execution provider that ran the model.
        batch_size: images in a full batch.
        engine_images_per_s: the engine alone.
        decode_images_per_s: decoding alone.
        line_images_per_s: everything.
        lane_busy_share: of the line's time.
        step_cpu_ms: CPU milliseconds of each step for an image, the lane's own thread not among them.
        cpu_limit_images_per_s: what the cores would do if these steps were all there is.
    """

    provider: str
    batch_size: int
    engine_images_per_s: float
    decode_images_per_s: float
    line_images_per_s: float
    lane_busy_share: float
    step_cpu_ms: dict[str, float]
    cpu_limit_images_per_s: float


def measure(engine: OnnxEngine, files: Sequence[Path], *, seconds: float) -> Figures:
    """Measure the three.

    Args:
        engine: the model; it is warmed first.
        files: images, used again and again.
        seconds: that each of the three lasts, about.
    """
    inputs = [_model_input(file, engine) for file in files]
    cores = available_threads()
    lane = Lane(on_lost=_stop)
    lane.warm(engine).result()
    _demand_equal(engine, inputs)
    alone = _rate(lambda: _run_batches(engine, inputs, seconds=seconds))
    with ThreadPoolExecutor(cores) as pool:
        decoding = _rate(lambda: _count(pool, lambda file: _model_input(file, engine), files, cores, seconds))
    params = _typical_params(engine, inputs)
    before = _cpu_by_step()
    busy_before = _value(metrics.lane_busy_seconds_total)
    carriers = 3 * engine.batch_size + cores
    began_at = perf_counter()
    with ThreadPoolExecutor(carriers) as pool:
        images = _count(pool, lambda file: _carry(file, engine, lane, params), files, carriers, seconds)
    taken = perf_counter() - began_at
    busy = _value(metrics.lane_busy_seconds_total) - busy_before
    lane.end()
    step_cpu_ms = {name: (used - before[name]) * 1000 / images for name, used in _cpu_by_step().items()}
    return Figures(
        provider=engine.provider,
        batch_size=engine.batch_size,
        engine_images_per_s=alone,
        decode_images_per_s=decoding,
        line_images_per_s=images / taken,
        lane_busy_share=busy / taken,
        step_cpu_ms=step_cpu_ms,
        cpu_limit_images_per_s=cores * 1000 / sum(step_cpu_ms.values()),
    )


def _demand_equal(engine: OnnxEngine, inputs: Sequence[UInt8Array]) -> None:
    """Compare two batches through the engine's buffers with plain calls: what runs fast on old images is worth nothing.

    Raises:
        EngineFailed: they differ by more than rounding.
    """
    for batch in (inputs[: engine.batch_size], inputs[-engine.batch_size :]):
        bound, plain = np.stack(engine.run(batch)[0]), engine(np.stack(batch))
        difference = int(np.abs(bound.astype(np.int16) - plain).max())
        if difference > _ROUNDING_LEVELS:
            raise EngineFailed(f"The buffers give levels that are up to {difference} from those of a plain call.")


def _stop(exc: DeviceLost) -> None:
    # Called from the lane's thread, and nothing can be measured any more.
    print(f"error: {exc.message} ({exc.code})", file=sys.stderr)
    os._exit(1)


def _rate(act: Callable[[], int]) -> float:
    began_at = perf_counter()
    images = act()
    return images / (perf_counter() - began_at)


def _run_batches(engine: OnnxEngine, inputs: Sequence[UInt8Array], *, seconds: float) -> int:
    """Run full batches for some time; return the images."""
    source = itertools.cycle(inputs)
    images, ends_at = 0, perf_counter() + seconds
    while perf_counter() < ends_at:
        batch = list(itertools.islice(source, engine.batch_size))
        engine.run(batch)
        images += len(batch)
    return images


def _count(
    pool: ThreadPoolExecutor, act: Callable[[Path], object], files: Sequence[Path], threads: int, seconds: float
) -> int:
    """Have every thread act on one file after another for some time; return how often they did."""
    ends_at = perf_counter() + seconds

    def work(first: int) -> int:
        done = 0
        for file in itertools.islice(itertools.cycle(files), first, None):
            if perf_counter() >= ends_at:
                return done
            act(file)
            done += 1
        return done

    return sum(pool.map(work, range(threads)))


def _model_input(file: Path, engine: OnnxEngine) -> UInt8Array:
    opened = open_image(file.read_bytes())
    layout = lay_out(opened.shape_hw, contract=engine.contract, policy="stretch")
    return layout.model_input(opened.decode(least_size_wh=layout.least_size_wh).pixels, 0)


def _typical_params(engine: OnnxEngine, inputs: Sequence[UInt8Array]) -> SegmentationParams:
    """Put the threshold where as many pixels are defect as in drawn samples; random weights say nothing about images.

    What comes after the model costs what its masks cost, and the model itself does not depend on the threshold.
    """
    levels = engine(np.stack(inputs[: engine.batch_size]))
    threshold = max(1.0, float(np.quantile(levels, 1 - _DEFECT_SHARE))) / 255
    return SegmentationParams(threshold=threshold, min_area_px=engine.contract.min_area_px)


def _carry(file: Path, engine: OnnxEngine, lane: Lane, params: SegmentationParams) -> bytes:
    """Take a file through every step that the worker has, but for the servers."""
    with stage("fetch"):
        opened = open_image(file.read_bytes())
    layout = lay_out(opened.shape_hw, contract=engine.contract, policy="stretch")
    with stage("decode"):
        pixels = opened.decode(least_size_wh=layout.least_size_wh).pixels
    with stage("prepare"):
        model_input = layout.model_input(pixels, 0)
    output = lane.submit(engine, model_input).result()
    if output is None:
        raise RuntimeError("The lane gave no output.")
    with stage("measure"):
        assembly = layout.assembly()
        assembly.add(output.probabilities, 0)
        found = assembly.finish(params)
    with stage("encode"):
        return encode_mask(found.mask)


def _cpu_by_step() -> dict[str, float]:
    return {name: _value(metrics.stage_cpu_seconds_total, stage=name) for name in _STEPS}


def _value(metric: Counter, **labels: str) -> float:
    (sample,) = [
        sample
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels == labels
    ]
    return float(sample.value)


def draw_files(directory: Path, *, count: int, size_wh: tuple[int, int]) -> Iterator[Path]:
    """Write drawn samples as JPEG files and yield their paths."""
    for number in range(count):
        path = directory / f"{number:04}.jpg"
        picture = Image.fromarray(draw_sample(seed=1, number=number).pixels)
        picture.resize(size_wh, Image.Resampling.BICUBIC).save(path, quality=_QUALITY)
        yield path


def prepare(target: Path, *, encoder: str, precision: str) -> None:
    """Write a DeepLabV3+ without its weights; needs the trainer.

    Args:
        target: the file to write.
        encoder: of the network.
        precision: fp32 or fp16.
    """
    # Only here: the GPU host has neither.
    from benchmarks.models import random_network  # noqa: PLC0415
    from trainer.half import write_half  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        model = random_network(encoder, directory=Path(scratch) / "model").fp32
        if precision == "fp16":
            half = model.with_name("half.onnx")
            write_half(model, half)
            model = half
        empty_weights(model, target)


def gpu_facts() -> str | None:
    """Return name, memory and driver of the GPUs as the driver's own program tells them; None without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = (program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    done = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603 -- the driver's own
    return done.stdout.strip() or None


def show(figures: Figures) -> None:
    """Print what was measured, and which of the two is the bound."""
    print(f"{figures.provider}, batches of {figures.batch_size}")
    print(f"engine alone    {figures.engine_images_per_s:9.1f} images/s")
    print(f"decoding alone  {figures.decode_images_per_s:9.1f} images/s")
    ratio = figures.line_images_per_s / figures.engine_images_per_s
    print(f"the line        {figures.line_images_per_s:9.1f} images/s, {ratio:.2f} of the engine alone")
    print(f"lane busy       {figures.lane_busy_share:9.1%}")
    steps = ", ".join(f"{name} {used:.2f}" for name, used in figures.step_cpu_ms.items())
    print(f"CPU ms an image: {steps}; the cores allow {figures.cpu_limit_images_per_s:.1f} images/s")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="write a model without weights, where the trainer is installed")
    preparing.add_argument("target", type=Path)
    preparing.add_argument("--encoder", default="resnet101")
    preparing.add_argument("--precision", choices=("fp32", "fp16"), default="fp16")
    measuring = commands.add_parser("measure", help="measure a model, with or without weights")
    measuring.add_argument("model", type=Path)
    measuring.add_argument("--images", type=Path, help="directory of JPEG files; drawn ones by default")
    measuring.add_argument("--device", choices=("cuda", "tensorrt", "cpu"), default="cuda")
    measuring.add_argument("--batch-size", type=int, default=32)
    measuring.add_argument("--seconds", type=float, default=20, help="that each of the three measurements lasts")
    measuring.add_argument("--repeats", type=int, default=3, help="of all three, in turns")
    add_out_option(measuring)
    return parser


def main() -> None:
    """Run a command; an expected error is one sentence and exit status 1."""
    arguments = make_parser().parse_args()
    try:
        if arguments.command == "prepare":
            prepare(arguments.target, encoder=arguments.encoder, precision=arguments.precision)
        else:
            _measure_and_show(arguments)
    except DefectoscopeError as exc:
        sys.exit(f"error: {exc.message} ({exc.code})")


def _measure_and_show(arguments: argparse.Namespace) -> None:
    options = EngineOptions(device=arguments.device, batch_size=arguments.batch_size)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        model = scratch / "model.onnx"
        filled = fill_weights(arguments.model, model)
        engine = OnnxEngine(model, options=options)
        files = (
            sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
            if arguments.images
            else list(draw_files(scratch, count=_DRAWN, size_wh=_SIZE_WH))
        )
        if not files:
            sys.exit(f"error: there is no JPEG file in {arguments.images}.")
        with Image.open(files[0]) as first:
            size_wh = first.size
        measured = [measure(engine, files, seconds=arguments.seconds) for _ in range(arguments.repeats)]
    for figures in measured:
        show(figures)
    facts = machine_facts("numpy", "pillow") | {
        "onnxruntime": onnxruntime.__version__,
        "gpu": gpu_facts(),
        "encoder": engine.contract.encoder,
        "random_weights": filled,
        "images": len(files),
        "size_wh": size_wh,
    }
    print(facts)
    write_figures(arguments.out, machine=facts, turns=[asdict(figures) for figures in measured])


if __name__ == "__main__":
    main()
