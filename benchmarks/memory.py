"""`python -m benchmarks.memory`: resident memory of a worker process over ten thousand images.

The worker is a process as `defectoscope up` starts it; it lists the images of a prefix and inspects them in one job.
Every image is a file of its own, made of few pictures by a number in a comment, so that no result is known before.
The resident memory of the process and of all processes below it is sampled; the sum counts shared pages more than once
and is an upper bound. The slope is that of the line of least squares, after a warm-up of a fifth of the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.figures import slope
from benchmarks.jobs import Progress, prefix_of, run_job, wait_until_warm
from benchmarks.models import put_in_service, random_model
from benchmarks.output import add_out_option, met, write_figures
from benchmarks.place import draw_turned, make_place, numbered, scratch_directory, store_images, worker_process
from benchmarks.processes import machine_facts, memory
from defectoscope.connect import open_database, s3_config
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.logs import configure_logs
from defectoscope.storage import open_s3

#: What is good enough: MB more after every 1 000 images, and MB in all.
GOAL_SLOPE_MB = 1.0
GOAL_PEAK_MB = 1500.0
#: More than the masks that a worker remembers as stored.
_PICTURES = 512
_PREFIX = "bench/memory"
_WARM_S = 180.0
_WARM_UP_SHARE = 0.2
_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Resident memory at one moment, MB; ``largest_mb`` is that of the largest process."""

    seconds: float
    images: int
    total_mb: float
    largest_mb: float


def measure(*, encoder: str, images: int, side_px: int, interval_s: float, scratch: Path) -> list[Sample]:
    """Have a worker process inspect many images, and sample its memory.

    Args:
        encoder: of a DeepLabV3+ at 256 x 256 from a random start.
        images: how many.
        side_px: of every image.
        interval_s: between two samples.
        scratch: an existing directory that other users may pass through.
    """
    samples: list[Sample] = []
    with EmbeddedStack(scratch / "data") as connections:
        place = make_place(connections, scratch=scratch)
        storage = open_s3(s3_config(place.settings))
        pictures = draw_turned(min(_PICTURES, images), side_px=side_px, seed=1)
        files = [numbered(pictures[number % len(pictures)], number) for number in range(images)]
        store_images(files, storage=storage, prefix=_PREFIX)
        del files
        database = open_database(place.settings)
        model = random_model(encoder, directory=scratch / "model")
        version_id = put_in_service(model, database=database, storage=storage)
        with Supervisor(scratch / "logs") as supervisor:
            supervisor.start(worker_process(place, name="worker", cwd=scratch))
            wait_until_warm(database, workers=1, within_s=_WARM_S)
            (guardian,) = supervisor.guardian_ids().values()

            def sample(progress: Progress) -> None:
                used = memory(guardian)
                samples.append(
                    Sample(
                        seconds=progress.seconds,
                        images=progress.images,
                        total_mb=used.total / _MB,
                        largest_mb=used.largest / _MB,
                    )
                )

            run_job(
                place,
                source=prefix_of(place, _PREFIX),
                version_id=version_id,
                threshold=model.contract.threshold,
                within_s=_WARM_S + images,
                on_progress=sample,
                look_every_s=interval_s,
            )
        database.close()
    return samples


def slope_per_1000(samples: Sequence[Sample]) -> float:
    """Return by how many MB the memory rises for each 1 000 images after the warm-up.

    Raises:
        ValueError: too few samples are left.
    """
    begins_at = samples[-1].images * _WARM_UP_SHARE
    counted = [sample for sample in samples if sample.images >= begins_at]
    return slope([sample.images / 1000 for sample in counted], [sample.total_mb for sample in counted])


def show(samples: Sequence[Sample], *, console: Console) -> None:
    """Print slope and peak against their goals, and the curve in ten lines."""
    for sample in samples[:: max(1, len(samples) // 10)]:
        console.print(
            f"{sample.images:>7} images  {sample.total_mb:8.1f} MB  (largest process {sample.largest_mb:.1f})"
        )
    rise, peak = slope_per_1000(samples), max(sample.total_mb for sample in samples)
    last = samples[-1]
    console.print(f"{last.images} images in {last.seconds:.0f} s, {len(samples)} samples.")
    console.print(f"Slope {rise:+.2f} MB per 1000 images; goal under {GOAL_SLOPE_MB}: {met(rise < GOAL_SLOPE_MB)}.")
    console.print(f"Peak {peak:.0f} MB; goal under {GOAL_PEAK_MB:.0f}: {met(peak < GOAL_PEAK_MB)}.")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--encoder", default="resnet101", help="of DeepLabV3+ at 256 x 256")
    parser.add_argument("--images", type=int, default=10_000, help="in the job")
    parser.add_argument("--side-px", type=int, default=256, help="of the images")
    parser.add_argument("--interval-s", type=float, default=1.0, help="between two samples")
    add_out_option(parser)
    return parser


def main() -> None:
    """Measure, print the curve, write the raw figures."""
    arguments = make_parser().parse_args()
    configure_logs(level="warning", form="console", service="bench")
    console = Console(width=120)
    with scratch_directory() as scratch:
        samples = measure(
            encoder=arguments.encoder,
            images=arguments.images,
            side_px=arguments.side_px,
            interval_s=arguments.interval_s,
            scratch=scratch,
        )
    show(samples, console=console)
    facts = machine_facts("onnxruntime-gpu")
    console.print(facts)
    write_figures(
        arguments.out, machine=facts, encoder=arguments.encoder, samples=[asdict(sample) for sample in samples]
    )


if __name__ == "__main__":
    main()
