"""The process that runs the inputs of one kind under a memory limit, and leaves a note before each of them.

It dies of the first input that breaks it: of a crash by itself, of an exception with its trace on standard error. The
campaign then starts another one behind that input.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import sys
import time
from pathlib import Path

from tests.fuzz.kinds import FAULTS, KINDS, SELF_TEST

#: The input that is being run, and since when by the monotonic clock.
NOTE = struct.Struct("<qd")


def rng_of(seed, kind, index):
    """The random generator of an input: each can be drawn again alone."""
    return random.Random(f"{seed}/{kind}/{index}")  # noqa: S311 -- a generator that can be repeated is wanted


def main():
    order = json.loads(sys.argv[1])
    kind = SELF_TEST if order["kind"] == "self-test" else KINDS[order["kind"]]
    resource.setrlimit(resource.RLIMIT_AS, (kind.memory_bytes, kind.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    note = os.open(order["note"], os.O_WRONLY)
    results = os.open(order["results"], os.O_WRONLY | os.O_APPEND)
    with kind.open(order["settings"]) as run:
        for index in range(order["first"], order["end"]):
            data = FAULTS[index] if kind is SELF_TEST else kind.draw(rng_of(order["seed"], order["kind"], index))
            os.pwrite(note, NOTE.pack(index, time.monotonic()), 0)
            began_s = time.perf_counter()
            outcome = run(data)
            ms = (time.perf_counter() - began_s) * 1000
            os.write(results, f"{index}\t{ms:.3f}\t{peak_kib()}\t{outcome}\n".encode())
        # What was opened is closed now, which is no input and may take as long as the opening.
        os.pwrite(note, NOTE.pack(-1, time.monotonic()), 0)


def peak_kib():
    """The most memory that this process has had, kibibytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
