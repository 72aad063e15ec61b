"""The worker's turn in a comparison: a job submitted, its chunks claimed, inspected and committed in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from time import perf_counter
from types import TracebackType
from typing import Self

from sqlalchemy import select

from benchmarks.models import ModelFiles, put_in_service
from benchmarks.peers.running import Turn
from benchmarks.place import Place, job_params
from benchmarks.processes import cpu_s
from defectoscope.connect import open_database, s3_config
from defectoscope.database import JobItem, Result
from defectoscope.inspection.sources import ExplicitImages, SourceImage
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import MemoryQueue
from defectoscope.segmentation import UInt8Array, decode_mask
from defectoscope.storage import S3Uri, open_s3
from worker.inspector import Inspector


class Ours:
    """A worker in this process, warm, that inspects the same images again and again."""

    def __init__(self, place: Place, *, model: ModelFiles, keys: Sequence[str], servers: Sequence[int] = ()) -> None:
        """Put the model in service.

        Args:
            place: what the worker works for.
            model: what it serves.
            keys: of the images.
            servers: processes below this one that are not the worker's.
        """
        self._settings = place.settings
        self._database = open_database(place.settings)
        self._storage = open_s3(s3_config(place.settings))
        self._version_id = put_in_service(model, database=self._database, storage=self._storage)
        self._contract = model.contract
        self._keys = keys
        self._servers = servers
        self._inspector = Inspector(place.settings)
        self._turns = 0
        self._job_id = 0

    def __enter__(self) -> Self:
        self.turn()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inspector.close()
        self._database.close()

    def turn(self, keys: Sequence[str] | None = None) -> Turn:
        """Inspect every image once.

        Args:
            keys: of the images; by default those given at first. A worker remembers for a while which masks it has
                stored, so that where storing counts a turn should have pictures of its own.
        """
        if keys is not None:
            self._keys = keys
        self._submit()
        used_before = cpu_s(os.getpid(), without=self._servers)
        began_at = perf_counter()
        concurrency = self._settings.worker.concurrency
        with ThreadPoolExecutor(concurrency) as tasks:
            for task in [tasks.submit(self._drain) for _ in range(concurrency)]:
                task.result()
        seconds = perf_counter() - began_at
        used = cpu_s(os.getpid(), without=self._servers) - used_before
        return Turn(seconds=seconds, cpu_s=used, versions={"onnxruntime-gpu": version("onnxruntime-gpu")})

    def _drain(self) -> None:
        while self._inspector.process_next_chunk():
            pass

    def _submit(self) -> None:
        """Submit a job at another threshold each time: a repeated one would find its results made already."""
        self._turns += 1
        images = tuple(
            SourceImage(name=f"{number:06}.jpg", uri=str(S3Uri(self._settings.storage.bucket, key)))
            for number, key in enumerate(self._keys)
        )
        request = JobRequest(
            source=ExplicitImages(images=images),
            # Differences of a millionth: none of 256 levels of probability lies between them but by accident.
            params=job_params(
                threshold=self._contract.threshold - self._turns * 1e-6, min_area_px=self._contract.min_area_px
            ),
            model_version_id=self._version_id,
        )
        self._job_id = submit_job(
            database=self._database,
            queue=MemoryQueue(),
            request=request,
            chunk_size=self._settings.inspection.chunk_size,
        )

    def variant(self) -> str:
        """Return which file of the model the last turn was done with: fp32 or int8."""
        with self._database.transaction() as session:
            found = session.scalars(
                select(Result.variant)
                .join(JobItem, JobItem.result_id == Result.id)
                .where(JobItem.job_id == self._job_id)
            )
            return " and ".join(sorted(set(found)))

    def masks(self) -> list[UInt8Array]:
        """Return the masks of the last turn, in the order of the images."""
        with self._database.transaction() as session:
            keys = session.scalars(
                select(Result.mask_key)
                .join(JobItem, JobItem.result_id == Result.id)
                .where(JobItem.job_id == self._job_id)
                .order_by(JobItem.name)
            ).all()
        if len(keys) != len(self._keys):
            raise RuntimeError(f"{len(keys)} of {len(self._keys)} images have a result.")
        return [decode_mask(self._storage.get(key)) for key in keys]
