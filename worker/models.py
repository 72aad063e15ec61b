"""The model versions this process has loaded: fetched once, shared by all threads, the least used let go.

Of a version's files the fastest here is served: int8 on a processor that has the instructions for it, fp16 on a GPU.
Which one that is, is measured and not guessed; all of them were proven equal enough before they were published.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Literal

import numpy as np
import structlog

from defectoscope.database import Database
from defectoscope.errors.models import ModelVariantUnavailable
from defectoscope.registry import fetch_variant
from defectoscope.storage import Storage
from worker.device import CPU, EngineOptions, check_device
from worker.engine import OnnxEngine
from worker.lane import Lane

log = structlog.get_logger(__name__)

Variant = Literal["fp32", "fp16", "int8"]
VariantSetting = Literal["auto", "fp32", "fp16", "int8"]

#: Versions kept loaded: the one in service and the one that running jobs are still pinned to.
_KEPT = 2

#: Calls of each file that are timed, after a first one that warms it.
_TIMED_CALLS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """One version, ready to run; ``timings_ms`` holds milliseconds an image of each file that was measured for it."""

    engine: OnnxEngine
    variant: Variant
    timings_ms: dict[Variant, float]


@dataclass(slots=True)
class _Place:
    """Where one version's model is, or will be."""

    lock: Lock = field(default_factory=Lock)
    model: LoadedModel | None = None


class LoadedModels:
    """Models by version number."""

    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        directory: Path,
        options: EngineOptions,
        lane: Lane,
        variant: VariantSetting = "auto",
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            database: where versions are recorded.
            storage: where their files lie.
            directory: the local cache of model files.
            options: as `OnnxEngine` takes them.
            lane: where files are timed.
            variant: which file to serve; fp32 stands in where a version lacks it. ``auto`` serves the fastest.
        """
        self._database = database
        self._storage = storage
        self._directory = directory
        self._options = options
        self._lane = lane
        self._setting = variant
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._lock = Lock()
        #: What was fastest, by network: the next version of the same network need not be measured again.
        self._fastest: dict[tuple[str, str, tuple[int, int]], Variant] = {}

    def get(self, number: int) -> LoadedModel:
        """Return a model version.

        The first caller loads it while others who want the same wait; who wants another one does not. Where loading
        fails, the next caller tries again.

        Raises:
            ModelVersionNotFound, InvalidModel, ProviderUnavailable, StorageUnavailable: as they say.
        """
        with self._lock:
            place = self._places.setdefault(number, _Place())
            self._places.move_to_end(number)
            while len(self._places) > _KEPT:
                self._places.popitem(last=False)
        with place.lock:
            if place.model is None:
                place.model = self._load(number)
            return place.model

    def _load(self, number: int) -> LoadedModel:
        fastest: LoadedModel | None = None
        timings_ms: dict[Variant, float] = {}
        known = dict(self._fastest)
        for variant in self._candidates():
            engine = self._open(number, variant)
            if engine is None:
                continue
            model = LoadedModel(engine=engine, variant=variant, timings_ms=timings_ms)
            facts = engine.contract
            network = (facts.architecture, facts.encoder, facts.input_size_wh)
            if self._setting != "auto" or known.get(network) == variant:
                fastest = model
                break
            if network in known:
                # Slower than another one on this machine; served only where that one is absent.
                fastest = fastest or model
                continue
            timings_ms[variant] = time_engine(engine, lane=self._lane)
            if fastest is None or timings_ms[variant] < timings_ms[fastest.variant]:
                fastest, self._fastest[network] = model, variant
        if fastest is None:
            raise ModelVariantUnavailable(f"Model version {number} has no file to serve.", number=number)
        log.info(
            "model.loaded",
            version=number,
            variant=fastest.variant,
            provider=fastest.engine.provider,
            ms_per_image={variant: round(time_ms, 1) for variant, time_ms in timings_ms.items()},
        )
        return fastest

    def _candidates(self) -> tuple[Variant, ...]:
        """Return the variants to look at, the likely fastest first."""
        if self._setting == "fp32":
            return ("fp32",)
        if self._setting != "auto":
            return (self._setting, "fp32")
        return ("int8", "fp32") if check_device(self._options.device) == CPU else ("fp16", "fp32")

    def _open(self, number: int, variant: Variant) -> OnnxEngine | None:
        try:
            path = fetch_variant(
                database=self._database,
                storage=self._storage,
                number=number,
                precision=variant,
                directory=self._directory,
            )
        except ModelVariantUnavailable as exc:
            if variant == "fp32":
                raise
            log.info("model.variant_absent", version=number, variant=variant, reason=exc.message)
            return None
        return OnnxEngine(path, options=self._options)


def time_engine(engine: OnnxEngine, *, lane: Lane) -> float:
    """Return the milliseconds that an image takes in a full batch: the median of a few calls.

    Raises:
        EngineFailed: the model cannot be run.
    """
    lane.warm(engine).result()
    width, height = engine.contract.input_size_wh
    blank = np.zeros((height, width, 3), dtype=np.uint8)
    timings_ms = []
    for _ in range(_TIMED_CALLS):
        calls = [lane.submit(engine, blank) for _ in range(engine.batch_size)]
        timings_ms += [output.latency_ms for call in calls if (output := call.result()) is not None]
    return median(timings_ms)
