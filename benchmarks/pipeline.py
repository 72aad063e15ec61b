"""The worker path, from the first claim to the last commit, against `session.run` on ready tensors.

Same int8 file, same threads, same batch size, as many images; the two take turns, so that a noisy machine disturbs
both. In each turn the worker sees images that no turn before has seen, as those of a camera are: of one that it knows
the copy under its hash is stored already, which spares the storage its largest write. The servers run on the same
machine, as in every deployment of one node, and their CPU time is printed too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.models import ModelFiles
from benchmarks.ours import Ours
from benchmarks.place import draw_images, make_place, store_images
from benchmarks.processes import cpu_s
from defectoscope.connect import s3_config
from defectoscope.embedded.stack import Connections
from defectoscope.segmentation import UInt8Array, decode_quickly, lay_out
from defectoscope.storage import open_s3
from worker import metrics
from worker.device import EngineOptions
from worker.engine import OnnxEngine

BATCH_SIZE = 8

#: Cases share a bucket: each has its own numbers of seeds, so that none draws the images of another.
_SEEDS_OF_A_CASE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network, a size of images, and the least ratio that is good enough."""

    name: str
    encoder: str
    size_wh: tuple[int, int]
    goal: float


CASES = (
    Case(name="ResNet101 int8, 512x512 JPEG", encoder="resnet101", size_wh=(512, 512), goal=0.90),
    Case(name="ResNet101 int8, 1920x1080 JPEG", encoder="resnet101", size_wh=(1920, 1080), goal=0.75),
    Case(name="MobileNetV2 int8, 512x512 JPEG", encoder="mobilenet_v2", size_wh=(512, 512), goal=0.65),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Seconds of each repeat, in order; the n-th of each list belong together.

    Attributes:
        case: name of it.
        images: in each turn.
        bare_s, worker_s: wall time.
        bare_cpu_s, worker_cpu_s: CPU time of this process.
        servers_cpu_s: CPU time of database, broker and storage in the worker's turns.
        stage_cpu_ms: CPU milliseconds an image of each stage of the pipeline, over all repeats.
    """

    case: str
    images: int
    bare_s: list[float] = field(default_factory=list)
    worker_s: list[float] = field(default_factory=list)
    bare_cpu_s: list[float] = field(default_factory=list)
    worker_cpu_s: list[float] = field(default_factory=list)
    servers_cpu_s: list[float] = field(default_factory=list)
    stage_cpu_ms: dict[str, float] = field(default_factory=dict)


def measure(
    case: Case,
    *,
    model: ModelFiles,
    connections: Connections,
    servers: Sequence[int],
    scratch: Path,
    images: int,
    repeats: int,
) -> Measurement:
    """Run a case.

    Args:
        case: what.
        model: with the encoder of the case.
        connections: running servers; a database of its own is made on them.
        servers: their processes, below this one.
        scratch: a directory that does not exist yet.
        images: images in each job, all different and new in each turn.
        repeats: how often the two take turns.
    """
    scratch.mkdir(parents=True)
    place = make_place(connections, scratch=scratch, sections={"worker": {"batch_size": BATCH_SIZE, "variant": "int8"}})
    storage = open_s3(s3_config(place.settings))
    first_seed = 1 + CASES.index(case) * _SEEDS_OF_A_CASE
    # The first turn, which warms the worker, has images of its own, too.
    sets = {
        seed: [image.jpeg for image in draw_images(images, size_wh=case.size_wh, seed=seed)]
        for seed in range(first_seed, first_seed + 1 + repeats)
    }
    first_keys, *keys = (store_images(files, storage=storage, prefix=f"bench/{seed}") for seed, files in sets.items())
    if model.int8 is None:
        raise RuntimeError("There is no int8 file.")
    engine = OnnxEngine(model.int8, options=EngineOptions(device="cpu", batch_size=BATCH_SIZE))
    ready = [_model_input(data, engine) for data in sets[first_seed]]
    measurement = Measurement(case=case.name, images=images)
    with Ours(place, model=model, keys=first_keys, servers=servers) as ours:
        _run_bare(engine, ready)
        stages_before = _stage_cpu_s()
        for new_keys in keys:
            cpu_before = cpu_s(os.getpid(), without=servers)
            measurement.bare_s.append(_run_bare(engine, ready))
            measurement.bare_cpu_s.append(cpu_s(os.getpid(), without=servers) - cpu_before)
            servers_before = sum(map(cpu_s, servers))
            turn = ours.turn(new_keys)
            measurement.worker_s.append(turn.seconds)
            measurement.worker_cpu_s.append(turn.cpu_s)
            measurement.servers_cpu_s.append(sum(map(cpu_s, servers)) - servers_before)
        for name, used_s in _stage_cpu_s().items():
            measurement.stage_cpu_ms[name] = (used_s - stages_before[name]) * 1000 / (images * repeats)
    return measurement


def _model_input(data: bytes, engine: OnnxEngine) -> UInt8Array:
    image = decode_quickly(data)
    return lay_out(image.shape_hw, contract=engine.contract).model_input(image.pixels, 0)


def _run_bare(engine: OnnxEngine, ready: Sequence[UInt8Array]) -> float:
    batches = [np.stack(ready[start : start + BATCH_SIZE]) for start in range(0, len(ready), BATCH_SIZE)]
    started = perf_counter()
    for batch in batches:
        engine(batch)
    return perf_counter() - started


def _stage_cpu_s() -> dict[str, float]:
    return {stage: metrics.stage_cpu_seconds_total.labels(stage)._value.get() for stage in metrics.STAGES}  # noqa: SLF001
