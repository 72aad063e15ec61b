"""The model versions this process has loaded: fetched once, shared by all threads, the least used let go."""

from __future__ import annotations

from collections import OrderedDict
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
        self._engines: OrderedDict[int, OnnxEngine] = OrderedDict()
        self._lock = Lock()

    def engine(self, number: int) -> OnnxEngine:
        """Return the engine of a model version; the first caller loads it while the others wait.

        Raises:
            ModelVersionNotFound, InvalidModel, ProviderUnavailable, StorageUnavailable: as they say.
        """
        with self._lock:
            engine = self._engines.get(number)
            if engine is None:
                path = fetch_variant(
                    database=self._database,
                    storage=self._storage,
                    number=number,
                    precision=self.variant,
                    directory=self._directory,
                )
                engine = self._engines[number] = OnnxEngine(path, options=self._options)
                log.info("model.loaded", version=number, variant=self.variant, provider=engine.provider)
            self._engines.move_to_end(number)
            while len(self._engines) > _KEPT:
                self._engines.popitem(last=False)
            return engine
