"""The way of a chunk through the worker: fetched ahead, each image then carried by a thread through all of its steps.

The steps of different images overlap, and so do those of different chunks: the lane alone decides what runs together.
Nothing waits for the slowest image. What is in work is bounded by bytes; what is fetched ahead, by bytes and by number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import structlog

from defectoscope.database import Database
from defectoscope.errors.jobs import ImageQuarantined
from defectoscope.inspection.chunks import ClaimedChunk, ClaimedItem, KnownResult, find_known_results
from defectoscope.inspection.completion import ItemOutcome
from defectoscope.inspection.quarantine import note_suspect
from defectoscope.logs import carrying
from worker.log_context import about_image
from worker.memory import ByteBudget
from worker.models import LoadedModel
from worker.steps import FetchedImage, ImageSteps, NoLongerWanted

log = structlog.get_logger(__name__)

#: Files fetched ahead by one chunk may take this much; beyond it only those under way are still awaited.
_AHEAD_BYTES = 64 * 2**20

_Fetched = FetchedImage | ItemOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Everything a chunk needs on its way.

    Attributes:
        database: asked for results that exist already.
        steps: what is done with an image.
        fetchers: threads that fetch.
        carriers: threads that each carry an image from its decoding to its storing; most of them wait for the lane.
        budget: of the memory of all images in work.
        group_size: images that are looked up at once; twice as many are fetched ahead.
    """

    database: Database
    steps: ImageSteps
    fetchers: ThreadPoolExecutor
    carriers: ThreadPoolExecutor
    budget: ByteBudget
    group_size: int

    def process(self, chunk: ClaimedChunk, *, model: LoadedModel, is_wanted: Callable[[], bool]) -> list[ItemOutcome]:
        """Inspect the images of a chunk; stop between two images when the chunk is no longer wanted.

        Args:
            chunk: as claimed.
            model: the model version that the chunk's job is pinned to.
            is_wanted: asked before every image.

        Returns:
            One outcome for each image that was looked at.

        Raises:
            StorageUnavailable, DatabaseUnavailable: the chunk should be tried again later.
            DeviceLost: it should be tried by another process.
        """
        outcomes: list[ItemOutcome] = []
        carried: list[Future[ItemOutcome | None]] = []
        for group in self._fetch_groups(chunk):
            if not is_wanted():
                break
            images = [entry for entry in group if isinstance(entry, FetchedImage)]
            outcomes += [entry for entry in group if isinstance(entry, ItemOutcome)]
            known = find_known_results(
                database=self.database, chunk=chunk, image_sha256s=[image.sha256 for image in images]
            )
            for image in images:
                # Waits here, in the chunk's own thread, so that the threads that give memory back are never held up.
                self.budget.take(image.size_bytes)
                carried.append(
                    self.carriers.submit(
                        carrying(self._carry), chunk, image, known.get(image.sha256), model=model, is_wanted=is_wanted
                    )
                )
        return outcomes + [outcome for future in carried if (outcome := future.result()) is not None]

    def _fetch_groups(self, chunk: ClaimedChunk) -> Iterator[list[_Fetched]]:
        """Yield images as they come, whatever their order, a group at a time."""
        remaining = deque(chunk.items)
        done: SimpleQueue[Future[_Fetched]] = SimpleQueue()
        ready: list[_Fetched] = []
        under_way = ahead_bytes = 0
        while remaining or under_way or ready:
            while remaining and under_way + len(ready) < 2 * self.group_size and ahead_bytes < _AHEAD_BYTES:
                self.fetchers.submit(carrying(self._fetch), chunk, remaining.popleft()).add_done_callback(done.put)
                under_way += 1
            if under_way:
                fetched = done.get().result()
                under_way -= 1
                ready.append(fetched)
                ahead_bytes += fetched.file_bytes if isinstance(fetched, FetchedImage) else 0
            if len(ready) >= self.group_size or not under_way or ahead_bytes >= _AHEAD_BYTES:
                yield ready
                ready, ahead_bytes = [], 0

    def _fetch(self, chunk: ClaimedChunk, item: ClaimedItem) -> _Fetched:
        def on_read(sha256: str) -> None:
            if sha256 in chunk.quarantined_sha256s:
                raise ImageQuarantined
            if chunk.is_suspect:
                note_suspect(database=self.database, chunk=chunk, sha256=sha256)

        with about_image(item):
            if item.is_quarantined:
                fetched: _Fetched = ItemOutcome(item_id=item.item_id, error=ImageQuarantined())
            else:
                fetched = self.steps.fetch(item, on_read=on_read)
            if isinstance(fetched, ItemOutcome):
                _tell_failure(fetched)
            return fetched

    def _carry(
        self,
        chunk: ClaimedChunk,
        image: FetchedImage,
        known: KnownResult | None,
        *,
        model: LoadedModel,
        is_wanted: Callable[[], bool],
    ) -> ItemOutcome | None:
        with about_image(image.item):
            try:
                if not is_wanted():
                    return None
                if known is not None:
                    outcome = self.steps.score_known(image, known)
                else:
                    outcome = self.steps.inspect(chunk, image, model=model, is_wanted=is_wanted)
            except NoLongerWanted:
                return None
            finally:
                self.budget.give_back(image.size_bytes)
            _tell_failure(outcome)
            return outcome


def _tell_failure(outcome: ItemOutcome) -> None:
    """Log what went wrong with one image or its label, if anything did."""
    for event, error in (("image.failed", outcome.error), ("label.failed", outcome.label_error)):
        if error is not None:
            log.warning(event, code=error.code, reason=error.message)
