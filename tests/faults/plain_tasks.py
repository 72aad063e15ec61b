"""The Celery application of `plain_celery`: one task, one image, one row. Imported by its worker processes alone.

It is what the documentation of Celery advises for work that must not be lost: late acknowledgement, rejection when the
worker is lost, and retries for as long as a server is away.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from celery import Celery
from celery.signals import worker_process_init

from benchmarks.peers.steps import Work, decode, encode, fetch, open_s3, open_session, run_model, store

work = Work.from_json(os.environ["PLAIN_WORK"])
app = Celery("plain", broker=os.environ["PLAIN_BROKER_URL"], set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "global_keyprefix": os.environ["PLAIN_KEY_PREFIX"],
        "visibility_timeout": int(os.environ["PLAIN_VISIBILITY_TIMEOUT_S"]),
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "health_check_interval": 10,
        "socket_timeout": 30,
    },
    worker_hijack_root_logger=False,
    worker_proc_alive_timeout=120,
)
_parts: dict[str, Any] = {}


@worker_process_init.connect(weak=False)
def _load(**_):
    _parts["session"] = open_session(work, threads=1)
    _parts["s3"] = open_s3(work)


@app.task(
    name="inspect",
    autoretry_for=(psycopg.OperationalError, BotoCoreError, ClientError),
    max_retries=None,
    default_retry_delay=1,
)
def inspect(name):
    """Fetch, decode, segment, store, write a row."""
    pixels, size_wh = decode(fetch(_parts["s3"], work, name.partition("#")[0]), work.size_wh)
    (probabilities,) = run_model(_parts["session"], pixels[None])
    png = encode(probabilities, size_wh, threshold=work.threshold)
    store(_parts["s3"], work, name, png)
    with psycopg.connect(os.environ["PLAIN_DATABASE_URL"], connect_timeout=5) as connection:
        connection.execute(
            "INSERT INTO plain_results (name, mask_sha256) VALUES (%s, %s)", (name, hashlib.sha256(png).hexdigest())
        )
