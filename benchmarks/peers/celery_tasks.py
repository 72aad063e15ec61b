"""The Celery application of `celery_single`: one task, one image. Imported by its worker processes alone."""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery
from celery.signals import worker_process_init

from benchmarks.peers.steps import Work, decode, encode, fetch, open_s3, open_session, run_model, store

work = Work.from_json(os.environ["PEER_WORK"])
prefix = os.environ["PEER_KEY_PREFIX"]
app = Celery("peer", broker=os.environ["PEER_BROKER_URL"], set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    broker_transport_options={"global_keyprefix": prefix},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    # A model takes longer to load than a process is otherwise given to say that it lives.
    worker_proc_alive_timeout=120,
)
_parts: dict[str, Any] = {}


@worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _load(**_: object) -> None:
    # As many processes as cores: each has one to itself.
    _parts["session"] = open_session(work, threads=1)
    _parts["s3"] = open_s3(work)
    _parts["bell"] = redis.Redis.from_url(os.environ["PEER_BROKER_URL"])
    _parts["bell"].rpush(f"{prefix}ready", os.getpid())


@app.task(name="inspect")  # type: ignore[untyped-decorator]
def inspect(key: str) -> None:
    """Inspect one image and ring that it is done."""
    pixels, size_wh = decode(fetch(_parts["s3"], work, key), work.size_wh)
    (probabilities,) = run_model(_parts["session"], pixels[None])
    store(_parts["s3"], work, key, encode(probabilities, size_wh, threshold=work.threshold))
    _parts["bell"].rpush(f"{prefix}done", key)
