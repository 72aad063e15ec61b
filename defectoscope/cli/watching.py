"""Asks again and again until something has ended, patient with an API that is away for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from defectoscope.cli.output import note
from defectoscope.errors import NotNow

T = TypeVar("T")

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 2.0
#: An API that restarts is back within this time; the work goes on meanwhile.
_PATIENCE_S = 90.0


def watch_until(fetch: Callable[[], T], *, is_over: Callable[[T], bool], show: Callable[[T], None]) -> T:
    """Fetch and show until it is over.

    Args:
        fetch: gets the present state.
        is_over: whether a state is the last one.
        show: called with every state.

    Returns:
        The last state.

    Raises:
        NotNow: the API has been away for longer than a restart takes.
    """
    pause_s = _FIRST_PAUSE_S
    away_since: float | None = None
    while True:
        try:
            state = fetch()
        except NotNow as exc:
            now = time.monotonic()
            if away_since is None:
                away_since = now
                note(f"{exc.message} Waiting for it.")
            elif now - away_since > _PATIENCE_S:
                raise
        else:
            away_since = None
            show(state)
            if is_over(state):
                return state
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, _LONGEST_PAUSE_S)
