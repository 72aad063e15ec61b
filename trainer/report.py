"""A page about one training run: curves, figures and validation images, in a single HTML file that needs nothing else.

It runs no script and asks for no outside resource, so it can be kept, mailed and opened years later. Names of images
are what people typed: everything on the page is escaped. It computes no figure itself.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trainer import curves
from trainer.overlays import LABEL_RGB, PREDICTION_RGB, ValidationOverlay

_TEMPLATE = "report.html.j2"
_RANKS = {
    "worst": "Worst, by IoU of the defect",
    "between": "In between, evenly spread",
    "best": "Best",
}
#: Longer lists end with a count of what was left out.
_MOST_ROWS = 60
_MOST_ITEMS = 12
_ABBREVIATIONS = {"iou": "IoU", "dice": "Dice", "wh": "(width, height)"}
_UNITS = {"s": "s", "px": "px", "bytes": "bytes", "seconds": "seconds"}


@dataclass(frozen=True, slots=True)
class _Table:
    heading: str
    columns: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    left_out: int = 0


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    recipe: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any],
    overlays: Sequence[ValidationOverlay] = (),
) -> None:
    """Write the page, complete or not at all.

    Args:
        path: the file; its directory exists.
        title: of the page, such as ``Training run 12``.
        facts: what the run is, by name, such as the dataset revision; JSON-ready.
        recipe: every field of the training's configuration; JSON-ready.
        epochs: figures of each epoch in order, each with its number under ``epoch``.
        figures: what the run found, as its observer was told: single values join the facts, objects become tables,
            such as ``validation``, ``variants``, ``operating_point`` and ``gate``; ``best_epoch`` is marked.
        overlays: from `trainer.overlays.draw_overlays`.
    """
    page = render_report(title=title, facts=facts, recipe=recipe, epochs=epochs, figures=figures, overlays=overlays)
    partial = path.with_name(f"{path.name}.partial")
    # A file name that is not UTF-8 reaches us with lone surrogates, which no encoding takes as they are.
    partial.write_bytes(page.encode("utf-8", errors="backslashreplace"))
    partial.replace(path)


def render_report(
    *,
    title: str,
    facts: Mapping[str, Any],
    recipe: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any],
    overlays: Sequence[ValidationOverlay] = (),
) -> str:
    """Return the page as text; the arguments are those of `write_report`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"show": _show, "words": _words, "data_uri": _data_uri}
    best_epoch = figures.get("best_epoch")
    single = {name: value for name, value in figures.items() if not isinstance(value, Mapping | list | tuple)}
    return environment.get_template(_TEMPLATE).render(
        title=title,
        tiles=_tiles(figures),
        facts=_Table("Facts", rows=_rows({**facts, **single})),
        charts=_charts(epochs, best_epoch=best_epoch if isinstance(best_epoch, int) else None),
        best_epoch=best_epoch,
        canvas=curves,
        overlays=overlays,
        pictures=[
            (heading, [overlay for overlay in overlays if overlay.rank == rank]) for rank, heading in _RANKS.items()
        ],
        colours={"label": LABEL_RGB, "prediction": PREDICTION_RGB},
        tables=[
            table
            for name, value in figures.items()
            if isinstance(value, Mapping | list | tuple) and value
            for table in _tables(_words(name), value)
        ],
        recipe=_Table("Recipe", rows=_rows(recipe)),
        epochs=_grid("Epochs", epochs, most_rows=len(epochs)),
    )


def _charts(epochs: Sequence[Mapping[str, Any]], *, best_epoch: int | None) -> list[curves.Chart]:
    wanted = [
        curves.plot(
            "Loss",
            {"train_loss": "training", "val_loss": "validation"},
            epochs,
            marked_epoch=best_epoch,
            may_be_log=True,
        ),
        curves.plot(
            "Validation scores",
            {
                "val_iou_best": "IoU of the defect at its best threshold",
                "val_iou_defect": "at the recipe's",
                "val_dice": "Dice",
            },
            epochs,
            marked_epoch=best_epoch,
            top=1.0,
        ),
        curves.plot("Learning rate", {"learning_rate": "learning rate"}, epochs, marked_epoch=best_epoch),
        curves.plot("Speed", {"images_per_s": "training images a second"}, epochs, marked_epoch=best_epoch),
    ]
    return [chart for chart in wanted if chart is not None]


def _tiles(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the few figures that people look for first, as (figure, what it is)."""
    tiles = [
        (f"{scores['iou_defect']:.3f}", f"IoU of the defect, {words}")
        for kind, words in (("pooled", "all validation pixels"), ("mean", "mean of the images"))
        if "iou_defect" in (scores := figures.get("validation", {}).get(kind, {}))
    ]
    for names, words in (
        (("train_images", "val_images"), "training and validation images"),
        (("best_epoch", "epochs_run"), "best epoch, of all that were run"),
    ):
        if all(name in figures for name in names):
            tiles.append((" / ".join(_show(figures[name]) for name in names), words))
    if "training_seconds" in figures:
        minutes, seconds = divmod(round(figures["training_seconds"]), 60)
        tiles.append((f"{minutes} min {seconds} s" if minutes else f"{seconds} s", "of training"))
    return tiles


def _tables(heading: str, value: Any) -> list[_Table]:
    """Turn a JSON value into tables: single values into rows, what has several of the same figures into grids."""
    if not isinstance(value, Mapping):
        if all(isinstance(item, Mapping) for item in value):
            return [_grid(heading, value)]
        return [_Table(heading, rows=[("", _show(value))])]
    lists = {
        name: item
        for name, item in value.items()
        if isinstance(item, list | tuple) and item and all(isinstance(row, Mapping) for row in item)
    }
    alike = _alike(value)
    plain = _rows({name: item for name, item in value.items() if name not in lists and name not in alike})
    tables = [_Table(heading, rows=plain)] if plain else []
    if alike:
        figures = dict.fromkeys(name for item in alike.values() for name in item)
        words = heading if not plain else f"{heading}: {', '.join(_words(name, first=False) for name in alike)}"
        rows = [(_words(figure), *(_show(item.get(figure)) for item in alike.values())) for figure in figures]
        tables.append(_Table(words, ("", *(_words(name) for name in alike)), rows))
    return tables + [_grid(f"{heading}: {_words(name, first=False)}", item) for name, item in lists.items()]


def _alike(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the flat objects among the values when there are several and they share a figure, such as intervals."""
    flat = {
        name: item
        for name, item in values.items()
        if isinstance(item, Mapping) and item and not any(isinstance(part, Mapping | list) for part in item.values())
    }
    return flat if len(flat) > 1 and set.intersection(*(set(item) for item in flat.values())) else {}


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, value in values.items():
        words = f"{prefix}, {_words(name, first=False)}" if prefix else _words(name)
        if isinstance(value, Mapping) and value:
            rows += _rows(value, words)
        else:
            rows.append((words, _show(value)))
    return rows


def _grid(heading: str, items: Sequence[Mapping[str, Any]], *, most_rows: int = _MOST_ROWS) -> _Table:
    columns = list(dict.fromkeys(str(name) for item in items for name in item))
    rows = [tuple(_show(item.get(name)) for name in columns) for item in items[:most_rows]]
    return _Table(heading, tuple(_words(name) for name in columns), rows, max(0, len(items) - most_rows))


def _show(value: Any) -> str:
    """Write a JSON value as a person would."""
    if value is None:
        return "–"  # noqa: RUF001 -- a dash stands for nothing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else "not a number"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(name, first=False)} {_show(item)}" for name, item in value.items()) or "–"  # noqa: RUF001
    if isinstance(value, list | tuple):
        shown = ", ".join(_show(item) for item in value[:_MOST_ITEMS])
        return f"{shown} and {len(value) - _MOST_ITEMS} more" if len(value) > _MOST_ITEMS else shown or "none"
    return str(value)


def _words(name: Any, *, first: bool = True) -> str:
    """Turn the name of a figure into words: ``val_iou_defect`` into ``Val IoU defect``, ``time_s`` into ``Time, s``."""
    parts = str(name).split("_")
    unit = f", {_UNITS[parts.pop()]}" if len(parts) > 1 and parts[-1] in _UNITS else ""
    words = " ".join(_ABBREVIATIONS.get(part, part) for part in parts)
    return (words[:1].upper() + words[1:] if first else words) + unit


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
