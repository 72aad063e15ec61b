"""What a line of the log carries, in the form that collectors read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from structlog.contextvars import bound_contextvars, get_contextvars

from defectoscope.access.tokens import Token, make_secret
from defectoscope.logs import carrying, without_secrets

#: In a process of its own: the configuration of logs is one for a whole process.
_PROGRAM = """
import logging
from concurrent.futures import ThreadPoolExecutor
import structlog
from structlog.contextvars import bound_contextvars
from defectoscope.errors.images import ImageEmpty
from defectoscope.logs import carrying, configure_logs

configure_logs(level="info", form="{form}", service="worker")
log = structlog.get_logger("worker.pipeline")

def fail(name):
    with bound_contextvars(item=9, image=name):
        log.warning("image.failed", code=ImageEmpty.code)
        logging.getLogger("a.library").warning("a remark of a library")

with bound_contextvars(job=3, chunk=7), ThreadPoolExecutor(1) as pool:
    pool.submit(carrying(fail), "a.png").result()
    log.info("chunk.completed")
log.info("worker.idle")
"""


def run(form):
    program = _PROGRAM.format(form=form)
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_the_ids_are_fields_of_every_line_of_the_json_form():
    failed, remark, completed, idle = (json.loads(line) for line in run("json"))

    assert failed.pop("timestamp").endswith("Z")
    assert failed == {
        "event": "image.failed",
        "level": "warning",
        "service": "worker",
        "job": 3,
        "chunk": 7,
        "item": 9,
        "image": "a.png",
        "code": "image_empty",
    }
    ids = {"job": 3, "chunk": 7, "item": 9, "image": "a.png"}
    assert remark["event"] == "a remark of a library"
    assert ids.items() <= remark.items()
    assert (completed["job"], completed["chunk"]) == (3, 7)
    assert ids.keys() & completed.keys() == {"job", "chunk"}
    assert ids.keys() & idle.keys() == set()


def test_the_ids_stand_in_every_line_for_people_too():
    failed, _, completed, idle = run("console")

    assert all(pair in failed for pair in ("job=3", "chunk=7", "item=9", "image=a.png"))
    assert "image=" not in completed
    assert "job=" not in idle


def test_a_thread_has_the_ids_only_when_it_carries_them():
    with bound_contextvars(job=1), ThreadPoolExecutor(1) as pool:
        carried = pool.submit(carrying(get_contextvars)).result()
        bare = pool.submit(get_contextvars).result()

    assert (carried, bare) == ({"job": 1}, {})


def test_one_function_carries_for_many_threads_at_once():
    meeting = threading.Barrier(3, timeout=10)

    def look(item):
        with bound_contextvars(item=item):
            meeting.wait()
            return get_contextvars()

    with bound_contextvars(job=1):
        act = carrying(look)
    with ThreadPoolExecutor(3) as pool:
        seen = list(pool.map(act, range(3)))

    assert seen == [{"job": 1, "item": number} for number in range(3)]
    assert structlog.contextvars.get_contextvars() == {}


def test_what_is_bound_later_is_not_carried():
    with bound_contextvars(job=1):
        act = carrying(get_contextvars)
        with bound_contextvars(chunk=2):
            assert act() == {"job": 1}


_TELLING_PROGRAM = """
import logging
import structlog
from defectoscope.logs import configure_logs

configure_logs(level="info", form="{form}", service="api")
token, address = "{token}", "{address}"
log = structlog.get_logger("api")
log.info("http.request", path="/v1/jobs/" + token, about=dict(url=address))
logging.getLogger("a.library").warning("cannot reach %s with %s", address, token)
try:
    raise ValueError(token + " " + address)
except ValueError:
    log.exception("http.unexpected")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_that_can_be_told_by_its_form_is_not_written_down_by_whomever(form):
    token = Token(7, make_secret())
    address = "postgresql+psycopg://ann:hunter2@db:5432/defectoscope"
    program = _TELLING_PROGRAM.format(form=form, token=token.text, address=address)

    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert done.stdout.count("dsk_7_***") >= 3
    assert done.stdout.count("ann:***@db") >= 3
    assert token.secret not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param("redis://:hunter2@valkey:6379/0", "redis://:***@valkey:6379/0", id="a password without a user"),
        pytest.param("http://127.0.0.1:8000/a@b", "http://127.0.0.1:8000/a@b", id="an address without a password"),
        pytest.param("see line 7: ann@example.org", "see line 7: ann@example.org", id="a letter box"),
        pytest.param("dsk_7_", "dsk_7_", id="no token"),
    ],
)
def test_only_secrets_are_replaced(text, written):
    assert without_secrets(text) == written
