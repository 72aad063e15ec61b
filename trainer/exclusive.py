"""One training at a time on one machine's work directory, whatever the number of messages, threads and workers."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole_training(work_dir: Path) -> Iterator[bool]:
    """Hold the work directory's lock during the block, if nobody else does.

    The lock belongs to the open file: it ends with this process, however that ends.

    Args:
        work_dir: made when missing.

    Yields:
        Whether it is ours; where it is not, another process is training.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / "training.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
