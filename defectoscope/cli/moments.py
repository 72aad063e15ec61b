"""Times as people read and write them: local, to the second; durations in the largest unit that fits."""

from __future__ import annotations

from datetime import datetime

import typer


def format_time(moment: str | None) -> str | None:
    """Return an ISO 8601 time in this machine's time zone, or None."""
    return None if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def read_moment(text: str) -> datetime:
    """Read an ISO 8601 time such as ``2026-11-23T02:00``; this machine's time zone unless it names another one.

    A date alone means its midnight. Of an hour that the clocks show twice the first one is meant.

    Raises:
        typer.BadParameter: it is no such time.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.astimezone()
    except (ValueError, OverflowError, OSError) as exc:
        raise typer.BadParameter(f"{text!r} is not a time such as 2026-11-23T02:00 or 2026-11-23T02:00+05:00") from exc


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Return how long it took, or None while either end is open."""
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def format_duration(seconds: float | None) -> str | None:
    """Return ``8.4 s``, ``3 min 12 s`` or ``2 h 5 min``."""
    if seconds is None:
        return None
    if seconds < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
