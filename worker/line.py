"""The line: everything between a claimed chunk and its outcomes, built once for each process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from defectoscope import connect
from defectoscope.database import Database
from defectoscope.errors import CallerError, Fault
from defectoscope.errors.engine import DeviceLost, EngineOutOfMemory, ProviderUnavailable
from defectoscope.inspection.chunks import ClaimedChunk
from defectoscope.inspection.completion import ItemOutcome
from defectoscope.inspection.sources import InputBuckets
from defectoscope.settings import Settings
from defectoscope.storage import Storage
from worker.device import EngineOptions
from worker.lane import Lane
from worker.memory import ByteBudget
from worker.models import LoadedModels
from worker.pipeline import Pipeline
from worker.steps import ImageSteps
from worker.stored_masks import StoredMasks

#: Threads that carry images, for each image of a batch: one batch runs, one waits for it, and one is stored.
_CARRIERS_PER_IMAGE = 3


class InspectionLine:
    """Models, the lane that runs them, and the threads around it."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        storage: Storage,
        buckets: InputBuckets,
        on_lost: Callable[[DeviceLost], None],
    ) -> None:
        """Prepare every part; no thread runs and no model is loaded yet.

        Args:
            settings: of the worker.
            database: where results, known ones too, are recorded.
            storage: where masks go.
            buckets: where images come from.
            on_lost: called from the lane's thread when the GPU has failed for good.
        """
        worker = settings.worker
        self.lane = Lane(on_lost=on_lost)
        self._decoder = connect.open_decoder(settings)
        self.models = LoadedModels(
            database=database,
            storage=storage,
            directory=worker.model_cache_dir,
            options=engine_options(settings),
            lane=self.lane,
            variant=worker.variant,
        )
        self._pipeline = Pipeline(
            database=database,
            steps=ImageSteps(
                storage=storage,
                buckets=buckets,
                decoder=self._decoder,
                lane=self.lane,
                stored_masks=StoredMasks(storage),
            ),
            fetchers=ThreadPoolExecutor(worker.io_threads, thread_name_prefix="fetch"),
            carriers=ThreadPoolExecutor(
                _CARRIERS_PER_IMAGE * worker.batch_size + (os.cpu_count() or 1), thread_name_prefix="carry"
            ),
            budget=ByteBudget(worker.memory_bytes),
            group_size=worker.batch_size,
        )

    def inspect(self, chunk: ClaimedChunk, *, is_wanted: Callable[[], bool]) -> list[ItemOutcome]:
        """Inspect the images of a chunk under the model version its job is pinned to.

        Args:
            chunk: as claimed.
            is_wanted: asked before every image; False ends the work early.

        Returns:
            One outcome for each image that was looked at. Where the model itself is at fault, every image gets that
            error by name: trying again would end the same way, and a person may retry them.

        Raises:
            NotNow, ProviderUnavailable: a server or this machine's GPU is away; the chunk is not to blame.
            EngineOutOfMemory: not even one image fits, now and here; later or elsewhere it may.
        """
        try:
            model = self.models.get(chunk.model_version)
            return self._pipeline.process(chunk, model=model, is_wanted=is_wanted)
        except (ProviderUnavailable, EngineOutOfMemory):
            raise
        except (Fault, CallerError) as exc:
            return [ItemOutcome(item_id=item.item_id, error=exc) for item in chunk.items]

    def close(self) -> None:
        """Let the threads end."""
        self._pipeline.fetchers.shutdown()
        self._pipeline.carriers.shutdown()
        self.lane.end()
        self._decoder.close()


def engine_options(settings: Settings) -> EngineOptions:
    """Return where and how this process runs models."""
    worker = settings.worker
    return EngineOptions(
        device=worker.device,
        device_id=worker.device_id,
        intra_op_threads=worker.intra_op_threads,
        batch_size=worker.batch_size,
        memory_limit_bytes=worker.gpu_memory_bytes,
        engine_cache_dir=worker.model_cache_dir,
    )
