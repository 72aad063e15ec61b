"""Ray Data: one stream that fetches, runs the model in an actor class of `map_batches`, and stores.

The actor is made anew with each execution, so the timed execution is built and its actor loaded before the clock
starts; the actor then waits for a file, and the stream for the actor.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray  # type: ignore[import-not-found]

from benchmarks.peers.steps import Work, decode, encode, fetch, open_s3, open_session, run_model, store, take_part

_READY_S = 180
_POLL_S = 0.002
_TASKS_AT_ONCE = 3
_BATCHES_PER_BLOCK = 2
#: Requests to the storage that one task has under way.
_REQUESTS = 4


class Model:
    """Fetches, infers and stores a batch; the threads of the actor have several batches under way."""

    def __init__(self, work: Work, gate: str) -> None:
        """Load the model, say so, and wait until the gate is opened."""
        self._work = work
        self._s3 = open_s3(work, connections=4 * _REQUESTS)
        self._session = open_session(work, threads=work.threads)
        self._pool = ThreadPoolExecutor(2 * _REQUESTS)
        width, height = work.size_wh
        run_model(self._session, np.zeros((work.batch_size, height, width, 3), dtype=np.uint8))
        Path(f"{gate}.ready").touch()
        while not Path(gate).exists():
            time.sleep(_POLL_S)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Inspect a batch of keys."""
        keys = [str(key) for key in batch["key"]]
        images = list(self._pool.map(lambda key: decode(fetch(self._s3, self._work, key), self._work.size_wh), keys))
        probabilities = run_model(self._session, np.stack([pixels for pixels, _ in images]))
        list(self._pool.map(self._store, keys, probabilities, [size_wh for _, size_wh in images]))
        return {"key": batch["key"]}

    def _store(self, key: str, probabilities: Any, size_wh: tuple[int, int]) -> None:
        store(self._s3, self._work, key, encode(probabilities, size_wh, threshold=self._work.threshold))


def _inspect(work: Work, keys: tuple[str, ...], gate: Path) -> None:
    # A task takes a block and makes batches of it; more tasks are more scheduling, fewer would not overlap.
    blocks = max(_TASKS_AT_ONCE, len(keys) // (work.batch_size * _BATCHES_PER_BLOCK))
    source = ray.data.from_items([{"key": key} for key in keys], override_num_blocks=blocks)
    done = source.map_batches(
        Model,
        fn_constructor_args=(work, str(gate)),
        batch_size=work.batch_size,
        compute=ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=4),
        num_cpus=1,
        # Several batches in the actor at once: one in the model, the others at the storage.
        max_concurrency=_TASKS_AT_ONCE,
    )
    count = sum(len(batch["key"]) for batch in done.iter_batches(batch_size=None))
    if count != len(keys):
        raise RuntimeError(f"{count} of {len(keys)} images came out.")


@contextmanager
def prepare(work: Work) -> Iterator[Callable[[], None]]:
    """Start Ray; see `benchmarks.peers.steps.Prepare`."""
    # Sockets lie in it, whose paths may not be long.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        ray.init(num_cpus=work.threads, include_dashboard=False, log_to_driver=False, _temp_dir=scratch)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.wait_for_min_actors_s = _READY_S
        warm, gate = Path(scratch) / "warm", Path(scratch) / "gate"
        warm.touch()
        try:
            _inspect(work, work.warm_up_keys, warm)
            with ThreadPoolExecutor(1) as stream:
                running = stream.submit(_inspect, work, work.keys, gate)
                try:
                    _wait_for(gate.with_name("gate.ready"), running)
                    yield lambda: _open(gate, running)
                finally:
                    # Whoever leaves without a start must not leave the actor waiting.
                    gate.touch()
        finally:
            ray.shutdown()


def _open(gate: Path, running: Any) -> None:
    gate.touch()
    running.result()


def _wait_for(path: Path, running: Any) -> None:
    deadline = time.monotonic() + _READY_S
    while not path.exists():
        if running.done():
            running.result()
        if time.monotonic() > deadline:
            raise TimeoutError(f"The actor was not ready within {_READY_S} s.")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    take_part(prepare, packages=("ray", "onnxruntime", "pillow", "boto3", "numpy"))
