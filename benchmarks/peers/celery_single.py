"""Celery with one image a task: as many worker processes as cores, each with the model on one thread, no batches.

Processes and not threads: a model that runs one image at a time fills one core better than it fills two, and the rest
of the task then runs beside it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
from celery import Celery

from benchmarks.peers.steps import Work, take_part

_READY_S = 180
_DONE_S = 600


@contextmanager
def prepare(work: Work) -> Iterator[Callable[[], None]]:
    """Start the worker; see `benchmarks.peers.steps.Prepare`. ``PEER_BROKER_URL`` says where the broker is."""
    prefix = f"peer-{secrets.token_hex(4)}:"
    url = os.environ["PEER_BROKER_URL"]
    bell = redis.Redis.from_url(url)
    app = Celery("sender", broker=url, set_as_current=False)
    app.conf.update(broker_transport_options={"global_keyprefix": prefix})
    environment = {**os.environ, "PEER_WORK": work.to_json(), "PEER_KEY_PREFIX": prefix}
    worker = subprocess.Popen(  # noqa: S603 -- our own interpreter
        [
            *(sys.executable, "-m", "celery", "--quiet", "-A", "benchmarks.peers.celery_tasks", "worker"),
            *("--pool", "prefork", "--concurrency", str(work.threads), "--loglevel", "warning"),
            *("--without-mingle", "--without-gossip", "--without-heartbeat"),
        ],
        env=environment,
    )

    def inspect(keys: tuple[str, ...]) -> None:
        with app.producer_or_acquire() as producer:
            for key in keys:
                app.send_task("inspect", args=(key,), producer=producer)
        for _ in keys:
            _wait(bell, f"{prefix}done", timeout_s=_DONE_S)

    try:
        for _ in range(work.threads):
            _wait(bell, f"{prefix}ready", timeout_s=_READY_S)
        inspect(work.warm_up_keys)
        yield lambda: inspect(work.keys)
    finally:
        worker.terminate()
        worker.wait()
        for name in bell.scan_iter(f"{prefix}*"):
            bell.delete(name)
        app.close()
        bell.close()


def _wait(bell: redis.Redis, name: str, *, timeout_s: int) -> None:
    if bell.blpop([name], timeout=timeout_s) is None:
        raise TimeoutError(f"Nothing on {name} within {timeout_s} s.")


if __name__ == "__main__":
    take_part(prepare, packages=("celery", "onnxruntime", "onnxruntime-gpu", "pillow", "boto3", "numpy"))
