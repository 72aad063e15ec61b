"""The model versions this process has loaded: fetched once, shared by all threads, the least used let go."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import structlog

from defectoscope.database import Database
from defectoscope.registry import fetch_variant
from defectoscope.storage import Storage
from worker.engine import EngineOptions, OnnxEngine

log = structlog.get_logger(__name__)

#: Versions kept loaded: the one in service and the one that running jobs are still pinned to.
_KEPT = 2


@dataclass(slots=True)
class _Place:
    """Where one version's engine is, or will be."""

    lock: Lock = field(default_factory=Lock)
    engine: OnnxEngine | None = None


class LoadedModels:
    """Engines by model version number."""

    #: Which file of a version is served; one precision so far.
    variant = "fp32"

    def __init__(self, *, database: Database, storage: Storage, directory: Path, options: EngineOptions) -> None:
        """Args: as `fetch_variant` and `OnnxEngine` take them; nothing is loaded yet."""
        self._database = database
        self._storage = storage
        self._directory = directory
        self._options = options
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._lock = Lock()

    def engine(self, number: int) -> OnnxEngine:
        """Return the engine of a model version.

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
            if place.engine is None:
                place.engine = self._load(number)
            return place.engine

    def _load(self, number: int) -> OnnxEngine:
        path = fetch_variant(
            database=self._database,
            storage=self._storage,
            number=number,
            precision=self.variant,
            directory=self._directory,
        )
        engine = OnnxEngine(path, options=self._options)
        log.info("model.loaded", version=number, variant=self.variant, provider=engine.provider)
        return engine
