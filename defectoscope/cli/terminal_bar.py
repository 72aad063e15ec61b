"""The progress bar of a terminal. Apart from `output`, because `rich.progress` takes its time to import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class TerminalBar:
    """One line that is redrawn and disappears at the end."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int = 1) -> None:
        """Say that so many more are done."""
        self._progress.advance(self._task, count)

    def show(self, *, completed: int, total: int | None, detail: str = "") -> None:
        """Say how many are done, of how many, with a few words."""
        self._progress.update(self._task, completed=completed, total=total, detail=detail)

    def line(self, text: str) -> None:
        """Print a line that stays above the bar."""
        self._progress.console.print(Text(text), soft_wrap=True)


class _CountColumn(MofNCompleteColumn):
    """``120/470``; nothing while there is nothing to count."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None or task.completed else Text()


@contextmanager
def terminal_bar(
    label: str, total: int | None, *, unit: Literal["count", "bytes"], console: Console
) -> Iterator[TerminalBar]:
    """Show a bar while the block runs."""
    counted: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [_CountColumn()]
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *counted,
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    ]
    with Progress(*columns, console=console, transient=True) as shown:
        yield TerminalBar(shown, shown.add_task(label, total=total, detail=""))
