"""Works out where the lines, ticks and marks of a chart lie; the report's template draws them.

It refuses to draw a line through what is not a number: there the curve has a gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH_PX = 560
HEIGHT_PX = 240
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 52, 14, 22, 30
#: More points than pixels say nothing more; the last point and the marked one always stay.
_MOST_POINTS = 400
#: Up to this many epochs each point shows its figures when pointed at.
_MOST_SPOTS = 120
#: A loss that falls further than by this factor is drawn on a logarithmic axis.
_LOG_FROM = 50
_Y_TICKS, _X_TICKS = 5, 8

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve, in pixels of the chart.

    Attributes:
        label: what it shows.
        paths: connected pieces as SVG path data; gaps lie between them.
        spots: (x, y, text) of points that can be pointed at.
        marked: where it passes the marked epoch, if it does.
        marked_text: its value there, empty when there is none.
        last_text: its value in the last epoch.
    """

    label: str
    paths: tuple[str, ...]
    spots: tuple[tuple[float, float, str], ...]
    marked: Point | None
    marked_text: str
    last_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart, ready to be drawn.

    Attributes:
        title: what it is about.
        lines: the curves.
        x_ticks: (x, text).
        y_ticks: (y, text).
        marked_x: where the marked epoch is, None where it is not on the chart.
    """

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marked_x: float | None


def plot(
    title: str,
    labels: Mapping[str, str],
    epochs: Sequence[Mapping[str, Any]],
    *,
    marked_epoch: int | None,
    top: float | None = None,
    may_be_log: bool = False,
) -> Chart | None:
    """Lay out the figures that some names have in each epoch.

    Args:
        title: of the chart.
        labels: names of the figures, and what to call them.
        epochs: figures of each epoch in order, each with its number under ``epoch``; some may lack a name.
        marked_epoch: the epoch that stands out.
        top: upper end of the axis; else it follows from the values. The lower end is 0.
        may_be_log: whether values over several orders of magnitude get a logarithmic axis.

    Returns:
        The chart, or None when there is nothing to draw.
    """
    found = {
        label: [(int(figures["epoch"]), _number(figures.get(name))) for figures in epochs]
        for name, label in labels.items()
        if any(_number(figures.get(name)) is not None for figures in epochs)
    }
    if not found:
        return None
    numbers = [epoch for epoch, _ in next(iter(found.values()))]
    values = [value for points in found.values() for _, value in points if value is not None]
    is_log = may_be_log and min(values) > 0 and max(values) / min(values) >= _LOG_FROM
    ticks = _log_ticks(min(values), max(values)) if is_log else _ticks(0, max(values) if top is None else top, _Y_TICKS)
    lower, upper = ticks[0], max(ticks[-1], *values) if top is None else ticks[-1]
    x_of = _Axis(numbers[0], numbers[-1], LEFT_PX, WIDTH_PX - RIGHT_PX)
    y_of = _Axis(lower, upper, HEIGHT_PX - BOTTOM_PX, TOP_PX, is_log=is_log)
    return Chart(
        title=f"{title}, logarithmic" if is_log else title,
        lines=tuple(
            _line(label, points, x_of=x_of, y_of=y_of, marked_epoch=marked_epoch) for label, points in found.items()
        ),
        x_ticks=tuple((x_of(tick), f"{tick:g}") for tick in _whole_ticks(numbers[0], numbers[-1])),
        y_ticks=tuple((y_of(tick), f"{tick:.3g}") for tick in ticks),
        marked_x=x_of(marked_epoch) if marked_epoch in numbers else None,
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps a value to a pixel; a range of one value lies in the middle."""

    first: float
    last: float
    first_px: float
    last_px: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        first, last, place = (math.log(v) if self.is_log else v for v in (self.first, self.last, value))
        share = 0.5 if last == first else min(max((place - first) / (last - first), 0.0), 1.0)
        return round(self.first_px + share * (self.last_px - self.first_px), 1)


def _line(
    label: str,
    points: Sequence[tuple[int, float | None]],
    *,
    x_of: _Axis,
    y_of: _Axis,
    marked_epoch: int | None,
) -> Line:
    step = -(-len(points) // _MOST_POINTS)
    drawn = [
        point
        for place, point in enumerate(points)
        if place % step == 0 or place == len(points) - 1 or point[0] == marked_epoch
    ]
    pieces: list[list[Point]] = [[]]
    for epoch, value in drawn:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((x_of(epoch), y_of(value)))
    spots = [(x_of(epoch), y_of(value), f"epoch {epoch}: {value:.4g}") for epoch, value in drawn if value is not None]
    at_mark = next((value for epoch, value in points if epoch == marked_epoch), None)
    last = points[-1][1]
    return Line(
        label=label,
        # A piece of one point is drawn as a line to itself, which round ends make a dot.
        paths=tuple("M" + "L".join(f"{x:g} {y:g}" for x, y in [*piece, piece[-1]]) for piece in pieces if piece),
        spots=tuple(spots) if len(points) <= _MOST_SPOTS else (),
        marked=None if marked_epoch is None or at_mark is None else (x_of(marked_epoch), y_of(at_mark)),
        marked_text="" if at_mark is None else f"{at_mark:.4g}",
        last_text="" if last is None else f"{last:.4g}",
    )


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _ticks(lower: float, upper: float, count: int) -> list[float]:
    """Return round numbers from the lower end to the upper one or just beyond."""
    if upper <= lower:
        return [lower, lower + 1]
    rough = (upper - lower) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 5, 10) if power * part >= rough * (1 - 1e-9))
    return [lower + step * place for place in range(math.ceil((upper - lower) / step - 1e-9) + 1)]


def _whole_ticks(first: int, last: int) -> list[int]:
    step = max(1, round(_ticks(0, max(last - first, 1), _X_TICKS)[1]))
    ticks = list(range(-(-first // step) * step, last + 1, step))
    return ticks if first in ticks or ticks[0] - first < step / 2 else [first, *ticks]


def _log_ticks(lower: float, upper: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(lower)), math.ceil(math.log10(upper)) + 1)]
