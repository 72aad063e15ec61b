"""What commands print: tables and facts for people, JSON for programs, progress on standard error.

Standard output carries the answer and nothing else. Text from files and servers is never read as markup, and control
characters in it never reach the terminal.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Cell = str | int | float | Text | None
Justify = Literal["left", "right"]

#: A table that goes to a file or a pipe is as wide as its content, so that nothing is cut off.
_UNBOUNDED_WIDTH = 100_000
#: Without a terminal, progress is a line now and then.
_FIRST_LINE_AFTER_S = 3.0
_LINE_EVERY_S = 15.0

_STATE_STYLES = {
    "succeeded": "green",
    "passed": "green",
    "ok": "green",
    "clean": "green",
    "running": "cyan",
    "pending": "dim",
    "partial": "yellow",
    "defective": "yellow",
    "cancelled": "yellow",
    "failed": "bold red",
    "problem": "bold red",
}


def out() -> Console:
    """Return the console of standard output."""
    width = None if sys.stdout.isatty() else _UNBOUNDED_WIDTH
    return Console(markup=False, highlight=False, emoji=False, width=width)


def err() -> Console:
    """Return the console of standard error."""
    width = None if sys.stderr.isatty() else _UNBOUNDED_WIDTH
    return Console(markup=False, highlight=False, emoji=False, stderr=True, width=width)


def clean(text: str) -> str:
    """Return text without control characters and unpaired surrogates, each shown as a question mark."""
    return "".join("?" if unicodedata.category(letter) in {"Cc", "Cs"} else letter for letter in text)


def print_json(value: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False).encode(errors="replace").decode() + "\n")


def print_json_items(items: Iterable[object]) -> None:
    """Print ``{"items": [...]}`` piece by piece, so that a long list needs no memory."""
    sys.stdout.write('{"items": [')
    separator = "\n"
    for item in items:
        sys.stdout.write(separator + json.dumps(item, ensure_ascii=False).encode(errors="replace").decode())
        separator = ",\n"
    sys.stdout.write("]}\n" if separator == "\n" else "\n]}\n")


def say(text: str = "", *, style: str = "") -> None:
    """Print a line for a person on standard output."""
    out().print(Text(clean(text), style=style), soft_wrap=True)


def answer(value: object, sentence: str, *, as_json: bool) -> None:
    """Print what a command came to.

    Args:
        value: the whole of it, for a program.
        sentence: the same in short, for a person.
        as_json: whether a program asks.
    """
    if as_json:
        print_json(value)
    else:
        say(sentence)


def note(text: str) -> None:
    """Print a line about what is going on, on standard error."""
    err().print(Text(clean(text), style="dim"), soft_wrap=True)


def complain(text: str) -> None:
    """Print what went wrong, on standard error."""
    err().print(Text.assemble(("error: ", "bold red"), clean(text)), soft_wrap=True)


def state_text(state: str) -> Text:
    """Return a state in its colour; the word alone says as much."""
    return Text(clean(state), style=_STATE_STYLES.get(state, ""))


def print_table(
    columns: Mapping[str, Justify],
    rows: Iterable[Sequence[Cell]],
    *,
    empty: str,
    indent: int = 0,
    column_width: int | None = None,
) -> None:
    """Print a table, or a sentence where there is nothing to show.

    Args:
        columns: titles, each with how it is justified.
        rows: cells; None is shown as a dash.
        empty: the sentence.
        indent: spaces to the left.
        column_width: longer cells are continued on further lines; None for as long as they are.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        say(" " * indent + empty)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for number, (title, justify) in enumerate(columns.items()):
        # Text wraps, numbers do not: on a narrow terminal a line is rather too long than a number cut short.
        is_number = justify == "right"
        least_width = max(cell_len(title), *(row[number].cell_len for row in cells)) if is_number else None
        table.add_column(
            title,
            justify=justify,
            no_wrap=is_number,
            overflow="fold",
            min_width=least_width,
            max_width=None if is_number else column_width,
        )
    for row in cells:
        table.add_row(*row)
    needed = Measurement.get(out(), out().options.update(width=_UNBOUNDED_WIDTH), table).minimum + indent
    _print(Padding(table, (0, 0, 0, indent), expand=False), least_width=needed)


def print_facts(facts: Mapping[str, Cell], *, indent: int = 0) -> None:
    """Print names and values below each other; what is None is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            grid.add_row(name, _cell(value))
    _print(Padding(grid, (0, 0, 0, indent), expand=False))


def print_title(*parts: Text | str) -> None:
    """Print the first line about one thing: what it is, in bold, and what else there is to say in a word."""
    first, *rest = (part if isinstance(part, Text) else Text(clean(part)) for part in parts)
    first.stylize("bold")
    out().print(Text("  ").join([first, *rest]), soft_wrap=True)


def _print(renderable: RenderableType, *, least_width: int = 0) -> None:
    console = out()
    if console.is_terminal:
        console.width = max(console.width, least_width)
        console.print(renderable, crop=False)
        return
    # Columns are padded to their width; in a file that would be spaces at the ends of lines.
    with console.capture() as captured:
        console.print(renderable)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _cell(value: Cell) -> Text:
    if isinstance(value, Text):
        return value
    return Text("-" if value is None else clean(str(value)))


class Bar(Protocol):
    """Progress of one thing that takes a while. Its methods may be called from any thread."""

    def advance(self, count: int = 1) -> None:
        """Say that so many more are done."""

    def show(self, *, completed: int, total: int | None, detail: str = "") -> None:
        """Say how many are done, of how many, with a few words."""

    def line(self, text: str) -> None:
        """Print a line that stays above the bar."""


@contextmanager
def progress(label: str, total: int | None, *, unit: Literal["count", "bytes"] = "count") -> Iterator[Bar]:
    """Show progress on standard error: a bar on a terminal, otherwise a line now and then.

    Args:
        label: what is being done, such as ``Uploading``.
        total: how many in all; None while it is not known.
        unit: what is counted.
    """
    if not sys.stderr.isatty():
        yield _PlainBar(label, total, unit=unit)
        return
    from defectoscope.cli.terminal_bar import terminal_bar

    with terminal_bar(label, total, unit=unit, console=err()) as bar:
        yield bar


class _PlainBar:
    def __init__(self, label: str, total: int | None, *, unit: Literal["count", "bytes"]) -> None:
        self._label = label
        self._unit = unit
        self._total = total
        self._completed = 0
        self._next_at = time.monotonic() + _FIRST_LINE_AFTER_S

    def advance(self, count: int = 1) -> None:
        self.show(completed=self._completed + count, total=self._total)

    def show(self, *, completed: int, total: int | None, detail: str = "") -> None:
        self._completed, self._total = completed, total
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + _LINE_EVERY_S
        size = format_bytes if self._unit == "bytes" else str
        # Before anything can be counted the detail says more than a zero does.
        amount = f"{size(completed)} of {size(total)}" if total is not None else size(completed) if completed else ""
        note(f"{self._label}: {', '.join(part for part in (amount, detail) if part) or size(completed)}")

    def line(self, text: str) -> None:
        note(text)


def format_bytes(count: int) -> str:
    """Return a size for people, such as ``3.4 MB``."""
    size = float(count)
    for name in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:  # noqa: PLR2004 - the step between the names
            return f"{size:.0f} {name}" if name == "bytes" else f"{size:.1f} {name}"
        size /= 1000
    return f"{size:.1f} TB"
