"""The notebook's loop with a small batch for each call of the model, which uses the cores better."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.peers import notebook
from benchmarks.peers.steps import Work, take_part


def prepare(work: Work) -> AbstractContextManager[Callable[[], None]]:
    """Do as the notebook; see `benchmarks.peers.steps.Prepare`."""
    return notebook.prepare(work, at_once=work.batch_size)


if __name__ == "__main__":
    take_part(prepare, packages=notebook.PACKAGES)
