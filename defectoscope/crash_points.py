"""Named places between two steps where a process can be made to die, so that a test kills it there and nowhere else.

Nothing happens at any of them unless an entry point has armed one, and an entry point arms one only when the
environment of its process names it. Who may set that environment can end the process anyhow; no request, row, message
or file can arm anything. Unarmed, a point is one comparison. There is no way to make a point do anything else than die.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from enum import StrEnum

from defectoscope.errors.installation import SettingMissing

#: The environment variable that names the point at which a process dies.
VARIABLE = "DEFECTOSCOPE_CRASH_POINT"


class CrashPoint(StrEnum):
    """Every point there is, in the order in which work comes to them."""

    #: A transaction has committed; the messages that were to follow are not sent.
    EFFECTS_OWED = "effects.owed"
    #: A chunk is claimed, and nobody else has been rung for.
    CHUNK_CLAIMED = "chunk.claimed"
    #: The doorbell is passed on; nothing is fetched.
    DOORBELL_PASSED_ON = "doorbell.passed_on"
    #: The bytes of an image are here, and not in our content store.
    IMAGE_FETCHED = "image.fetched"
    #: They are in our content store; the image is not decoded.
    IMAGE_KEPT = "image.kept"
    #: The model has said everything of an image; nothing is stored.
    IMAGE_SEGMENTED = "image.segmented"
    #: The mask of an image is stored; its overlay is not, and no row says so.
    MASK_STORED = "mask.stored"
    #: Every image of a chunk has its outcome; the transaction has not begun.
    CHUNK_INSPECTED = "chunk.inspected"
    #: Within the transaction: the chunk is closed, its results are not written.
    CHUNK_CLOSED = "chunk.closed"
    #: Within the transaction: results and defects are written, the images have not ended.
    RESULTS_WRITTEN = "results.written"
    #: Within the transaction: everything is written; what is left is the commit.
    COMPLETION_WRITTEN = "completion.written"
    #: The chunk is committed; the message is not acknowledged.
    CHUNK_COMMITTED = "chunk.committed"
    #: Within the transaction: a chunk is split into single images.
    CHUNK_SPLIT = "chunk.split"
    #: Within the transaction: the files of a model version are stored, its rows are not committed.
    VERSION_STORED = "version.stored"
    #: A model version is published; whoever asked for it does not know yet.
    VERSION_PUBLISHED = "version.published"
    #: Within the transaction: the ledger has its line, another version is still in service.
    DECISION_WRITTEN = "decision.written"
    #: Within the transaction: the version is in service; what is left is the commit.
    CHAMPION_WRITTEN = "champion.written"


@dataclass(slots=True)
class _Fuse:
    armed: CrashPoint | None = None


_fuse = _Fuse()


def arm_crash_point() -> None:
    """Arm the point that the environment names, if it names one. For entry points.

    Raises:
        SettingMissing: there is no such point.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return
    try:
        _fuse.armed = CrashPoint(name)
    except ValueError:
        raise SettingMissing(f"{VARIABLE} names no crash point; those that exist: {', '.join(CrashPoint)}.") from None
    sys.stderr.write(f"armed: this process will die at {name}\n")


def crash_point(point: CrashPoint) -> None:
    """Die here, as by `kill -9`, if this very point is armed."""
    if _fuse.armed is point:
        # Unbuffered, and the last thing this process says.
        os.write(2, f"died at {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
