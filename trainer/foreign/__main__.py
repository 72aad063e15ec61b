"""The process that `trainer.foreign.process` starts: an order comes as JSON on standard input, an answer goes out."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from defectoscope.errors import DefectoscopeError
from defectoscope.errors.catalogue import to_json
from trainer.foreign.limits import FileLimits
from trainer.foreign.wrap import ForeignFacts, wrap_foreign


def main() -> None:
    """Take the limits upon itself, wrap the file, and answer with a report or a named error."""
    order = json.load(sys.stdin)
    # Whatever a library prints goes to standard error: standard output is the answer's.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    for kind, amount in (
        (resource.RLIMIT_AS, order["max_memory_bytes"]),
        (resource.RLIMIT_CPU, order["max_cpu_s"]),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)  # noqa: PLW2901 -- cut to what is given
        resource.setrlimit(kind, (amount, hard))
    facts = order["facts"]
    try:
        report = wrap_foreign(
            Path(order["path"]),
            out=Path(order["out"]),
            facts=ForeignFacts(**{**facts, "size_wh": tuple(facts["size_wh"]) if facts["size_wh"] else None}),
            limits=FileLimits(**order["limits"]),
        )
        answer = {"report": report.to_json()}
    except DefectoscopeError as exc:
        answer = {"error": to_json(exc)}
    with os.fdopen(answer_to, "w") as stream:
        json.dump(answer, stream)


if __name__ == "__main__":
    main()
