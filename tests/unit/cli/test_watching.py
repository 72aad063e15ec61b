from __future__ import annotations

import pytest

from defectoscope.cli.watching import watch_until
from defectoscope.errors.api import ApiUnavailable
from defectoscope.errors.jobs import JobNotFound


def script(*steps):
    """A fetch that gives, or raises, one step after the other."""
    waiting = iter(steps)

    def fetch():
        step = next(waiting)
        if isinstance(step, Exception):
            raise step
        return step

    return fetch


def test_every_state_is_shown_until_the_last_one():
    shown = []

    last = watch_until(script("pending", "running", "succeeded"), is_over="succeeded".__eq__, show=shown.append)

    assert last == "succeeded"
    assert shown == ["pending", "running", "succeeded"]


def test_an_api_that_restarts_is_waited_for_with_one_remark(capsys):
    away = ApiUnavailable("The API does not answer.")

    last = watch_until(script("running", away, away, "succeeded"), is_over="succeeded".__eq__, show=lambda _: None)

    assert last == "succeeded"
    assert capsys.readouterr().err == "The API does not answer. Waiting for it.\n"


def test_an_error_that_waiting_cannot_help_ends_the_watch():
    with pytest.raises(JobNotFound):
        watch_until(script("running", JobNotFound()), is_over="succeeded".__eq__, show=lambda _: None)
