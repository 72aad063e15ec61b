"""The lane: the one thread that calls the model, with whatever images wait, whichever chunk they belong to.

Images of one model version that wait together go together, up to its batch size. Only an idle lane waits for company,
and only a moment. A batch that fails is tried image by image, so that one image fails alone. Whatever happens, whoever
waits gets an answer.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic

import structlog

from defectoscope.errors.engine import DeviceLost, EngineFailed, EngineOutOfMemory
from defectoscope.segmentation import UInt8Array
from worker import metrics
from worker.engine import OnnxEngine

log = structlog.get_logger(__name__)

#: How long an idle lane waits for more images before it takes what it has, seconds.
LINGER_S = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutput:
    """What the model said of one image: (h, w) uint8, 255 = certain defect, and its share of the call."""

    probabilities: UInt8Array
    latency_ms: float


@dataclass(frozen=True, slots=True)
class _Request:
    """An image that waits; without one, the engine is warmed."""

    engine: OnnxEngine
    image: UInt8Array | None
    is_wanted: Callable[[], bool] = lambda: True
    done: Future[ModelOutput | None] = field(default_factory=Future)


class Lane:
    """Runs the models of one device, one batch at a time."""

    def __init__(self, *, linger_s: float = LINGER_S, on_lost: Callable[[DeviceLost], None]) -> None:
        """Prepare; the thread begins with the first image.

        Args:
            linger_s: how long an idle lane waits for company, seconds.
            on_lost: called, once, from the lane's thread, when the device has failed for good.
        """
        self._linger_s = linger_s
        self._on_lost = on_lost
        self._waiting: deque[_Request] = deque()
        self._changed = Condition()
        self._thread: Thread | None = None
        self._ended = False
        self._lost: DeviceLost | None = None
        self._busy_since: float | None = None

    def submit(
        self, engine: OnnxEngine, image: UInt8Array, *, is_wanted: Callable[[], bool] | None = None
    ) -> Future[ModelOutput | None]:
        """Have an image run through a model.

        Args:
            engine: the model.
            image: (h, w, 3) uint8 RGB of its input size; it must not change before the future is done.
            is_wanted: asked before every batch while the image waits, so it must be quick; False takes the image out.

        Returns:
            The output, or the error `OnnxEngine.run` raises; cancelled when the image was taken out.
        """
        return self._enter(_Request(engine, image) if is_wanted is None else _Request(engine, image, is_wanted))

    def warm(self, engine: OnnxEngine) -> Future[ModelOutput | None]:
        """Have every batch size of a model run once; the future holds None, or the error."""
        return self._enter(_Request(engine, None))

    @property
    def busy_s(self) -> float:
        """How long the present call of the model has lasted, seconds; 0 between two calls."""
        since = self._busy_since
        return 0.0 if since is None else monotonic() - since

    def end(self) -> None:
        """Run what waits and let the thread go; nothing may be submitted afterwards."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _enter(self, request: _Request) -> Future[ModelOutput | None]:
        with self._changed:
            if self._lost is not None:
                request.done.set_exception(self._lost)
                return request.done
            if self._thread is None:
                self._begin()
            self._waiting.append(request)
            metrics.waiting_images.set(len(self._waiting))
            self._changed.notify()
        return request.done

    def _begin(self) -> None:
        self._thread = Thread(target=self._serve, name="lane", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        was_idle = True
        while batch := self._take(was_idle=was_idle):
            was_idle = False
            self._busy_since = monotonic()
            try:
                self._run(batch)
            except DeviceLost as exc:
                self._lose(batch, exc)
                return
            finally:
                metrics.lane_busy_seconds_total.inc(self.busy_s)
                self._busy_since = None
                self._hand_over(batch)

    def _take(self, *, was_idle: bool) -> list[_Request]:
        """Wait for images and return a batch of one engine; nothing when the lane is to end."""
        with self._changed:
            while True:
                if was_idle or not self._waiting:
                    self._changed.wait_for(lambda: self._waiting or self._ended)
                    self._linger()
                self._take_out_unwanted()
                if self._waiting:
                    break
                if self._ended:
                    return []
            first = self._waiting[0]
            if first.image is None:
                return [self._waiting.popleft()]
            same = [
                request for request in self._waiting if request.engine is first.engine and request.image is not None
            ]
            batch = same[: first.engine.fit(len(same))]
            taken = set(map(id, batch))
            self._waiting = deque(request for request in self._waiting if id(request) not in taken)
            metrics.waiting_images.set(len(self._waiting))
            return batch

    def _take_out_unwanted(self) -> None:
        asked = [(request, request.is_wanted()) for request in self._waiting]
        self._waiting = deque(request for request, is_wanted in asked if is_wanted)
        for request, is_wanted in asked:
            if not is_wanted:
                request.done.cancel()

    def _linger(self) -> None:
        deadline = monotonic() + self._linger_s
        while self._waiting and len(self._waiting) < self._waiting[0].engine.batch_size and not self._ended:
            remaining = deadline - monotonic()
            if remaining <= 0 or not self._changed.wait(remaining):
                return

    def _run(self, batch: list[_Request]) -> None:
        """Answer every request of a batch.

        Raises:
            DeviceLost: they are not answered.
        """
        engine = batch[0].engine
        images = [request.image for request in batch if request.image is not None]
        try:
            if not images:
                engine.warm()
                batch[0].done.set_result(None)
                return
            outputs, seconds = engine.run(images)
        except DeviceLost:
            raise
        except EngineFailed as exc:
            self._run_in_parts(batch, exc)
            return
        metrics.batch_fill.observe(len(batch) / engine.batch_size)
        metrics.stage_seconds.labels("model").observe(seconds)
        latency_ms = seconds * 1000 / len(batch)
        for request, probabilities in zip(batch, outputs, strict=True):
            request.done.set_result(ModelOutput(probabilities=probabilities, latency_ms=latency_ms))

    def _run_in_parts(self, batch: list[_Request], exc: EngineFailed) -> None:
        if len(batch) == 1:
            batch[0].done.set_exception(exc)
            return
        log.warning("batch.divided", images=len(batch), code=exc.code, reason=exc.message)
        # Memory may do for half of them; any other failure may be one image's.
        size = max(1, len(batch) // 2) if isinstance(exc, EngineOutOfMemory) else 1
        for start in range(0, len(batch), size):
            self._run(batch[start : start + size])

    def _hand_over(self, batch: list[_Request]) -> None:
        """Answer what is left of a batch with the error on its way up: it ends this thread, and another one goes on."""
        if all(request.done.done() for request in batch):
            return
        _refuse(batch, sys.exc_info()[1])
        with self._changed:
            self._thread = None
            if self._waiting:
                self._begin()

    def _lose(self, batch: list[_Request], exc: DeviceLost) -> None:
        with self._changed:
            self._lost = exc
            waiting, self._waiting = self._waiting, deque()
        _refuse((*batch, *waiting), exc)
        self._on_lost(exc)


def _refuse(requests: Iterable[_Request], error: BaseException | None) -> None:
    """Answer those that have no answer yet with an error."""
    for request in requests:
        if not request.done.done():
            request.done.set_exception(error)
